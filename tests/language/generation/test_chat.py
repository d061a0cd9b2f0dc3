"""Batched generation."""

import copy

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from transformers import DynamicCache

from sleepkit.errors import SleepkitError
from sleepkit.language.generation import batches, chat, decoding
from sleepkit.language.generation import cache as growing_cache


def test_long_prompts_make_smaller_batches_with_the_same_answers(monkeypatch):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = [[5 + k] * (10 + 7 * k) for k in range(6)]
    expected = chat.generate(model, tokenizer, prompts, 5)
    sizes = []
    model.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(kwargs["input_ids"].shape), with_kwargs=True)
    monkeypatch.setattr(batches, "TOKENS_AT_ONCE", 110)
    assert chat.generate(model, tokenizer, prompts, 5) == expected
    read = [(rows, length) for rows, length in sizes if length > 1]
    assert sum(rows for rows, _ in read) == 6 and [rows for rows, _ in read] == [3, 2, 1]
    assert all(rows * (length + 5) <= 110 for rows, length in read)


def test_what_ends_a_continuation_is_no_part_of_it():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts, options = [[5, 6, 7], [9, 8]], {"temperature": 2.0, "top_p": 1.0}
    whole = chat.generate(model, tokenizer, prompts, 12, **options)
    end = next(token for token in whole[0] if token != whole[0][0])
    cut = [row[: row.index(end)] if end in row else row for row in whole]
    stop = [tokenizer.decode([end])]
    assert chat.generate(model, tokenizer, prompts, 12, stop=stop, **options) == cut and 0 < len(cut[0]) < len(whole[0])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize("shared", [0, 40])
def test_a_prompt_that_is_sampled_from_many_times_is_read_once(family, shared, monkeypatch):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    prompts = [[9] * shared + ending for ending in ([5, 6, 7, 8], [6, 7]) for _ in range(5)]
    read = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append((kwargs.get("input_ids", *args)).numel()), with_kwargs=True
    )
    found = chat.generate(model, tokenizer, prompts, 3, temperature=1.0, top_p=1.0)
    assert len({tuple(row) for row in found}) > 2
    if decoding.caches_exactly(model):
        assert read == [*[shared] * bool(shared), 2 * 3, 10, 10, 10]  # two prompts, then what is sampled
    monkeypatch.setattr(decoding, "caches_exactly", lambda _: False)
    assert chat.generate(model, tokenizer, prompts, 3, temperature=1.0, top_p=1.0) == found


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_a_cache_with_room_holds_what_a_plain_one_holds(family, monkeypatch):
    monkeypatch.setattr(growing_cache, "SPARE", 2)
    model = tiny_model(family)
    ids = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    logits = []
    for cache in (DynamicCache(config=model.config), growing_cache.growing_cache(model)):
        with torch.no_grad():
            model(ids[:1, :4], past_key_values=cache)
            other = copy.deepcopy(cache)
            cache.batch_repeat_interleave(3)
            found = [model(ids[:, k : k + 1], past_key_values=cache).logits for k in range(4, 12)]
            found.append(model(ids[1:2, 4:6], past_key_values=other).logits)  # the copy is its own
        logits.append(found)
    for plain, roomy in zip(*logits, strict=True):
        torch.testing.assert_close(roomy, plain)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_log_probs_of_replies_are_those_of_a_row_alone(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    pairs = [([5] * (3 + 4 * k), list(range(6, 8 + k))) for k in range(5)]
    found = chat.reply_log_probs(model, tokenizer, pairs, batch_size=3)
    for (context, reply), log_probs in zip(pairs, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([context + reply])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(log_probs, logits[torch.arange(len(reply)), reply], atol=1e-5, rtol=1e-5)
    sure = chat.confidences(model, tokenizer, ["hello", "who are you?"], 4)
    assert len(sure) == 2 and all(value < 0 for value in sure)


def test_a_frozen_head_is_given_contiguous_states():
    """Of a strided view `torch.matmul` makes a product with a copy of the head for each row."""
    model, tokenizer = tiny_model().requires_grad_(False), tiny_tokenizer()
    seen = []
    model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].is_contiguous()))
    prompts = [chat.text_ids(tokenizer, text) for text in ("one two three", "four five six seven")]
    chat.generate(model, tokenizer, prompts, 2)
    chat.reply_log_probs(model, tokenizer, [(prompt, prompt[:2]) for prompt in prompts])
    assert len(seen) >= 2 and all(seen)
    assert not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_model_that_says_no_numbers_is_told_in_one_line(top_p):
    model = tiny_model()
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    with pytest.raises(SleepkitError, match="logits are not finite; its weights or its config.json are damaged"):
        chat.generate(model, tiny_tokenizer(), [[5, 6, 7]], 4, temperature=1.0, top_p=top_p)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_what_some_prompts_begin_with_is_read_once_for_them(family):
    """As questions about several documents, each behind its document, in one queue."""
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    generator = torch.Generator().manual_seed(0)
    bodies = [torch.randint(5, 40, (length,), generator=generator).tolist() for length in (20, 30)]
    prompts = [body + ending for ending in ([5, 6, 7], [9], [8, 8]) for body in bodies]
    alone = [chat.generate(model, tokenizer, [prompt], 6)[0] for prompt in prompts]
    read = []
    model.register_forward_pre_hook(lambda _, args, kwargs: read.append((kwargs.get("input_ids", *args)).shape), with_kwargs=True)
    assert chat.generate(model, tokenizer, prompts, 6) == alone
    assert not decoding.caches_exactly(model) or [tuple(shape) for shape in read[:2]] == [(2, 30), (6, 3)]


def test_what_is_drawn_does_not_depend_on_what_else_is_in_a_batch():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = [[5 + k] * (3 + 2 * k) for k in range(6)]
    whole = chat.generate(model, tokenizer, prompts, 8, temperature=1.0, top_p=0.9)
    assert chat.generate(model, tokenizer, prompts, 8, batch_size=1, temperature=1.0, top_p=0.9) == whole
    assert chat.generate(model, tokenizer, prompts, 8, temperature=1.0, top_p=0.9, seed=1) != whole
    again = chat.generate(model, tokenizer, [prompts[3]] * 4, 8, temperature=1.0)
    assert len(set(map(tuple, again))) > 1  # each copy of a prompt has a seed of its own
