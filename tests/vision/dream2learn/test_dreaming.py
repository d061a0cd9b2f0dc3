"""Which dreams are requested, and that prompts optimised together equal prompts optimised alone."""

import pytest
import torch
from tiny_images import tiny_classifier
from tiny_painter import save_tiny_generator

from sleepkit.vision.dream2learn.config import Dream2LearnConfig
from sleepkit.vision.dream2learn.dreaming import (
    OptimisedPrompt,
    PromptRequest,
    new_pairs,
    optimise_prompts,
    seen_classes,
    summary,
)
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import initial_vectors


def optimised(*collapsed):
    flags = torch.tensor(collapsed, dtype=torch.bool)
    return OptimisedPrompt(torch.zeros(len(flags), 1, 2), torch.zeros(len(flags), 8), torch.zeros(len(flags)), flags, False)


def test_pairs_take_every_class_in_turn_and_none_twice():
    pairs = new_pairs([3, 5, 8, 9], {(3, 5)}, 12, 0)
    assert len(pairs) == len(set(pairs)) == 11 and (3, 5) not in pairs and all(target != source for target, source in pairs)
    assert sorted(target for target, _ in new_pairs([3, 5, 8, 9], set(), 4, 1)) == [3, 5, 8, 9]
    assert new_pairs([3, 5], set(), 7, 0) != [] == new_pairs([3], set(), 7, 0) == new_pairs([3, 5], set(), -1, 0)


def test_summary():
    found = summary([optimised((0, 0), (0, 0), (1, 0)), optimised((0, 0), (0, 1), (1, 1))], [1, 1], [1, 2], 2)
    assert found["stop_updates"] == 1 and found["stopped_early"] == 0.5 and found["collapse_rate_at_end"] == 1
    assert (found["became_target"], found["became_alike"], found["collapse_rate"]) == (0, 0.5, 0.5)
    assert summary([], [], [], 2) == {}


def test_a_dream_that_has_collapsed_goes_back_to_where_it_had_not():
    sound, target, alike = (0, 0), (1, 0), (0, 1)
    assert optimised(sound, sound, sound, sound).stop(least=2) == 3
    assert optimised(sound, sound, sound, target).stop(least=2) == 2
    assert optimised(sound, sound, alike, target).stop(least=2) == 3  # nowhere to go back to: it has collapsed
    assert optimised(sound, sound, alike, target).stop(least=1) == 1
    assert optimised(target).stop(least=2) == 0


def test_seen_classes():
    model = tiny_classifier()
    model.grow([4, 7], 0)
    features = torch.tensor([[0.0, 0], [2, 0], [4, 4], [4, 8]])
    seen = seen_classes(model, features, torch.tensor([0, 0, 1, 1]), 0.5)
    assert seen.prototypes.tolist() == [[1, 0], [4, 6]] and seen.near.tolist() == [1, 2] and seen.units.tolist() == [0, 1]


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return DreamPainter(save_tiny_generator(tmp_path_factory.mktemp("generator")), sampler_steps=1)


def test_prompts_optimised_together_equal_prompts_optimised_alone_and_come_nearer_to_their_target(painter, tmp_path):
    model = tiny_classifier().eval()
    model.grow([0, 1], 0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 1, 8, 8), dtype=torch.uint8, generator=generator)
    seen = seen_classes(model, torch.rand(6, 8, generator=generator), torch.tensor([0, 1] * 3), 0.05)
    requests = [PromptRequest(k, 1 - k, images[k], initial_vectors(painter.table, 2, k), k, k) for k in range(2)]
    found = {}
    for size in (2, 1):
        config = Dream2LearnConfig(
            output_dir=str(tmp_path), use_cpu=True, dream_updates=8, prompts_per_batch=size, prompt_learning_rate=1.0
        )
        found[size], _ = optimise_prompts(
            painter, model.requires_grad_(False), requests, seen, None, config, tmp_path / str(size)
        )
    for together, alone in zip(found[2], found[1], strict=True):
        torch.testing.assert_close(together.path, alone.path, atol=1e-4, rtol=1e-3)
        assert together.updates == 8 and not together.stopped and together.path.shape == (9, 2, 16)
        assert together.described[-1, 0] > together.described[0, 0]  # probability of the target
