"""MyGO: a night's phases, the recipe of the published code, and that a night that was killed goes on to the same weights."""

import pytest
import torch
import yaml
from launch import ROOT
from tiny_images import night, tiny_classifier, tiny_config, tiny_data

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.mygo.config import GenerativeReplayConfig
from sleepkit.vision.mygo.generators import DreamGenerator
from sleepkit.vision.mygo.learner import SLEEP, TRAINED_ON, Checkpoints, GenerativeReplay

DATA = tiny_data()
FEW = {"num_train_epochs": 10, "per_device_train_batch_size": 8, "learning_rate": 0.01, "use_cpu": True, "generator_epochs": 30}
FEW |= {"generator_hidden": 16, "generator_latent": 2, "sleep_steps": 40, "sleep_learning_rate": 0.01, "dreams": 160}
FEW |= {"validation_steps": 20, "judge_epochs": 10, "judged_dreams": 20}
BRIEF = {"num_train_epochs": 1, "generator_epochs": 2, "generator_retries": 0, "sleep_steps": 8, "validation_steps": 4}
BRIEF |= {"judged_dreams": 0}  # where nothing needs to be learned well


def make(folder, scenario="class", experiences=2, model=None, **options):
    config = GenerativeReplayConfig(output_dir=str(folder), scenario=scenario, **{**FEW, **options})
    return GenerativeReplay(model or tiny_classifier(), config, build_stream(DATA, scenario, experiences))


def equal(one, other):
    expected, found = one.snapshot(), other.snapshot()
    assert expected.keys() == found.keys()
    return [name for name, values in expected.items() if not torch.equal(values, found[name])]


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_it_learns_and_does_not_forget(tmp_path, scenario):
    one = make(tmp_path, scenario, judged_dreams=20 if scenario == "class" else 0, logit_weight=0.01, kl_weight=0.1)
    logs = [night(one, number, tmp_path) for number in (1, 2)]
    first, second = one.evaluate(one.stream)
    assert min(first.task_il, second.task_il) > 0.8 and (scenario == "task" or min(first.class_il, second.class_il) > 0.6)
    assert all(log["extractor_change"] > 0 and log["sleep_change"] >= log["extractor_change"] for log in logs)
    assert 2 * logs[0]["bytes"] == logs[1]["bytes"] == sum(2 * values.numel() for values in one.extras.values())
    assert {line["phase"] for line in logs[1]["history"]} <= {"wake", "memory", "sleep"}
    assert logs[1]["steps"] == 10 * 6 + 30 * 6 * logs[1]["generator_attempts"] + 40 or logs[1]["generator_attempts"] > 1
    assert (tmp_path / "dreams" / "night_02.png").is_file()
    if scenario == "class":
        assert logs[1]["dream_fidelity"] > 0.8 and 0 < logs[1]["dream_diversity"] < 2 and logs[1]["judge_accuracy"] > 0.8


def test_features_are_replayed_above_a_backbone_that_is_frozen_after_one_night(tmp_path):
    more = {"learning_rate": 0.05, "sleep_learning_rate": 0.03, "generator_epochs": 15}
    one = make(tmp_path, model=tiny_classifier(hidden_size=0, top_size=16), replay_space="features", **more)
    start = one.model.backbone.state_dict()["convolutions.0.weight"].clone()
    first = night(one, 1, tmp_path)
    frozen = {name: values.clone() for name, values in one.model.backbone.state_dict().items()}
    assert not torch.equal(frozen["convolutions.0.weight"], start)
    second = night(one, 2, tmp_path)
    assert all(torch.equal(values, frozen[name]) for name, values in one.model.backbone.state_dict().items())
    assert min(first["extractor_change"], second["extractor_change"]) > 0 and second["dream_fidelity"] > 0.8
    assert one.dreams(3, TRAINED_ON).pixels.shape == (12, 16)
    assert min(accuracy.class_il for accuracy in one.evaluate(one.stream)) > 0.6
    assert second["bytes"] == 2 * first["bytes"] == sum(2 * values.numel() for values in one.extras.values())
    assert all(values.requires_grad for values in one.model.parameters())


def test_as_published_sleep_changes_nothing(tmp_path):
    published = yaml.safe_load((ROOT / "recipes/configs/mygo/split_mnist_as_published.yaml").read_text())
    options = {name: value for name, value in published.items() if name not in ("dataset", "output_dir", "experiences")}
    one = make(tmp_path, **options | {"judged_dreams": 0, "sleep_steps": 30, "max_steps": 30})
    start = {name: values.clone() for name, values in one.model.backbone.named_parameters()}
    for number in (1, 2):
        log = night(one, number, tmp_path)
        assert log["sleep_change"] == 0 and log["rolled_back"] == 0 and log["generator_attempts"] == 1
    assert all(torch.equal(values, start[name]) for name, values in one.model.backbone.named_parameters())
    assert all(values.requires_grad for values in one.model.parameters())


@pytest.mark.parametrize("moment", ["wake", "memory", "sleep"])
def test_a_night_that_was_killed_goes_on_after_its_last_phase(tmp_path, monkeypatch, moment):
    whole = make(tmp_path, **BRIEF)
    night(whole, 1, tmp_path / "whole")
    whole.save(tmp_path / "evening")
    night(whole, 2, tmp_path / "whole")

    def dies(*args):
        raise KeyboardInterrupt

    killed = make(tmp_path, **BRIEF)
    killed.load(tmp_path / "evening")
    method = {"wake": "_wake", "memory": "_remember", "sleep": "_consolidate"}[moment]
    monkeypatch.setattr(GenerativeReplay, method, dies)
    with pytest.raises(KeyboardInterrupt):
        night(killed, 2, tmp_path / "killed")
    monkeypatch.undo()
    done = {"wake": [], "memory": ["fast"], "sleep": ["fast", "generator"]}[moment]
    assert sorted(path.parent.name for path in tmp_path.glob("killed/night_02/*/phase.json")) == done

    again = make(tmp_path, **BRIEF)
    again.load(tmp_path / "evening")
    for name in done:
        monkeypatch.setattr(GenerativeReplay, {"fast": "_wake", "generator": "_remember"}[name], dies)  # are not done again
    log = night(again, 2, tmp_path / "killed")
    assert equal(whole, again) == [] and {line["phase"] for line in log["history"]} <= {"wake", "memory", "sleep"}


def slept(folder, start, **options):
    """The second night of a learner that has been loaded from a folder; with its log."""
    one = make(folder, **{**BRIEF, **options})
    one.load(start)
    return one, night(one, 2, folder)


@pytest.fixture(scope="module")
def evening(tmp_path_factory):
    """A folder with a learner after its first night, and that of a second night that nobody killed."""
    folder = tmp_path_factory.mktemp("evening")
    one = make(folder, **BRIEF)
    night(one, 1, folder)
    one.save(folder / "evening")
    return folder / "evening", *slept(folder / "whole", folder / "evening")


SAME = ("steps", "train_flops", "bytes", "generator_fidelity", "generator_diversity", "generator_attempts", "sleep_change")


FILES = ["fast/model.safetensors", "generator/model.safetensors", "fast/phase.json", "fast/MANIFEST.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["bit", "cut", "missing"])
def test_a_damaged_phase_is_made_again(evening, tmp_path, caplog, name, damage):
    start, whole, expected = evening
    slept(tmp_path, start)
    path = tmp_path / "night_02" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content) if damage == "bit" else path.read_bytes()[: len(content) // 2])
    if damage == "missing":
        path.unlink()
    caplog.clear()
    again, log = slept(tmp_path, start)
    assert f"night_02/{name.partition('/')[0]} is not taken over" in caplog.text
    assert equal(whole, again) == [] and [log[name] for name in SAME] == [expected[name] for name in SAME]


def test_what_a_night_cost_survives_a_kill(evening, tmp_path):
    start, whole, expected = evening
    slept(tmp_path, start)
    again, log = slept(tmp_path, start)  # wake and generator are read back
    assert equal(whole, again) == [] and [log[name] for name in SAME] == [expected[name] for name in SAME]
    assert log["train_flops"] > 0 and log["cpu_seconds"] > 0.5 * expected["cpu_seconds"]


@pytest.mark.parametrize("options", [{"seed": 1}, {"learning_rate": 0.02}, {"generator_epochs": 3}, {}], ids=str)
def test_phases_of_another_run_are_made_again(evening, tmp_path, caplog, options):
    """The state was deleted, and other settings, or another first night, used the folder before."""
    start, *_ = evening
    if options:
        slept(tmp_path / "used", start)
    else:  # other weights before the night
        one = make(tmp_path / "used", model=tiny_classifier(1), **BRIEF)
        for number in (1, 2):
            night(one, number, tmp_path / "used")
    expected, found = slept(tmp_path / "new", start, **options)[0], slept(tmp_path / "used", start, **options)[0]
    assert equal(expected, found) == []
    word = {"seed": "seed", "": "state"}.get(next(iter(options), ""), "settings")
    assert caplog.text.count("is not taken over (it was made with another") == 2 and f"another {word}" in caplog.text


def test_a_generator_that_will_not_do_is_trained_anew(tmp_path):
    log = night(make(tmp_path, **{**BRIEF, "min_diversity": 50, "generator_retries": 2}), 1, tmp_path)
    assert log["generator_attempts"] == 3 and 0 < log["generator_diversity"] < 50
    log = night(make(tmp_path, **{**BRIEF, "min_diversity": 0, "min_fidelity": 0, "generator_retries": 2}), 1, tmp_path / "other")
    assert log["generator_attempts"] == 1
    log = night(make(tmp_path, **{**BRIEF, "min_diversity": 0, "min_fidelity": 1, "generator_retries": 2}), 1, tmp_path / "third")
    assert log["generator_attempts"] == 3 and log["generator_fidelity"] < 1


def test_the_kept_generator_is_that_of_the_night(tmp_path):
    one = make(tmp_path, **BRIEF)
    night(one, 1, tmp_path)
    saved = DreamGenerator.from_pretrained(tmp_path / "night_01" / "generator")
    for name, values in saved.kept().items():
        assert torch.equal(values, one.extras[f"0.{name}"]), name
    dreams = one.dreams(5, TRAINED_ON)
    assert dreams.units.tolist() == [0] * 5 + [1] * 5 and dreams.experiences.tolist() == [0] * 10
    assert not torch.equal(dreams.pixels, one.dreams(5, SLEEP).pixels)


def test_checkpoints_go_back_to_the_best():
    model = torch.nn.Linear(1, 1, bias=False)
    found = iter([0.5, 0.9, 0.9, 0.7])

    checkpoints = Checkpoints(model, lambda: next(found), 10)
    for weight in (1.0, 2.0, 3.0):
        model.weight.data.fill_(weight)
        checkpoints.look()
    model.weight.data.fill_(4.0)
    assert checkpoints.choose(0.1) == {"replay_validation": 0.9, "rolled_back": 1} and model.weight.item() == 3.0
    found = iter([0.9, 0.85])
    checkpoints = Checkpoints(model, lambda: next(found), 10)
    checkpoints.look()
    model.weight.data.fill_(4.0)
    assert checkpoints.choose(0.1) == {"replay_validation": 0.85, "rolled_back": 0} and model.weight.item() == 4.0


def test_two_teachers_each_of_its_own(tmp_path):
    one = make(tmp_path, **BRIEF)
    night(one, 1, tmp_path)
    one.wake(one.stream[1])
    one._grow()
    one.cortex, one.fast = (tiny_classifier(seed) for seed in (1, 2))
    for teacher in (one.cortex, one.fast):
        teacher.set_slots(one.model.slots)
    pixels = one.stream[1].train.pixels(torch.arange(4))
    logits, known, features = one._taught(pixels, torch.tensor([0, 1, 0, 1]))
    assert known.tolist() == [[True, True, False, False], [False, False, True, True]] * 2
    for row, teacher in enumerate((one.cortex, one.fast) * 2):
        expected = teacher(pixel_values=pixels)
        assert torch.equal(logits[row], expected.logits[row]) and torch.equal(features[row], expected.features[row])


def test_the_weights_of_the_loss(tmp_path):
    """Each term is 0 for a cortex that equals its teachers, but for the labels'; and its weight is a factor."""
    one = make(tmp_path, **BRIEF)
    night(one, 1, tmp_path)
    one.cortex = one.fast = tiny_classifier(3)
    one.cortex.set_slots(one.model.slots)
    pixels, rows = one.stream[0].train.pixels(), torch.zeros(48, 2, dtype=torch.int64)
    for name in ("label_weight", "logit_weight", "kl_weight", "feature_weight"):
        for other in ("label_weight", "logit_weight", "kl_weight", "feature_weight"):
            setattr(one.config, other, float(name == other))
        loss = one.loss(one.model, pixels, rows, 0)
        setattr(one.config, name, 3.0)
        torch.testing.assert_close(one.loss(one.model, pixels, rows, 0), 3 * loss)
        assert loss > 0 and (name == "label_weight" or one.loss(one.cortex, pixels, rows, 0).abs() < 1e-6)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"generator": "gan"}, "generator is 'gan'; use one of vae, cvae, cgan, conv_cgan"),
        ({"generator": "conv_cgan", "generator_hidden": 12}, "takes a multiple of 8"),
        ({"replay_space": "hidden"}, "replay_space is 'hidden'; use one of pixels, features"),
        (
            {"replay_space": "features", "generator": "cgan"},
            "generator cgan does not dream features; use gaussian",
        ),
        ({"sleep_steps": 0}, "sleep_steps is 0; give at least 1"),
        ({"max_drop": float("nan")}, "max_drop is nan; give a finite number"),
        ({"kl_temperature": 0}, "kl_temperature is 0; give a number above 0"),
        ({"label_weight": 0}, "are all 0; give one of them a weight"),
    ],
)
def test_bad_values_are_named(tmp_path, option, words):
    with pytest.raises(SleepkitError) as error:
        GenerativeReplayConfig(output_dir=str(tmp_path), **{**FEW, **option})
    assert words in str(error.value)


def test_a_baselines_configuration_is_refused(tmp_path):
    with pytest.raises(SleepkitError, match=r"run recipes/mygo\.py instead"):
        GenerativeReplay(tiny_classifier(), tiny_config(tmp_path), build_stream(DATA, experiences=2))
