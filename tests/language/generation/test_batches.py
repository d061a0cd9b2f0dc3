"""Batches of prompts say what each prompt alone says, whatever the layers keep of the tokens before."""

from types import SimpleNamespace

import pytest
import torch
from tiny import HYBRIDS, stirred, tiny_model, tiny_tokenizer

from sleepkit.language.generation import chat
from sleepkit.language.generation.batches import Room, batches, costs_of, in_order, pads_exactly, room_of
from sleepkit.language.models import zero3
from sleepkit.utils.ranks import shares

BEGINNING = torch.randint(5, 40, (40,), generator=torch.Generator().manual_seed(0)).tolist()
ENDINGS = [[5, 6, 7], [9] * 14, [7, 8, 5], [11], [6, 5, 9, 20, 21, 22]]


def last_logits(model, prompts, monkeypatch, **options):
    """Logits of the first and of all later tokens, as generated in batches."""
    seen = {}
    plain = model.generate

    def generate(input_ids, attention_mask, **settings):
        options = {"output_logits": True, "return_dict_in_generate": True, **settings}
        output = plain(input_ids=input_ids, attention_mask=attention_mask, **options)
        logits = torch.stack(output.logits, 1)
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            seen[prompts.index(ids[mask.bool()].tolist())] = logits[row]
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


LENGTHS = [5, 3, 3, 9, 3, 3, 5]


@pytest.mark.parametrize("of_one_length", [True, False])
def test_a_batch_has_no_more_than_there_is_room_for(of_one_length):
    room = Room(rows=3, read=20, held=45)
    found = batches(LENGTHS, 6, room, of_one_length)
    assert sorted(i for batch in found for i in batch) == list(range(7)) and len(found) < 7
    for batch in found:
        longest = max(LENGTHS[i] for i in batch)
        assert len(batch) <= 3 and len(batch) * longest <= 20 and len(batch) * (6 + longest) <= 45
        assert not of_one_length or len({LENGTHS[i] for i in batch}) == 1
    assert batches([50], 6, room, of_one_length) == [[0]]  # alone, however long


@pytest.mark.parametrize("world", [2, 3, 9])
def test_under_zero3_all_processes_run_the_same_number_of_passes(world, monkeypatch):
    monkeypatch.setattr(zero3, "is_zero3", lambda: True)
    dealt = shares(LENGTHS, world)
    of_rank = []
    for rank in range(world):
        monkeypatch.setattr(zero3, "PartialState", lambda rank=rank: SimpleNamespace(process_index=rank))
        of_rank.append(zero3.passes_in_step(dealt, lambda share: [[i] for i in share]))
    assert len({len(passes) for passes in of_rank}) == 1
    assert all({i for batch in passes for i in batch} >= set(share) for passes, share in zip(of_rank, dealt, strict=True))


def test_prompts_that_begin_alike_stand_side_by_side_and_cost_their_beginning_once():
    head, first, second = [9] * 5, [1] * 8, [2] * 8
    prompts = [head + body + end for end in ([3], [4, 4]) for body in (first, second)] + [head + [5]]
    groups = in_order(prompts)
    assert groups == [[4], [0, 2], [1, 3]]
    assert costs_of(prompts, groups, 10) == [11, 19, 12, 19, 12]
    assert in_order([[5, 6]] * 3) == [[0, 1, 2]]


def test_on_a_gpu_free_memory_says_how_much_is_in_a_batch(monkeypatch):
    model = SimpleNamespace(config=tiny_model().config)
    config = model.config
    weights = SimpleNamespace(device=torch.device("cuda", 0), element_size=lambda: 2)
    model.parameters = lambda: iter([weights])
    free = {"bytes": 10_000_000}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free["bytes"], 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3_000_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 1_000_000)
    room = room_of(model, 32)
    keys = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2
    assert room.held == int(0.2 * 12_000_000 / keys) and room.rows > 32
    assert room_of(model, 32, places=10).rows == pytest.approx(room.rows / 10, abs=1)
    free["bytes"] = 22_000_000
    assert room_of(model, 32).read == pytest.approx(2 * room.read, abs=2)
    free["bytes"] = -2_000_000
    assert room_of(model, 32) == Room(1, 1, 1)  # less than one prompt is never tried
    assert room_of(tiny_model(), 32) == Room(32, 8192, 65536)
