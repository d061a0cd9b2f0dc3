"""Batched generation."""

from tiny import tiny_model, tiny_tokenizer

from sleepkit.language import chat


def test_long_prompts_make_smaller_batches_with_the_same_answers(monkeypatch):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = [[5 + k] * (10 + 7 * k) for k in range(6)]
    expected = chat.generate(model, tokenizer, prompts, 5)
    sizes = []
    model.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True)
    monkeypatch.setattr(chat, "TOKENS_AT_ONCE", 110)
    assert chat.generate(model, tokenizer, prompts, 5) == expected
    assert set(sizes) == {2}
