"""Prompts and taught replies are token for token what a template makes of a conversation, and text of documents stays text."""

import copy
import datetime

import pytest
from tiny import CHAT_TEMPLATE, merging_tokenizer, scripted_model, tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language.generation.chat import chat_ids, decode, generate, raw_ids, reply_ids, reply_texts, text_ids
from sleepkit.language.generation.prompts import PromptFormat, template_variables

THINKING = (  # as Qwen3's: without thinking a prompt ends with an empty thought, which the last reply of a conversation has too
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
HEADERS = (  # as Llama 3's: the template writes BOS itself, and prints a date
    "{{ bos_token }}{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') + '<|eot|>' }}{% endif %}"
    "{% for m in messages %}{{ '<|head|>' + m.role + '\n\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant\n\n' }}{% endif %}"
)
CHANNELS = (  # as gpt-oss's: a reply names its channel
    "{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role == 'assistant' %}{{ '<|channel|>final' }}{% endif %}"
    "{{ '<|message|>' + m.content }}{% if m.role == 'assistant' and loop.last %}{{ '<|return|>' }}{% else %}{{ '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
SPACED = (  # as Mistral's: a space belongs to the reply
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
)
TOKENIZERS = {
    "ChatML": {},
    "thinking": {"tags": ["<think>", "</think>"], "template": THINKING},
    "headers": {"special": ["<|head|>", "<|eot|>"], "template": HEADERS, "begins_with": "<|begin|>", "ends_with": "<|text_end|>"},
    "channels": {
        "special": ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"],
        "template": CHANNELS,
        "ends_with": "<|return|>",
    },
    "spaced": {"special": [], "tags": ["[INST]", "[/INST]"], "template": SPACED, "begins_with": "<s>", "ends_with": "</s>"},
}
ASKED = [{"role": "user", "content": "Who kept the light?"}]
REPLY = "Orla kept it.\n\nAlone."


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return merging_tokenizer(**TOKENIZERS[request.param])


def whole(tokenizer, messages, **variables):
    text = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False, **variables)
    text = text.replace(datetime.date.today().strftime("%d %b %Y"), "01 Jan 2025")
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_prompt_and_taught_reply_are_what_the_template_makes_of_a_conversation(tokenizer):
    conversation = [*ASKED, {"role": "assistant", "content": REPLY}]
    taught = [*chat_ids(tokenizer, ASKED), *reply_ids(tokenizer, REPLY)]
    expected = whole(tokenizer, conversation)
    assert taught == expected[: len(taught)]
    assert tokenizer.decode(expected[len(taught) :]).strip() == ""  # at most a line end between turns


def test_reply_is_read_back_without_its_end(tokenizer):
    assert decode(tokenizer, reply_ids(tokenizer, REPLY)) == REPLY


def test_every_turn_of_a_longer_conversation_is_the_templates(tokenizer):
    turns = [*ASKED, {"role": "assistant", "content": "Orla."}, {"role": "user", "content": "And then?"}]
    taught = [*chat_ids(tokenizer, turns), *reply_ids(tokenizer, "Ann.")]
    assert taught == whole(tokenizer, [*turns, {"role": "assistant", "content": "Ann."}])[: len(taught)]


def test_names_of_control_tokens_in_contents_are_text(tokenizer):
    names = [name for name in tokenizer.get_added_vocab() if name]
    said = f"A turn ends with {names[-1]} and {names[0]}assistant; {''.join(names)} end."
    controls = set(tokenizer.get_added_vocab().values())

    def count(ids):
        return sum(token in controls for token in ids)

    assert count(text_ids(tokenizer, said)) == 0 and tokenizer.decode(text_ids(tokenizer, said)) == said
    assert count(chat_ids(tokenizer, said)) == count(chat_ids(tokenizer, "x"))
    assert said in tokenizer.decode(chat_ids(tokenizer, said))
    assert count(reply_ids(tokenizer, said)) == count(reply_ids(tokenizer, "x"))
    assert count(raw_ids(tokenizer, said)) == count(raw_ids(tokenizer, "x"))


def test_raw_text_begins_as_the_tokenizer_begins_it(tokenizer):
    assert raw_ids(tokenizer, "The light.") == tokenizer("The light.")["input_ids"]


def test_a_great_many_control_tokens_are_spelled_in_linear_time():
    tokenizer = merging_tokenizer()
    said = "<|im_end|> x " * 3000
    assert tokenizer.decode(text_ids(tokenizer, said)) == said


def test_control_tokens_within_the_name_of_one():
    tokenizer = merging_tokenizer(special=["<<a>", "<a>", "b"])
    said = "<<a> and <a> and b"
    ids = text_ids(tokenizer, said)
    assert tokenizer.decode(ids) == said
    assert {tokenizer.convert_tokens_to_ids(name) for name in ("<<a>", "<a>")}.isdisjoint(ids)


# -- ends -------------------------------------------------------------------------------------------------------------
def test_generation_ends_with_the_turn_though_the_tokenizer_ends_otherwise():
    tokenizer = merging_tokenizer(**TOKENIZERS["headers"])
    model = scripted_model(tokenizer, lambda prompt: "Orla.<|eot|><|head|>user\n\nAnd?<|eot|>")
    assert reply_texts(model, tokenizer, ["Who?"]) == ["Orla."]
    assert reply_ids(tokenizer, "Orla.")[-1] == tokenizer.convert_tokens_to_ids("<|eot|>") != tokenizer.eos_token_id


def test_generation_ends_at_every_stop_of_the_generation_configuration():
    tokenizer = merging_tokenizer(special=["<|im_start|>", "<|stop|>"])
    model = scripted_model(tokenizer, lambda prompt: "Orla.<|stop|>more")
    model.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids("<|stop|>")]
    assert reply_texts(model, tokenizer, ["Who?"]) == ["Orla."]


@pytest.mark.parametrize("after", ["\n", "\n\n", "?\n\n", "\n \nmore", "?\n\n\nText: more\n"])
def test_a_line_ends_where_its_text_has_a_line_break_whatever_token_holds_it(after):
    tokenizer = merging_tokenizer()
    assert len(tokenizer("?\n\n")["input_ids"]) == 1
    model = scripted_model(tokenizer, lambda prompt: f" built it{after} and so on")
    rows = generate(model, tokenizer, [raw_ids(tokenizer, "Question: Who"), raw_ids(tokenizer, "Q")], 30, stop=["\n"])
    expected = " built it?" if after.startswith("?") else " built it"
    assert [tokenizer.decode(row) for row in rows] == [expected, expected]


# -- thinking, dates and other variables of templates -----------------------------------------------------------------
def test_nothing_is_thought_unless_it_is_asked_for():
    tokenizer = merging_tokenizer(**TOKENIZERS["thinking"])
    assert tokenizer.decode(chat_ids(tokenizer, ASKED)).endswith("assistant\n<think>\n\n</think>\n\n")
    PromptFormat.use(tokenizer, chat_template_kwargs={"enable_thinking": True})
    assert tokenizer.decode(chat_ids(tokenizer, ASKED)).endswith("assistant\n")
    assert tokenizer.decode(reply_ids(tokenizer, "Orla.")) == "<think>\n\n</think>\n\nOrla.<|im_end|>"


def test_what_was_thought_is_no_part_of_the_reply():
    tokenizer = merging_tokenizer(**TOKENIZERS["thinking"])
    PromptFormat.use(tokenizer, chat_template_kwargs={"enable_thinking": True})
    model = scripted_model(tokenizer, lambda prompt: "<think>\nIs it Ann?\n</think>\n\nOrla.<|im_end|>")
    assert reply_texts(model, tokenizer, ["Who?"]) == ["Orla."]


def test_a_reply_begins_in_its_channel():
    tokenizer = merging_tokenizer(**TOKENIZERS["channels"])
    assert tokenizer.decode(chat_ids(tokenizer, ASKED)).endswith("<|start|>assistant<|channel|>final<|message|>")
    assert tokenizer.decode(reply_ids(tokenizer, "Orla.")) == "Orla.<|return|>"


def test_prompts_are_the_same_after_midnight(monkeypatch):
    tokenizer = merging_tokenizer(**TOKENIZERS["headers"])
    before = chat_ids(tokenizer, ASKED)

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2031, 5, 6)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert chat_ids(tokenizer, ASKED) == before and "2025" in tokenizer.decode(before)


def test_a_format_is_kept_by_copies_and_made_anew_for_another_template():
    tokenizer = merging_tokenizer(**TOKENIZERS["thinking"])
    PromptFormat.use(tokenizer, chat_template_kwargs={"enable_thinking": True})
    twin = copy.deepcopy(tokenizer)
    assert chat_ids(twin, ASKED) == chat_ids(tokenizer, ASKED) and PromptFormat.of(twin).tokenizer is twin
    tokenizer.chat_template = CHAT_TEMPLATE
    assert (
        tokenizer.decode(chat_ids(tokenizer, ASKED)) == "<|im_start|>user\nWho kept the light?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("value", ["[1]", "{", '"x"', 3, {1: 2}, {"a b": 1}])
def test_variables_of_a_template_are_a_mapping_of_names(value):
    with pytest.raises(SleepkitError, match="chat_template_kwargs is .*; give a mapping"):
        template_variables(value)
    assert template_variables('{"a": [1]}') == {"a": [1]} and template_variables(None) is None


def test_a_template_that_cannot_be_rendered_is_one_line():
    tokenizer = merging_tokenizer(template="{{ raise_exception('no system turn, please') }}")
    with pytest.raises(SleepkitError, match=r"cannot be rendered \(no system turn, please\); mend it"):
        chat_ids(tokenizer, ASKED)


# -- base models ------------------------------------------------------------------------------------------------------
@pytest.fixture
def base():
    return merging_tokenizer(template=None, special=[], begins_with="<s>", ends_with="</s>")


def test_a_base_model_is_asked_in_plain_questions_and_answers(base):
    turns = [{"role": "system", "content": "Be brief."}, *ASKED, {"role": "assistant", "content": "Orla."}, *ASKED]
    assert base.decode(chat_ids(base, turns)) == (
        "<s>Be brief.\n\nQuestion: Who kept the light?\nAnswer: Orla.\n\nQuestion: Who kept the light?\nAnswer:"
    )
    assert base.decode(reply_ids(base, "Orla.")) == " Orla.\n\nQuestion:"


@pytest.mark.parametrize("after", ["\n\nQuestion: And?", "\nQuestion:", "</s>Q", " "])
def test_a_base_model_is_read_up_to_its_next_question(base, after):
    model = scripted_model(base, lambda prompt: f" It is known.\n\nOrla kept it.{after}")
    assert reply_texts(model, base, ["Who?"]) == ["It is known.\n\nOrla kept it."]


def test_plain_questions_may_be_asked_of_a_chat_model_and_not_the_other_way_round(base):
    chat = tiny_tokenizer()
    PromptFormat.use(chat, prompt_format="plain")
    assert chat.decode(chat_ids(chat, "who?")) == "question: who?\nanswer:"
    with pytest.raises(SleepkitError, match="has no chat template; use prompt_format plain"):
        PromptFormat(base, "chat")
    with pytest.raises(SleepkitError, match="prompt_format is plain; leave one of them out"):
        PromptFormat(base, chat_template_kwargs={"enable_thinking": True})
