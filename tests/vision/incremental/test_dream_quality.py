"""What dreams are judged by."""

import torch
from tiny_images import tiny_classifier, tiny_config, tiny_data

from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.incremental.dream_quality import diversity, fidelity, trained_judge


def test_fidelity_is_a_share_of_each_class():
    assert fidelity(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])) == {0: 1.0, 1: 2 / 3}


def test_diversity_compares_variances():
    images = torch.tensor([0, 100, 50, 150], dtype=torch.uint8).reshape(4, 1, 1, 1)
    dreams = torch.tensor([25, 75, 80, 80], dtype=torch.uint8).reshape(4, 1, 1, 1)
    classes = torch.tensor([0, 0, 1, 1])
    assert diversity(dreams, classes, images, classes) == {0: 0.25, 1: 0.0}


def test_the_judge_knows_all_classes_and_is_read_back(tmp_path):
    stream = build_stream(tiny_data(), experiences=2)
    config = tiny_config(tmp_path, num_train_epochs=30)
    model = tiny_classifier()
    judge = trained_judge(model, stream, config, tmp_path / "judge")
    assert len(model.slots) == 0 and judge.slots.labels == [0, 1, 2, 3]
    right = [(judge(pixel_values=one.test.pixels()).logits.argmax(1) == one.test.labels).double().mean() for one in stream]
    assert min(right) > 0.9
    again = trained_judge(model, stream, config, tmp_path / "judge")
    assert all(torch.equal(a, b) for a, b in zip(judge.parameters(), again.parameters(), strict=True))
