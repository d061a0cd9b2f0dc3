"""The replay buffer: what each policy keeps, that it repeats, and how little it writes."""

import pytest
import torch
from safetensors.torch import save

from sleepkit.errors import SleepkitError
from sleepkit.vision.incremental.replay_buffer import ReplayBuffer


def filled(policy, capacity=30, seed=0, parts=(200, 100, 50)):
    memory = ReplayBuffer(capacity, policy, seed)
    generator = torch.Generator().manual_seed(1)
    for number, rows in enumerate(parts):
        labels = 2 * number + torch.arange(rows) % 2
        memory.add(number, labels, torch.randn(rows, 5, generator=generator))
    return memory


def test_reservoir_keeps_each_row_with_equal_probability():
    counts = torch.zeros(3)
    for seed in range(200):
        memory = filled("reservoir", seed=seed)
        assert len(memory) == 30 and len(set(map(tuple, memory.places.tolist()))) == 30
        counts += torch.bincount(memory.places[:, 0], minlength=3)
    share = counts / counts.sum()
    assert torch.allclose(share, torch.tensor([200, 100, 50]) / 350, atol=0.03)


@pytest.mark.parametrize("policy", ["class_balanced", "herding"])
def test_balanced_policies_share_the_capacity_among_the_classes(policy):
    memory = filled(policy, capacity=32)
    assert sorted(torch.bincount(memory.labels).tolist()) == [5, 5, 5, 5, 6, 6]
    few = ReplayBuffer(10, policy)
    few.add(0, torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), torch.randn(12, 3))
    assert torch.bincount(few.labels).tolist() == [2, 8]  # what a small class cannot fill goes to the others


def test_herding_approaches_the_class_mean_better_than_chance():
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(100, 4, generator=generator), dim=1)
    labels = torch.zeros(100, dtype=torch.int64)
    errors = []
    for policy in ("herding", "class_balanced"):
        memory = ReplayBuffer(10, policy)
        memory.add(0, labels, features)
        errors.append((features[memory.places[:, 1]].mean(0) - features.mean(0)).norm())
    assert errors[0] < 0.3 * errors[1]


@pytest.mark.parametrize("policy", ["reservoir", "class_balanced", "herding"])
def test_a_memory_that_was_saved_goes_on_as_one_that_was_not(policy):
    whole, half = filled(policy), filled(policy, parts=(200, 100))
    half.store("logits", 1, torch.randn(len(half.rows_of(1)), 4))
    again = ReplayBuffer(30, policy)
    again.load_state_dict(half.state_dict())
    assert torch.equal(again.extras["logits"].nan_to_num(), half.extras["logits"].nan_to_num())
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(rows, 5, generator=generator) for rows in (200, 100, 50)][2]
    again.add(2, 4 + torch.arange(50) % 2, features)
    assert torch.equal(again.places, whole.places) and torch.equal(again.keys, whole.keys)


def test_extras_stay_with_their_rows():
    memory = ReplayBuffer(8)
    for number in range(4):
        memory.add(number, torch.full((20,), number))
        rows = memory.rows_of(number)
        memory.store("logits", number, torch.stack([rows.float()] * (number + 1), dim=1))
    logits = memory.extras["logits"]
    for (number, row), values in zip(memory.places.tolist(), logits, strict=True):
        known = values[: number + 1]
        assert (known == row).all() and values[number + 1 :].isnan().all()


def test_bytes_and_size_on_disk():
    memory = filled("reservoir", capacity=200)
    memory.store("logits", 0, torch.zeros(len(memory.rows_of(0)), 10))
    assert memory.bytes(image_bytes=784) == 200 * (784 + 8) + 200 * 10 * 4
    assert len(save(memory.state_dict())) < 20_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0,), "is 0; give at least 1"), ((5, "newest"), "is 'newest'; use one of reservoir, class_balanced, herding")],
)
def test_bad_settings(arguments, words):
    with pytest.raises(SleepkitError, match=words):
        ReplayBuffer(*arguments)


def test_herding_needs_features():
    with pytest.raises(SleepkitError, match="herding and there are no features"):
        ReplayBuffer(5, "herding").add(0, torch.zeros(3, dtype=torch.int64))
