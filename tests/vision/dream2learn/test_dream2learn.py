"""Dream2Learn: a night's phases, the life of dreams, resuming in the middle of a prompt, and bad input."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_images import night, tiny_classifier, tiny_data
from tiny_painter import save_tiny_generator

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.dream2learn import dreaming
from sleepkit.vision.dream2learn.config import Dream2LearnConfig
from sleepkit.vision.dream2learn.learner import DreamingDer, DreamingEr, DreamingErAce, running_statistics
from sleepkit.vision.incremental.output_units import DREAM, REAL

DATA = tiny_data(6)
FEW = {"num_train_epochs": 6, "per_device_train_batch_size": 8, "learning_rate": 0.02, "use_cpu": True, "buffer_size": 24}
FEW |= {"replay_batch_size": 8, "buffer_policy": "class_balanced", "sampler_steps": 1, "prompt_vectors": 2, "probes": 3}
FEW |= {"prompts_per_batch": 2, "checkpoint_updates": 2, "dream_updates": 4, "least_updates": 1, "dreams": 3, "dream_images": 4}
FEW |= {"dream_batch_size": 4, "sleep_steps": 6}


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return save_tiny_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(autouse=True)
def nothing_collapses(monkeypatch):
    """A generator of random weights makes nothing that could be told from its collapse."""
    monkeypatch.setattr(dreaming, "collapse", lambda *args: (False, False))


def make(folder, generator, method=DreamingEr, scenario="class", **options):
    config = Dream2LearnConfig(output_dir=str(folder), generator=str(generator), scenario=scenario, **{**FEW, **options})
    return method(tiny_classifier(), config, build_stream(DATA, scenario, 3))


def differing(one, other):
    expected, found = one.snapshot(), other.snapshot()
    assert expected.keys() == found.keys()
    return [name for name, values in expected.items() if not torch.equal(values.nan_to_num(-7.0), found[name].nan_to_num(-7.0))]


@pytest.mark.parametrize("method", [DreamingEr, DreamingErAce, DreamingDer])
def test_nights_with_dreams(tmp_path, generator, method):
    one = make(tmp_path, generator, method)
    logs = [night(one, number, tmp_path) for number in (1, 2, 3)]
    slots = one.model.slots
    assert sorted(slots.labels_of(REAL)) == list(range(6)) and [log["dreams"] for log in logs] == [2, 3, 3]
    assert [dream.number for dream in one.dreams()] == sorted(slots.labels_of(DREAM))
    assert min(accuracy.task_il for accuracy in one.evaluate(one.stream)) > 0.7
    assert logs[0]["unet_calls"] == 2 * 3 * 5 and 0 <= logs[1]["assigned"] <= 1
    for dream in one.dreams():
        assert dream.target != dream.source and dream.stop >= 1 and dream.vectors.shape == (2, 16)
        prompts = load_file(tmp_path / "dreams" / f"dream-{dream.number}.safetensors")
        assert torch.equal(prompts[f"<dream-{dream.number}>"], dream.vectors)
    assert one.painter.digest() == one.generator_hash and all(values.requires_grad for values in one.model.parameters())
    dreamt = one.paint(0)
    assert len(dreamt) == 12 + 24 and dreamt.pixel_values.dtype == torch.uint8
    memory = one.remembered()
    assert torch.equal(dreamt.labels[12:], memory.units) and not torch.equal(dreamt.pixel_values[12:], memory.pixels)
    one.config.repaint = False
    assert torch.equal(one.paint(0).pixel_values, dreamt.pixel_values[:12])
    assert one.bytes() < 24 * (64 + 8) + 4000 * 4  # images of dreams are not kept
    again = make(tmp_path / "again", generator, method)
    one.save(tmp_path / "kept")
    again.load(tmp_path / "kept")
    assert differing(one, again) == [] and again.model.config.id2label == one.model.config.id2label


def test_new_classes_take_over_dreams_with_their_weights(tmp_path, generator):
    one = make(tmp_path, generator)
    night(one, 1, tmp_path)
    before, dreams = one.model.head.weight.detach().clone(), one.model.slots.where(DREAM)
    one.wake(one.stream[1])
    one._grow()
    slots = one.model.slots
    taken = [slots.unit(label) for label in one.today.labels if slots.unit(label) in dreams]
    assert taken and all(torch.equal(one.model.head.weight[unit], before[unit]) for unit in taken)
    assert len(one.dreams()) == len(dreams) - len(taken) == len(slots.where(DREAM))
    assert [one.model.config.id2label[unit] for unit in taken] == [f"class {slots.labels[unit]}" for unit in taken]
    other = make(tmp_path / "other", generator, assignment="none")
    night(other, 1, tmp_path / "other")
    other.wake(other.stream[1])
    other._grow()
    assert len(other.dreams()) == 2 and not set(other.model.units_of(torch.tensor([2, 3])).tolist()) & set(dreams)


def test_stored_logits_of_a_unit_that_means_something_else_are_forgotten(tmp_path, generator):
    one = make(tmp_path, generator, DreamingDer)
    night(one, 1, tmp_path)
    night(one, 2, tmp_path)
    stored, dream = one.buffer.extras["logits"], one.dreams()[0]
    unit = one.model.slots.unit(dream.number, DREAM)
    assert not stored[:, one.model.slots.unit(0)].isnan().any()
    stored[:, -1] = 0.0
    one.retire([dream])
    assert stored.shape[1] <= unit or stored[:, unit].isnan().all()
    assert one.model.slots.states[unit] == "free" and dream.number not in [other.number for other in one.dreams()]
    one._forget_logits([stored.shape[1] - 1])
    assert stored[:, -1].isnan().all()


def test_refresh_leads_kept_prompts_again(tmp_path, generator):
    one = make(tmp_path, generator, assignment="none", refresh=True)
    night(one, 1, tmp_path)
    before = {dream.number: dream.vectors for dream in one.dreams()}
    log = night(one, 2, tmp_path)
    after = {dream.number: dream.vectors for dream in one.dreams()}
    assert log["led"] == 3 and all(not torch.equal(vectors, after[number]) for number, vectors in before.items())


def test_without_dreams_there_is_still_a_sleep_on_memory(tmp_path, generator):
    one, other = (make(tmp_path / str(steps), tmp_path, dreams=0, sleep_steps=steps) for steps in (6, 0))
    night(one, 1, tmp_path / "one")
    night(other, 1, tmp_path / "other")
    assert one.painter is None and "model.head.weight" in differing(one, other)


def test_no_oracle_makes_all_updates(tmp_path, generator):
    one = make(tmp_path, generator, oracle="none")
    logs = [night(one, number, tmp_path) for number in (1, 2)]
    assert one.oracle() is None and all(log["stop_updates"] == 4 and log["stopped_early"] == 0 for log in logs)


def test_prompts_may_stay_as_they_start(tmp_path, generator):
    one = make(tmp_path, generator, oracle="none", dream_updates=0)
    log = night(one, 1, tmp_path)
    starts = one._requests([], [(dream.target, dream.source) for dream in one.dreams()])[1]
    assert log["stop_updates"] == 0 and all(torch.equal(a.vectors, b.vectors) for a, b in zip(starts, one.dreams(), strict=True))


def test_dreams_that_are_learned_asleep_only_have_no_say_awake(tmp_path, generator):
    one = make(tmp_path, generator, wake_dream_weight=0, assignment="none")
    night(one, 1, tmp_path)
    before = {name: values for name, values in one.snapshot().items() if name.startswith("model.head")}
    one.wake(one.stream[1])
    one.night = 2
    one._grow()
    one.before_training()
    assert one.dreamt is None and torch.equal(one.allowed(torch.zeros(1)), one.model.mask(REAL))
    one.train(tmp_path / "night_02")
    left = one.model.slots.where(DREAM)
    assert left and torch.equal(one.model.head.weight[left], before["model.head.weight"][left])
    one.after_training()
    assert not torch.equal(one.model.head.weight[left], before["model.head.weight"][left])


def test_the_memory_alone_is_learned_last(tmp_path, generator):
    one, other = (make(tmp_path / str(steps), generator, memory_steps=steps) for steps in (0, 5))
    night(one, 1, tmp_path / "0")
    painted = []
    rehearse = other._rehearse
    other._rehearse = lambda steps, seed: (painted.append((steps, other.dreamt is not None)), rehearse(steps, seed))
    night(other, 1, tmp_path / "5")
    assert painted == [(6, True), (5, False)] and "model.head.weight" in differing(one, other)


class Killed(BaseException):
    """Stands for a signal."""


@pytest.fixture(scope="module")
def whole_nights(generator, tmp_path_factory):
    """By method the folder of a state after the first night, the learner after the second, and its log."""
    nights = {}

    def of(method):
        if method not in nights:
            folder = tmp_path_factory.mktemp("whole")
            whole = make(folder, generator, method, stop_threshold=1.0)
            night(whole, 1, folder)
            whole.save(folder / "evening")
            nights[method] = folder / "evening", whole, night(whole, 2, folder)
        return nights[method]

    return of


@pytest.mark.parametrize("moment", ["prompt", "paint", "sleep"])
@pytest.mark.parametrize("method", [DreamingEr, DreamingDer])
def test_a_night_that_was_killed_goes_on_to_the_same_prompts_and_weights(
    tmp_path, generator, whole_nights, monkeypatch, method, moment
):
    options = {"method": method, "stop_threshold": 1.0}
    evening, whole, expected = whole_nights(method)
    killed = make(tmp_path, generator, **options)
    killed.load(evening)
    owner, name = {"prompt": (dreaming._PromptOptimiser, "_moved"), "paint": (killed, "paint"), "sleep": (killed, "_sleep")}[
        moment
    ]
    original, calls = getattr(owner, name), []

    def dies(*args):
        calls.append(args)
        if (
            len(calls) == {"prompt": 4, "paint": 2, "sleep": 1}[moment]
        ):  # in the middle of the prompts, of painting or of learning
            raise Killed
        return original(*args)

    monkeypatch.setattr(owner, name, dies)
    with pytest.raises(Killed):
        night(killed, 2, tmp_path / "killed")
    monkeypatch.undo()
    monkeypatch.setattr(dreaming, "collapse", lambda *args: (False, False))

    again = make(tmp_path, generator, **options)
    again.load(evening)
    monkeypatch.setattr("sleepkit.vision.incremental.learner.ImageLearner.train", dies_at_once)  # learning is not done again
    painter_calls = again.painter.calls
    found = night(again, 2, tmp_path / "killed")
    assert differing(whole, again) == [] and again.painter.calls > painter_calls
    costs = ("unet_calls", "dream_flops", "train_flops", "steps", "bytes")
    assert [found[name] for name in costs] == [expected[name] for name in costs] and expected["unet_calls"] > 0


def test_prompts_of_another_run_and_damaged_ones_are_led_again(tmp_path, generator, caplog):
    def second_night(folder, **options):
        one = make(tmp_path, generator, **options)
        one.load(tmp_path / "evening")
        night(one, 2, folder)
        return one

    first = make(tmp_path, generator)
    night(first, 1, tmp_path / "whole")
    first.save(tmp_path / "evening")
    whole, other = second_night(tmp_path / "whole"), second_night(tmp_path / "other", prompt_learning_rate=0.5)
    assert differing(whole, other) != [] and "not taken over" not in caplog.text
    again = second_night(tmp_path / "other")
    assert differing(whole, again) == [] and "prompts_0_of_1.safetensors is not taken over (it was made with" in caplog.text

    path = next((tmp_path / "whole" / "night_02").glob("dreams/prompts_*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert differing(whole, second_night(tmp_path / "whole")) == [] and "not taken over (it has changed)" in caplog.text


def dies_at_once(*args):
    raise AssertionError


def test_batch_norm_keeps_the_statistics_of_real_images():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Dropout()).train()
    with running_statistics(model):
        assert not model[0].training and model[1].training
        model(torch.rand(4, 2, 3, 3) + 5)
    assert model[0].training and torch.equal(model[0].running_mean, torch.zeros(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"oracle": "always"}, "oracle is 'always'; use one of learned, none"),
        ({"assignment": "first"}, "assignment is 'first'; use one of greedy, hungarian, none"),
        ({"strength": 0}, "strength is 0; give a number above 0, to 1"),
        ({"probes": 1}, "probes is 1; give at least 2"),
        ({"stop_threshold": 2}, "stop_threshold is 2; give a number from 0 to 1"),
        ({"prompt_template": "a photo"}, "give one with one {}"),
        ({"prompt_learning_rate": float("nan")}, "prompt_learning_rate is nan; give a finite number"),
        ({"generator_dtype": "int8"}, "generator_dtype is 'int8'; use one of auto, float32"),
        ({"memory_steps": -1}, "memory_steps is -1; give a number of at least 0"),
        ({"wake_dream_weight": -1}, "wake_dream_weight is -1; give a number of at least 0"),
    ],
)
def test_bad_values_are_named(tmp_path, options, words):
    with pytest.raises(SleepkitError) as error:
        Dream2LearnConfig(output_dir=str(tmp_path), **{**FEW, **options})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_bad_input_is_refused_before_training(tmp_path, generator):
    with pytest.raises(SleepkitError, match="scenario is 'task'; dreams are classes that share one head"):
        make(tmp_path, generator, scenario="task")
    colour = save_tiny_generator(tmp_path / "colour", channels=3)
    with pytest.raises(SleepkitError, match="makes images of 3 channels, the data have 1"):
        make(tmp_path, colour)
    with pytest.raises(SleepkitError, match="cannot be loaded"):
        make(tmp_path, tmp_path / "nowhere")


def test_too_few_units_and_classes_without_images(tmp_path, generator):
    one = make(tmp_path, generator, max_units=3)
    with pytest.raises(SleepkitError, match="max_units is 3, which is fewer than the 4 units of classes and dreams; raise it"):
        night(one, 1, tmp_path)
    one = make(tmp_path, generator)
    night(one, 1, tmp_path / "other")
    one.buffer.labels = torch.from_numpy(np.ones(len(one.buffer), dtype=np.int64))
    with pytest.raises(SleepkitError, match="has no image of class 0, from which dreams start"):
        one.gallery().some(0, 2, 0)
