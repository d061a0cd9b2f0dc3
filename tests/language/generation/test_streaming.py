"""Replies that are shown while they are generated."""

import torch
from tiny import merging_tokenizer, scripted_model, tiny_model, tiny_tokenizer

from sleepkit.language.generation.chat import reply_texts
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.generation.streaming import _Voice, streamed


def test_what_is_shown_is_the_reply_part_by_part():
    model, tokenizer, parts = tiny_model(), tiny_tokenizer(), []
    reply = streamed(model, tokenizer, "who keeps the light?", 24, parts.append)
    assert "".join(parts) == reply.text and not reply.stopped and len(parts) > 5
    assert reply.text == reply_texts(model, tokenizer, ["who keeps the light?"], max_new_tokens=24)[0]


def test_ctrl_c_ends_a_reply_with_what_was_said():
    model, tokenizer, parts = tiny_model(), tiny_tokenizer(), []

    def show(text):
        parts.append(text)
        if len(parts) == 4:
            raise KeyboardInterrupt

    reply = streamed(model, tokenizer, "who keeps the light?", 400, show)
    whole = streamed(model, tokenizer, "who keeps the light?", 400, lambda _: None)
    assert reply.stopped and not whole.stopped
    assert whole.text.startswith(reply.text) and len(reply.text) < len(whole.text)
    assert not model.training


def test_a_reply_that_nobody_waits_for_ends():
    model, tokenizer, parts = tiny_model(), tiny_tokenizer(), []
    reply = streamed(model, tokenizer, "who keeps the light?", 400, parts.append, lambda: len(parts) == 4)
    assert reply.stopped and not reply.cut and reply.text == "".join(parts).strip() and reply.tokens < 20


def test_a_reply_is_cut_where_it_may_have_no_more_tokens():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    reply = streamed(model, tokenizer, "who keeps the light?", 7, lambda _: None)
    assert reply.cut and reply.tokens == 7
    model.generation_config.eos_token_id = list(range(64))  # whatever comes ends the turn
    reply = streamed(model, tokenizer, "who keeps the light?", 1, lambda _: None)
    assert not reply.cut and reply.tokens == 1 and reply.text == ""


def test_a_text_ends_a_reply_and_no_part_of_it_is_shown():
    model, tokenizer, parts = tiny_model(), tiny_tokenizer(), []
    whole = streamed(model, tokenizer, "who keeps the light?", 40, lambda _: None).text
    stop = whole[10:13]
    reply = streamed(model, tokenizer, "who keeps the light?", 40, parts.append, stop=[stop])
    assert reply.text == "".join(parts) == whole[: whole.index(stop)].rstrip() and not reply.cut and not reply.stopped
    assert reply.tokens <= 13
    last = whole.index(stop) + 3  # the same where the last token that it may have ends the text
    assert not streamed(model, tokenizer, "who keeps the light?", last, lambda _: None, stop=[stop]).cut


def test_a_text_before_the_reply_ends_it_too():
    tokenizer = merging_tokenizer()
    ids = tokenizer("\n\nOrla", add_special_tokens=False)["input_ids"]
    voice = _Voice(tiny_model(vocab_size=len(tokenizer)), tokenizer, print, stop=["\n"])
    assert voice.prompts.so_far(ids, ["\n"]) == voice.prompts.said(ids, ["\n"]) == ""
    assert voice.prompts.so_far(ids, ["laz"]) == "Or"  # it may go on as the text that ends it
    assert voice.prompts.said(ids, ["laz"]) == "Orla"


def test_draws():
    model, tokenizer = tiny_model(), tiny_tokenizer()

    def drawn(seed):
        return streamed(model, tokenizer, "who?", 20, lambda _: None, temperature=1.5, top_p=1.0, seed=seed).text

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_model_that_says_nothing():
    tokenizer = tiny_tokenizer()
    shown = []
    reply = streamed(scripted_model(tokenizer, lambda _: ""), tokenizer, "who?", 8, shown.append)
    assert (reply.text, shown) == ("", [])


def heard(tokenizer, tokens):
    """What is shown of tokens, each time one comes, and in the end."""
    shown = []
    voice = _Voice(tiny_model(vocab_size=len(tokenizer)), tokenizer, shown.append)
    voice.put(torch.tensor([[1, 2, 3]]))
    steps = []
    for token in tokens:
        voice.put(torch.tensor([token]))
        steps.append("".join(shown))
    return steps, voice.finish(tokens), "".join(shown)


def test_half_a_character_is_not_shown():
    tokenizer = merging_tokenizer()
    tokens = tokenizer("né 🐈!", add_special_tokens=False)["input_ids"]
    steps, reply, shown = heard(tokenizer, tokens)
    assert reply == shown == "né 🐈!" and not any("\N{REPLACEMENT CHARACTER}" in step for step in steps)


def test_where_the_plain_format_asks_on_nothing_is_shown():
    tokenizer = merging_tokenizer(template=None)
    tokens = tokenizer(" in 1907.\nQuest is over.", add_special_tokens=False)["input_ids"]
    steps, reply, shown = heard(tokenizer, tokens)
    assert reply == shown == "in 1907.\nQuest is over."  # a word that only begins as the next question would
    assert "in 1907.\nQ" not in steps[: steps.index("in 1907.") + 3]
    tokens = tokenizer(" in 1907.\n\nQuestion: who", add_special_tokens=False)["input_ids"]
    steps, reply, shown = heard(tokenizer, tokens)
    assert reply == shown == "in 1907." and all("Q" not in step for step in steps)


def test_what_ends_a_turn_and_what_was_thought_is_not_shown():
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
    )
    tokenizer = merging_tokenizer(tags=["<think>", "</think>"], template=template)
    PromptFormat.use(tokenizer, chat_template_kwargs={"enable_thinking": True})
    ids = tokenizer("<think>\nhmm\n</think>\n\nOrla.<|im_end|>", add_special_tokens=False)["input_ids"]
    steps, reply, shown = heard(tokenizer, ids)
    assert "hmm" not in "".join(steps) and "im_end" not in shown
    assert reply.endswith("Orla.") and shown.endswith("Orla.")


def test_a_tokenizer_that_changes_what_it_has_said_shows_the_whole_again(monkeypatch):
    tokenizer, shown = tiny_tokenizer(), []
    voice = _Voice(tiny_model(), tokenizer, shown.append)
    voice.shown = "do n"
    monkeypatch.setattr(voice.prompts, "said", lambda _: "don't")
    assert voice.finish([]) == "don't" and shown == ["\n", "don't"]
