"""Trainers of images from Python: what they take and leave, and that a command is the same path."""

import dataclasses

import pytest
import torch
from local_hub import LocalHub
from safetensors.torch import load_file
from tiny_images import tiny_classifier, tiny_config, tiny_data, write_npz
from tiny_painter import save_tiny_generator
from transformers import AutoModelForImageClassification

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import read_results
from sleepkit.runs.arguments.images import parse_vision
from sleepkit.runs.images import run_vision
from sleepkit.trainers.images import METHODS, Dream2LearnTrainer, GenerativeReplayTrainer, ImageTrainer
from sleepkit.utils.files import read_json
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.dream2learn.config import Dream2LearnConfig
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows
from sleepkit.vision.mygo.config import GenerativeReplayConfig

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = {"num_train_epochs": 4, "per_device_train_batch_size": 8, "replay_batch_size": 8, "buffer_size": 12, "use_cpu": True}
QUICK |= {"learning_rate": 0.01, "experiences": 2, "cnn_widths": [4], "hidden_size": 8}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("digits"))


def test_the_trainer_and_the_command_are_one_path(digits, tmp_path):
    trainer = ImageTrainer("cnn", IncrementalTrainingConfig(output_dir=str(tmp_path / "python"), **QUICK), digits, method="der")
    assert trainer.evaluate() == {}
    record = trainer.train()
    found = trainer.evaluate()
    assert found["class_il"] == pytest.approx(record.metrics["class_il"]) and found["task_il"] == pytest.approx(
        record.metrics["task_il"]
    )
    words = [
        word for name, value in QUICK.items() for word in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]
    words += ["--dataset", str(digits), "--output_dir", str(tmp_path / "command"), "--method", "der"]
    (same,) = run_vision(*parse_vision(words))
    ours, theirs = (read_results(tmp_path / one) for one in ("python", "command"))
    assert ours["config"] == theirs["config"] and ours["accuracy_matrix"] == theirs["accuracy_matrix"]
    assert record.method == same.method == "der"
    files = [
        {path.relative_to(tmp_path / one).as_posix() for path in (tmp_path / one).rglob("*")} for one in ("python", "command")
    ]
    assert files[0] == files[1]
    weights = [load_file(tmp_path / one / "model" / "model.safetensors") for one in ("python", "command")]
    assert all(torch.equal(values, weights[1][name]) for name, values in weights[0].items())


def test_a_stream_and_a_model_that_are_given(tmp_path):
    stream = build_stream(tiny_data(), "domain", 2)
    config = tiny_config(tmp_path / "run", scenario="domain")
    trainer = ImageTrainer(tiny_classifier(), config, stream)
    record = trainer.train()
    assert trainer.method == "er" and trainer.evaluate().keys() == {"domain_il"} and "domain_il" in record.metrics
    about = read_results(tmp_path / "run")["config"]
    assert about["scenario"] == "domain" and about["dataset"] is None and about["backbone"] is None
    assert not {"experiences", "class_order", "cnn_widths", "image_size"} & about.keys() and about["buffer_size"] == 12
    assert ImageTrainer(tiny_classifier(), config, stream).train().metrics == pytest.approx(record.metrics)  # read back
    with pytest.raises(SleepkitError, match=r"belongs to another run \(inputs.model is"):
        ImageTrainer(tiny_classifier(seed=1), config, stream).train()
    with pytest.raises(SleepkitError, match="holds a run; use --resume true"):
        ImageTrainer(tiny_classifier(), dataclasses.replace(config, resume=False), stream).train()
    ImageTrainer(tiny_classifier(seed=1), dataclasses.replace(config, overwrite=True), stream).train()
    data = ImageTrainer(tiny_classifier(), tiny_config(tmp_path / "data", experiences=4), tiny_data())
    assert len(data.stream) == 4 and data.settings()["experiences"] == 4


def test_what_is_saved_and_pushed(digits, tmp_path):
    few = {
        "generator_hidden": 8,
        "generator_latent": 2,
        "generator_epochs": 10,
        "sleep_steps": 20,
        "dreams": 80,
        "judged_dreams": 0,
    }
    config = GenerativeReplayConfig(output_dir=str(tmp_path / "run"), **QUICK, **few)
    trainer = GenerativeReplayTrainer("cnn", config, str(digits))
    with pytest.raises(SleepkitError, match=r"no run yet .*; call train\(\) first"):
        trainer.save_model(tmp_path / "copy")
    trainer.train()
    trainer.save_model(tmp_path / "copy")
    for folder in (tmp_path / "copy", tmp_path / "run" / "model"):
        assert AutoModelForImageClassification.from_pretrained(folder).config.id2label[3] == "3"
        assert (folder / "generators" / "night_02" / "model.safetensors").is_file() and (folder / "README.md").is_file()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    with LocalHub() as hub, hub.used_by(hub.token("ada"), tmp_path / "home"):
        with pytest.raises(SleepkitError, match="nothing to publish is named"):
            trainer.push_to_hub()
        (address,) = trainer.push_to_hub("ada/dreamer")
        assert address.startswith(f"{hub.url}/ada/dreamer") and hub.repository("ada/dreamer").private
        files = hub.repository("ada/dreamer").files
    assert "generators/night_02/model.safetensors" in files and b"# dreamer" in files["README.md"]


@pytest.mark.parametrize("night", [1, 2])
def test_train_goes_on_after_an_interrupt_in_the_same_process(digits, tmp_path, monkeypatch, night):
    """As in a notebook: the trainer is the same object, and its learner stands in the middle of a night."""
    whole = ImageTrainer("cnn", IncrementalTrainingConfig(output_dir=str(tmp_path / "whole"), **QUICK), digits, method="der")
    whole.train()
    trainer = ImageTrainer("cnn", IncrementalTrainingConfig(output_dir=str(tmp_path / "again"), **QUICK), digits, method="der")
    after_training = trainer.learner.after_training

    def interrupted():
        after_training()
        trainer.model.requires_grad_(False)  # as some methods do for a part of the night
        if trainer.learner.night == night:
            raise KeyboardInterrupt
        trainer.model.requires_grad_(True)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.learner, "after_training", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    assert trainer.train().accuracy_matrix == whole.record.accuracy_matrix
    weights = [load_file(tmp_path / one / "model" / "model.safetensors") for one in ("whole", "again")]
    assert all(torch.equal(values, weights[1][name]) for name, values in weights[0].items())


def test_dream2learn(tmp_path):
    generator = save_tiny_generator(tmp_path / "generator")
    few = {
        "sampler_steps": 1,
        "probes": 2,
        "dream_updates": 3,
        "dreams": 2,
        "dream_images": 4,
        "dream_batch_size": 4,
        "sleep_steps": 4,
    }
    config = Dream2LearnConfig(
        output_dir=str(tmp_path / "run"), generator=str(generator), buffer_policy="class_balanced", **QUICK, **few
    )
    trainer = Dream2LearnTrainer("cnn", config, tiny_data())
    record = trainer.train()
    assert record.method == "d2l_er" and {"class_il", "unet_calls"} <= record.metrics.keys()


def test_what_does_not_go_together_is_one_line(digits, tmp_path):
    stream = build_stream(tiny_data(), "class", 2)
    config = tiny_config(tmp_path)
    grown = tiny_classifier()
    grown.grow([0, 1], 0, ["a", "b"])
    for make, words in (
        (lambda: ImageTrainer(args=config), "train_dataset is missing; give a folder"),
        (lambda: ImageTrainer(args=config, train_dataset=[]), "train_dataset is an empty stream"),
        (lambda: ImageTrainer(args=config, train_dataset=stream, method="mer"), "method is 'mer'; use one of er, finetune"),
        (lambda: ImageTrainer(args=config, train_dataset=stream, method="mygo"), "in Python give args a GenerativeReplayConfig"),
        (lambda: GenerativeReplayTrainer(args=config, train_dataset=stream, method="er"), "method is 'er'; use one of mygo"),
        (lambda: Dream2LearnTrainer(args=config, train_dataset=stream), "in Python give a Dream2LearnConfig"),
        (lambda: ImageTrainer(grown, config, stream), "has 2 output units already; give a classifier without classes"),
        (lambda: ImageTrainer(args=config, train_dataset=stream, eval_dataset=digits), "eval_dataset goes with a train_dataset"),
        (lambda: ImageTrainer(args=tiny_config(tmp_path, scenario="domain"), train_dataset=stream), "have classes of their own"),
        (lambda: ImageTrainer(args=config, train_dataset=build_stream(tiny_data(), "domain", 2)), "share their classes"),
    ):
        with pytest.raises(SleepkitError) as error:
            make()
        assert words in str(error.value) and "\n" not in str(error.value)
    assert set(ImageTrainer.methods) == set(METHODS)


def test_a_nights_trainer_saves_without_a_pickle(tmp_path):
    model, config = tiny_classifier(), tiny_config(tmp_path)
    model.grow([0, 1], 0, ["a", "b"])
    data = tiny_data().train
    rows = TensorRows(data.pixels[:8], data.labels[:8] % 2)
    loss = lambda one, pixels, labels, step: one(pixel_values=pixels, labels=labels).loss  # noqa: E731
    trainer = IncrementalTrainer(model, loss, config, rows, 0, tmp_path / "night")
    trainer.run()
    trainer.save_model(str(tmp_path / "saved"))
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"config.json", "model.safetensors"}
    assert "use_cache" not in read_json(tmp_path / "saved" / "config.json")


def test_the_model_is_the_same_where_a_run_is_resumed_after_its_last_night(digits, tmp_path):
    """A process that trains nothing writes the very files of one that did."""
    config = IncrementalTrainingConfig(output_dir=str(tmp_path), **QUICK)
    ImageTrainer("cnn", config, digits).train()
    whole = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.name != "README.md"}
    ImageTrainer("cnn", config, digits).train()
    again = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.name != "README.md"}
    assert whole == again and len(whole) == 2
