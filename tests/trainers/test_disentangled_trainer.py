"""The trainer of disentangled learning from Python."""

import pytest
import torch

from sleepkit.reporting.results import read_results
from sleepkit.trainers.disentangled import DisentangledTrainer
from sleepkit.vision.disentangled.canonicalizer import Canonicalizer
from sleepkit.vision.disentangled.config import STREAM_FIELDS, DisentangledConfig
from sleepkit.vision.disentangled.learner import build_canonicalizer
from sleepkit.vision.disentangled.sprites import build_sprites

QUICK = {"experiences": 2, "classes_per_experience": 3, "factor_values": 2, "image_size": 16, "test_share": 0.1, "widths": [4, 8]}
QUICK |= {"hidden_size": 16, "refine_widths": [4, 8], "per_device_train_batch_size": 8, "novel_classes": 4, "novel_images": 2}
QUICK |= {"num_train_epochs": 1, "use_cpu": True}


def test_shapes_by_the_options_and_the_same_stream_as_an_object(tmp_path):
    config = DisentangledConfig(output_dir=str(tmp_path / "run"), **QUICK)
    trainer = DisentangledTrainer(args=config)
    record = trainer.train()
    assert {"accuracy", "one_shot", "auroc", "bytes_per_class"} <= record.metrics.keys()
    assert trainer.evaluate()["class_il"] == pytest.approx(record.metrics["class_il"])
    for name in (
        "report.md",
        "baselines.md",
        "pictures/straightened.png",
        "model/exemplars/exemplars.safetensors",
        "model/README.md",
    ):
        assert (tmp_path / "run" / name).is_file(), name
    about = read_results(tmp_path / "run")["config"]
    assert about["scenario"] == "class" and about["backbone"] == "cnn" and about["experiences"] == 2
    whole = (tmp_path / "run" / "model" / "config.json").read_bytes()
    assert DisentangledTrainer(args=config).train().metrics["accuracy"] == record.metrics["accuracy"]  # read back
    assert (tmp_path / "run" / "model" / "config.json").read_bytes() == whole

    other = DisentangledConfig(output_dir=str(tmp_path / "given"), **QUICK)
    stream = build_sprites(other)
    torch.manual_seed(0)
    model = build_canonicalizer(other, stream[0].exemplars)
    given = DisentangledTrainer(model, other, stream)
    given.train()
    assert not set(STREAM_FIELDS) & read_results(tmp_path / "given")["config"].keys()
    given.save_model(tmp_path / "copy")
    assert Canonicalizer.from_pretrained(tmp_path / "copy").config.widths == [4, 8]
