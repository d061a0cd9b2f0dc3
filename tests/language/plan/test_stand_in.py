"""The stand-in notes what the code of the night asks a model, batch for batch."""

import torch
from planned import tiny_life
from tiny import tiny_model

from sleepkit.language.config import LearnerConfig, LoadingConfig, part_of
from sleepkit.language.generation.chat import generate, raw_ids, reply_log_probs
from sleepkit.language.plan.blank import BlankModel
from sleepkit.language.plan.stand_in import Batch, standing_in


def blank_of(tmp_path):
    trainer = tiny_life(tiny_model(max_position_embeddings=4096), tmp_path)
    args = trainer.args
    given = trainer.model.config, trainer.processing_class, part_of(args, LoadingConfig), part_of(args, LearnerConfig), "cpu"
    return BlankModel.of(*given, trainer.model.generation_config)


def test_batches_and_their_common_beginning_are_those_of_generate(tmp_path):
    blank = blank_of(tmp_path)
    head = "The same beginning of all of these prompts, which is read once. "
    prompts = [raw_ids(blank.tokenizer, f"{head}{tail}") for tail in ("a", "bb", "ccc", "dddd")]
    with standing_in(blank) as calls:
        said = generate(blank.model, blank.tokenizer, prompts, max_new_tokens=5, batch_size=3)
        generate(blank.model, blank.tokenizer, [prompts[0], prompts[0]], max_new_tokens=2)
    assert [len(row) for row in said] == [5] * 4
    first, second = calls
    assert first.shared == Batch(1, 0, len(head))
    assert first.batches == [Batch(3, len(head), 3, 5), Batch(1, len(head), 4, 5)]
    alike = [batch for batch in second.batches if batch.written]
    assert second.shared is None and alike == [Batch(2, len(head), 1, 2)]
    assert next(blank.model.parameters()).is_meta and not hasattr(blank.model, "stand_in")


def test_readings_are_noted_with_the_logits_that_they_compute(tmp_path):
    blank = blank_of(tmp_path)
    with standing_in(blank) as calls:
        rows = reply_log_probs(blank.model, blank.tokenizer, [([5, 6, 7], [8, 9]), ([5], [6])])
    assert [len(row) for row in rows] == [2, 1]
    assert [call.is_reading for call in calls] == [True]
    assert calls[0].batches == [Batch(2, 0, 5, 0, heads=5)]


def test_nothing_is_computed(tmp_path):
    blank = blank_of(tmp_path)
    assert all(p.is_meta for p in blank.model.parameters())
    with standing_in(blank):
        assert next(blank.model.parameters()).device == torch.device("cpu")  # where ids are
