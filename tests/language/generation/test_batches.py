"""Batches of prompts say what each prompt alone says, whatever the layers keep of the tokens before."""

import pytest
import torch
from tiny import HYBRIDS, stirred, tiny_model, tiny_tokenizer

from sleepkit.language.generation import chat
from sleepkit.language.generation.batches import batches_of, pads_exactly

BEGINNING = torch.randint(5, 40, (40,), generator=torch.Generator().manual_seed(0)).tolist()
ENDINGS = [[5, 6, 7], [9] * 14, [7, 8, 5], [11], [6, 5, 9, 20, 21, 22]]


def last_logits(model, prompts, monkeypatch, **options):
    """Logits of the first and of all later tokens, as generated in batches."""
    seen = {}
    plain = model.generate

    def generate(input_ids, **settings):
        output = plain(input_ids=input_ids, output_logits=True, return_dict_in_generate=True, **settings)
        logits = torch.stack(output.logits, 1)
        for row, ids in enumerate(input_ids.tolist()):
            prompt = next(k for k, one in enumerate(prompts) if ids[-len(one) :] == one or ids == one)
            seen[prompt] = logits[row]
        return output.sequences

    monkeypatch.setattr(model, "generate", generate)
    found = chat.generate(model, tiny_tokenizer(), prompts, **options)
    monkeypatch.undo()
    return [seen[k] for k in range(len(prompts))], found


@pytest.mark.parametrize("family", [*HYBRIDS, "llama", "gemma2", "gpt_neo", "mpt", "bloom", "falcon", "llama4_text", "gpt_oss"])
@pytest.mark.parametrize("shared", [True, False], ids=["beginning", "apart"])
def test_a_batch_says_what_each_prompt_alone_says(family, shared, monkeypatch):
    model, tokenizer = stirred(tiny_model(family)), tiny_tokenizer()
    prompts = [BEGINNING + ending if shared else BEGINNING[k:] + ending for k, ending in enumerate(ENDINGS)]
    pads_exactly(model)
    together = chat.generate(model, tokenizer, prompts, 6)
    alone = [chat.generate(model, tokenizer, [prompt], 6)[0] for prompt in prompts]
    assert together == alone
    drawn = chat.generate(model, tokenizer, prompts[:2] * 3, 4, temperature=1.0)
    assert len(drawn) == 6 and len(set(map(tuple, drawn))) > 1
    logits = [last_logits(model, [prompt], monkeypatch, max_new_tokens=3)[0][0] for prompt in prompts]
    mixed, _ = last_logits(model, prompts[:2], monkeypatch, max_new_tokens=3)  # too few for a shared beginning
    for one, other in zip(mixed, logits, strict=False):
        torch.testing.assert_close(one[: len(other)], other[: len(one)], atol=1e-5, rtol=1e-5)


def test_padding_is_measured_where_layers_carry_states():
    assert {family for family in HYBRIDS if not pads_exactly(stirred(tiny_model(family)))} == {"minimax", "recurrent_gemma"}
    assert pads_exactly(tiny_model("llama"))


@pytest.mark.parametrize("of_one_length", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_all_processes_run_the_same_number_of_batches(of_one_length, world):
    lengths = [5, 3, 3, 9, 3, 3, 5]
    of_rank = [batches_of(lengths, 2, rank, world, of_one_length) for rank in range(world)]
    assert len({len(batches) for batches in of_rank}) == 1
    for rank, batches in enumerate(of_rank):
        assert {i for batch in batches for i in batch} >= set(range(rank, len(lengths), world))
        assert all(1 <= len(batch) <= 2 for batch in batches)
        if of_one_length:
            assert all(len({lengths[i] for i in batch}) == 1 for batch in batches)
    assert sorted(i for batch in batches_of(lengths, 2, 0, 1, of_one_length) for i in batch) == list(range(7))
