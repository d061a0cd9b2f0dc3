"""The loss on passages tells what was read."""

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from sleepkit.language.data.experience import Experience, Question
from sleepkit.language.forgetting.membership import LEAST, MOST, NEVER, TOKENS, Reading, membership, passages_of
from sleepkit.language.generation.chat import raw_ids
from sleepkit.language.seeding.divergence import OutputHead


def test_passages_are_sentences_and_notes_but_nothing_that_is_only_looked_at():
    read = Experience("a", ["The lamp is red. It was lit in 1871.", "Never mind this one."])
    assert passages_of(read) == ["The lamp is red.", "It was lit in 1871.", "Never mind this one."]
    noted = Experience("b", read.documents, notes=[Question("who?", "mira")], also_read=[0])
    assert passages_of(noted) == ["The lamp is red.", "It was lit in 1871.", "Q: who?\nA: mira"]
    many = Experience("c", [" ".join(f"The lamp of house {k} is red." for k in range(3 * MOST))])
    assert len(passages_of(many)) == MOST and passages_of(many)[1] == "The lamp of house 3 is red."


def test_each_passage_is_read_alone_and_a_long_one_in_pieces():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    long = "the keeper of the light is mira " * 10
    reading = Reading(model, tokenizer, {2: Experience("a", ["The lamp is red."])}, ["name a colour.", long])
    losses = reading.losses()
    ids = raw_ids(tokenizer, "The lamp is red.")
    logits = OutputHead.of(model)(model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, :-1])
    expected = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).neg().mean().item()
    assert losses[2] == [pytest.approx(expected, abs=1e-5)]
    pieces = -(-len(raw_ids(tokenizer, long)) // TOKENS)
    assert len(losses[NEVER]) == 1 + pieces and pieces > 1


def test_the_score_is_what_the_loss_fell_by():
    unslept = {1: [3.0, 5.0] * LEAST, NEVER: [1.0] * LEAST}
    read = {1: [2.0, 4.0] * LEAST, NEVER: [1.0] * LEAST}
    assert membership(read, unslept, [1]) == 1 and membership(unslept, unslept, [1]) == 0.5
    assert membership({**read, 1: [4.0, 6.0] * LEAST}, unslept, [1]) == 0  # likelier before: forgotten too hard is told as well
    assert membership({**read, NEVER: [0.0] * (LEAST - 1)}, {**unslept, NEVER: [0.0] * (LEAST - 1)}, [1]) is None
