"""Baselines: each learns, keeps what it says it keeps, and goes on after loading as if it had never stopped."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_images import night, tiny_classifier, tiny_config, tiny_data
from torch.nn import functional as F

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.incremental import baselines, learner, regularisers
from sleepkit.vision.incremental.generative_classifier import ClassVae, GenerativeClassifier

LEARNERS = {
    "finetune": learner.ImageLearner,
    "joint": baselines.Joint,
    "er": baselines.ExperienceReplay,
    "der": baselines.DarkExperienceReplay,
    "er_ace": baselines.ErAce,
    "gdumb": baselines.GDumb,
    "lwf": baselines.LwF,
    "ewc": regularisers.OnlineEwc,
    "si": regularisers.SynapticIntelligence,
    "generative": GenerativeClassifier,
    "frozen": baselines.FrozenFeatures,
}
DATA = tiny_data()


def make(method, folder, scenario="class", experiences=2, **options):
    stream = build_stream(DATA, scenario, experiences)
    return LEARNERS[method](tiny_classifier(), tiny_config(folder, scenario=scenario, **options), stream)


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
@pytest.mark.parametrize("method", LEARNERS)
def test_two_nights_and_the_second_again_after_loading(method, scenario, tmp_path):
    whole = make(method, tmp_path, scenario)
    log = night(whole, 1, tmp_path)
    assert log["bytes"] >= 0 and (method == "frozen" or log["train_flops"] > 0)
    start = {name: values.clone() for name, values in whole.model.named_parameters()}
    whole.save(tmp_path / "evening")
    night(whole, 2, tmp_path)
    if method != "generative":
        now = dict(whole.model.named_parameters())
        changed = {name for name, values in start.items() if not torch.equal(values, now[name][: len(values)])}
        head = {"head.weight", "head.bias"}  # in the task scenario, old heads change only where they are replayed
        assert changed - head == (set() if method == "frozen" else set(start) - head)
        assert changed >= head or scenario == "task"
    first, second = whole.evaluate(whole.stream)
    assert first.n == second.n == 16 and second.task_il >= second.class_il

    again = make(method, tmp_path, scenario)
    again.load(tmp_path / "evening")
    night(again, 2, tmp_path)
    expected, found = whole.snapshot(), again.snapshot()
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        assert torch.equal(values.nan_to_num(), found[name].nan_to_num()), name


@pytest.mark.parametrize("method", LEARNERS)
def test_each_learns(method, tmp_path):
    one = make(method, tmp_path, "class", 1, num_train_epochs=40, buffer_size=40, vae_hidden=32)
    if method == "frozen":
        one.config.ridge = 1e-3
    night(one, 1, tmp_path)
    assert one.evaluate(one.stream)[0].class_il > 0.9


def test_replay_and_its_relatives_forget_less_than_fine_tuning(tmp_path):
    scores = {}
    for method in ("finetune", "er", "er_ace", "joint"):
        one = make(method, tmp_path, num_train_epochs=20, buffer_size=40, learning_rate=0.005)
        for number in (1, 2):
            night(one, number, tmp_path)
        scores[method] = one.evaluate(one.stream)[0].class_il
    assert scores["finetune"] == 0 and min(scores["er"], scores["er_ace"], scores["joint"]) > 0.6


def test_an_experience_that_was_not_met_has_no_accuracy_but_a_probe(tmp_path):
    one = make("finetune", tmp_path, probe_images=40)
    assert [found.n for found in one.evaluate(one.stream)] == [16, 16]
    night(one, 1, tmp_path)
    met, later = one.evaluate(one.stream)
    assert met.class_il == met.class_il and later.class_il != later.class_il and 0 <= later.probe <= 1
    one.probe_images = 0
    assert [found.n for found in one.evaluate(one.stream)] == [16, 0]


def test_a_probe_of_the_stream_tells_all_classes_apart(tmp_path):
    one = make("finetune", tmp_path, probe_images=10)
    near = [found.probe for found in one.evaluate(one.stream)]
    one.probe_scope, one.probe_draws = "stream", 2
    far = [found.probe for found in one.evaluate(one.stream)]
    assert all(all_classes < two for all_classes, two in zip(far, near, strict=True))
    assert [weights.shape[1] for weights in one._fitted(one.stream)] == [4, 4]


def test_restore_undoes_a_night_bit_for_bit(tmp_path):
    one = make("der", tmp_path)
    night(one, 1, tmp_path)
    before = one.snapshot()
    night(one, 2, tmp_path)
    assert len(one.model.slots) == 4
    one.restore(before)
    after = one.snapshot()
    assert before.keys() == after.keys()
    assert all(torch.equal(values.nan_to_num(), after[name].nan_to_num()) for name, values in before.items())
    assert one.model.config.id2label == {0: "class 0", 1: "class 1"}


@pytest.mark.parametrize("method", ["der", "ewc", "generative"])
def test_the_first_night_can_be_undone(tmp_path, method):
    one = make(method, tmp_path)
    before = one.snapshot()
    night(one, 1, tmp_path)
    one.restore(before)
    assert before.keys() == one.snapshot().keys() and len(one.model.slots) == 0 and not one.extras


def test_joint_training_keeps_all_images(tmp_path):
    one = make("joint", tmp_path)
    assert [night(one, number, tmp_path)["bytes"] for number in (1, 2)] == [48 * 64, 96 * 64]


def test_a_memory_is_kilobytes_on_disk_and_images_in_the_account(tmp_path):
    one = make("er", tmp_path)
    night(one, 1, tmp_path)
    one.save(tmp_path / "state")
    kept = {name: v for name, v in load_file(tmp_path / "state" / learner.FILE_NAME).items() if name.startswith("memory.")}
    assert sum(values.numel() * values.element_size() for values in kept.values()) < 1000
    assert one.bytes() == 12 * (64 + 8)


def test_a_buffer_larger_than_the_data(tmp_path):
    with pytest.raises(SleepkitError, match="buffer_size is 97, the stream has 96 training images"):
        make("er", tmp_path, buffer_size=97)


def test_a_damaged_state(tmp_path):
    one = make("er", tmp_path)
    night(one, 1, tmp_path)
    one.save(tmp_path / "state")
    path = tmp_path / "state" / learner.FILE_NAME
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SleepkitError, match="learner.safetensors cannot be read .*start anew"):
        make("er", tmp_path).load(tmp_path / "state")


def test_replayed_images_are_those_of_the_stream(tmp_path):
    one = make("er", tmp_path, "domain")
    one.night = 1
    night(one, 1, tmp_path)
    all_of_it = one.remembered()
    for (number, row), pixels, unit in zip(one.buffer.places.tolist(), all_of_it.pixels, all_of_it.units, strict=True):
        experience = one.stream[number].train
        assert torch.equal(pixels, experience.pixels(torch.tensor([row]))[0]) and unit == experience.labels[row]
    one.replayed = all_of_it
    assert torch.equal(one.draw(3).pixels, one.draw(3).pixels) and not torch.equal(one.draw(3).units, one.draw(4).units)


def test_the_softmax_of_a_task_runs_over_its_units(tmp_path):
    one = make("finetune", tmp_path, "task")
    for number in (1, 2):
        night(one, number, tmp_path)
    units = torch.tensor([0, 3])
    assert one.allowed(units).tolist() == [[True, True, False, False], [False, False, True, True]]
    one.scenario = "class"
    assert one.allowed(units).tolist() == [True] * 4


def test_frozen_features_end_where_ridge_regression_on_all_of_them_ends(tmp_path):
    one = make("frozen", tmp_path)
    for number in (1, 2):
        night(one, number, tmp_path)
    features = torch.cat([one.in_batches(one.model.features, e.train) for e in one.stream])
    labels = torch.cat([e.train.labels for e in one.stream])
    weights = learner.ridge_regression(*learner.normal_equations(features, labels, 4), one.config.ridge)
    torch.testing.assert_close(one.model.head.weight.double(), weights[:-1].T, atol=1e-5, rtol=1e-5)


def test_ridge_regression_is_the_minimum():
    features, labels = torch.randn(30, 3).double(), torch.arange(30) % 2
    weights = learner.ridge_regression(*learner.normal_equations(features, labels, 2), 0.5).requires_grad_()
    loss = (learner.predict_linear(features, weights) - F.one_hot(labels)).square().sum() + 0.5 * weights.square().sum()
    loss.backward()
    assert weights.grad.abs().max() < 1e-9


def test_distillation_is_zero_at_the_teacher_and_has_its_gradient():
    teacher = torch.randn(4, 3)
    assert baselines.distillation(teacher, teacher, 2.0).abs() < 1e-6
    student = torch.randn(4, 3, requires_grad=True)
    baselines.distillation(student, teacher, 2.0).backward()
    expected = 2 * (torch.softmax(student / 2, 1) - torch.softmax(teacher / 2, 1)) / 4
    torch.testing.assert_close(student.grad, expected)


def test_penalties_hold_the_weights(tmp_path):
    moved = {}
    for method, strong in (("finetune", {}), ("ewc", {"ewc_weight": 1e5}), ("si", {"si_weight": 1e4})):
        one = make(method, tmp_path, "task", num_train_epochs=20, learning_rate=2e-3, **strong)
        night(one, 1, tmp_path)
        before = one.model.backbone.linear.weight.clone()
        night(one, 2, tmp_path)
        moved[method] = (one.model.backbone.linear.weight - before).norm().item()
    assert max(moved["ewc"], moved["si"]) < 0.75 * moved["finetune"]


def test_fisher_information_is_the_mean_of_squared_gradients(tmp_path):
    one = make("ewc", tmp_path, fisher_images=48)
    night(one, 1, tmp_path)
    rows = one.training_rows()
    total = torch.zeros_like(one.model.head.weight)
    for k in range(48):
        one.model.zero_grad()
        one.model(rows.pixel_values[k : k + 1], labels=rows.labels[k : k + 1]).loss.backward()
        total += one.model.head.weight.grad**2 / 48
    torch.testing.assert_close(one.extras["importance.head.weight"], total)


def test_the_credit_of_a_path_is_the_loss_that_it_lost(tmp_path):
    one = make("si", tmp_path, learning_rate=1e-4, per_device_train_batch_size=48, num_train_epochs=20)
    one.wake(one.stream[0])
    one._grow()
    one.before_training()
    rows = one.training_rows()

    def loss():
        return one.model(rows.pixel_values, labels=rows.labels).loss.item()

    before = loss()
    one.night = 1
    one.train(Path(tmp_path))
    credit = sum(values.sum().item() for values in one.path.omega.values())
    assert credit == pytest.approx(before - loss(), rel=0.05)


def test_importance_sampling_approaches_the_likelihood_from_below():
    torch.manual_seed(0)
    vae, x = ClassVae(4, 8, 2), torch.rand(5, 4)
    few = torch.stack([vae.log_likelihood(x, 1, torch.randn(1, 1, 2)) for _ in range(2000)]).mean(0)
    many = vae.log_likelihood(x, 20000, torch.randn(20000, 1, 2))
    bound = -torch.stack([vae.loss(x) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(few, bound, atol=0.05, rtol=0.05)
    assert (many >= few - 1e-3).all()
