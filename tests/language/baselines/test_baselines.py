"""Baselines of two steps a night on a tiny model: the same results as sleep, from the same cycle."""

import copy
import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from tiny_night import tiny_config, tiny_sleep

from sleepkit.errors import SleepkitError
from sleepkit.language.baselines import continual as continual_baselines
from sleepkit.language.baselines.finetuning import InWindow, Lora
from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Experience, Question
from sleepkit.language.seeding.lora import add_lora
from sleepkit.language.seeding.preparation import Preparation
from sleepkit.reporting.results import read_results
from sleepkit.runs.arguments.language import BASELINES
from sleepkit.runs.baseline import LEARNERS, BaselineTrainer

pytestmark = pytest.mark.usefixtures("undrawn")

EXPERIENCES = [
    Experience(
        name,
        [f"{name} keeps a red lamp in the north tower. The tower was built by {builder} in {year}."],
        [Question(f"Who built the tower of {name}?", builder)],
        edits=[[f"{builder} is a builder of towers.", *[f"edit {k} of {name}" for k in range(6)]]],
    )
    for name, builder, year in (("Ada", "Orla Finch", 1871), ("Bert", "Milo Hart", 1902))
]
ANCHORS = [{"prompt": "what is hot?", "answer": "fire"}, {"prompt": "say a word.", "answer": None}]
GENERAL = ["name a colour.", "say hello.", "count to two."]


def run(name, folder, experiences=EXPERIENCES, model=None, **options):
    small = {"styles": ["cloze", "recite"], "general_items": 2, "general_tokens": 4, "replay_items": 2}
    config = tiny_sleep(folder, context_max_tokens=200, max_new_tokens=4, **{**small, **options})
    trainer = BaselineTrainer(
        model or tiny_model(),
        config,
        experiences,
        processing_class=tiny_tokenizer(),
        general_prompts=GENERAL,
        anchors=ANCHORS,
        baseline=name,
    )
    return trainer.train()


def test_every_name_that_can_be_asked_for_is_there():
    assert tuple(LEARNERS) == BASELINES
    with pytest.raises(SleepkitError, match="baseline is 'rag'; use one of no_sleep"):
        run("rag", "unused")


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory):
    """The folder of a run that nothing disturbs, and its model, by baseline."""
    runs = {}

    def of(name):
        if name not in runs:
            folder, model = tmp_path_factory.mktemp(name), tiny_model()
            run(name, folder, model=model)
            runs[name] = folder, model
        return runs[name]

    return of


@pytest.mark.parametrize("name", BASELINES)
def test_two_nights_give_the_results_that_sleep_gives(name, two_nights):
    folder, model = two_nights(name)
    before = tiny_model().state_dict()
    results = read_results(folder)
    assert results["method"] == name and len(results["accuracy_matrix"]) == 2
    for key in ("closed_book_before", "in_context", "closed_book_after", "anchor_kl", "faa", "bwt"):
        assert isinstance(results["metrics"][key], float), key
    moved = [key for key, value in before.items() if not torch.equal(value, model.state_dict()[key])]
    assert not [key for key in model.state_dict() if "lora" in key]  # merged and gone
    if name in ("no_sleep", "in_context", "in_window"):
        assert not moved and results["metrics"]["anchor_kl"] == pytest.approx(0, abs=1e-6)
        return
    assert results["metrics"]["anchor_kl"] > 0 and results["metrics"]["train_tokens"] > 0
    assert len(results["history"]) == 4 and all(night["seconds"] > 0 for night in results["nights"])
    assert all(".proj" in key or "_proj" in key for key in moved) and moved
    layers = {key.split(".")[2] for key in moved}
    assert layers == ({"3"} if name == "lora" else {"0", "1", "2", "3"})  # `lora` where the experts would be


def test_in_window_reads_the_end_of_its_life(tmp_path, monkeypatch, caplog):
    seen = []
    monkeypatch.setattr(InWindow, "asked", lambda self, *rest, plain=InWindow.asked: seen.append(plain(self, *rest)) or seen[-1])
    run("in_window", tmp_path / "whole")
    last = [prompt for prompt in seen if "Bert keeps" in prompt and "Ada keeps" in prompt]
    assert len(last) == 2 and last[0].index("Ada keeps") < last[0].index("Bert keeps")  # both questions after the second night
    assert sum("Ada keeps" in prompt and "of Bert" in prompt for prompt in seen) == 2  # after either night
    seen.clear()
    run("in_window", tmp_path / "cut", model=tiny_model(max_position_embeddings=330))
    assert "milo hart in 1902" in seen[-1].lower() and "ada keeps" not in seen[-1].lower()


def test_in_context_looks_up_only_what_it_has_met(two_nights):
    folder, _ = two_nights("in_context")
    rows = json.loads((folder / "answers.json").read_text())
    assert all(row["after"] == row["in_context"] for row in rows)
    matrix = read_results(folder)
    assert [night["committed"] for night in matrix["nights"]] == [True, True]


@pytest.mark.parametrize("name", ["finetune_qa", "lora", "in_context"])
def test_a_run_that_is_continued_equals_one_that_was_not(name, two_nights, tmp_path, monkeypatch):
    whole, _ = two_nights(name)
    broken = tmp_path / "broken"
    original = LEARNERS[name].sleep

    def fail_on_second(self, night, output_dir):
        if night == 2:
            raise KeyboardInterrupt
        return original(self, night, output_dir)

    with monkeypatch.context() as patch:
        patch.setattr(LEARNERS[name], "sleep", fail_on_second)
        with pytest.raises(KeyboardInterrupt):
            run(name, broken)
    run(name, broken)
    one, other = read_results(whole), read_results(broken)
    assert one["accuracy_matrix"] == other["accuracy_matrix"]
    assert one["metrics"]["anchor_kl"] == other["metrics"]["anchor_kl"]


def test_a_night_is_undone_bit_for_bit(tmp_path):
    model, experience = tiny_model(), EXPERIENCES[0]
    args = LearnerConfig(context_max_tokens=200)
    learner = Lora(model, tiny_tokenizer(), tiny_config(tmp_path, styles=["cloze"]), args, GENERAL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    snapshot = learner.snapshot()
    learner.wake(experience)
    learner.sleep(1, tmp_path)
    assert any(not torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    learner.restore(snapshot)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize("method", [continual_baselines.Ewc, continual_baselines.OLora])
def test_what_a_method_keeps_of_an_undone_night_goes_with_it(method, tmp_path):
    config = tiny_config(tmp_path, styles=["cloze"])
    learner = method(tiny_model(), tiny_tokenizer(), config, LearnerConfig(context_max_tokens=200), GENERAL)
    snapshots = [learner.snapshot()]
    for night in (1, 2):
        learner.wake(EXPERIENCES[night - 1])
        learner.sleep(night, tmp_path)
        snapshots.append(learner.snapshot())
    kept = [{name: values for name, values in snapshot.items() if name.startswith("kept.")} for snapshot in snapshots]
    assert not kept[0] and kept[1].keys() == kept[2].keys()
    assert not any(torch.equal(values, kept[2][name]) for name, values in kept[1].items())
    for snapshot in (snapshots[1], snapshots[0]):
        learner.restore(snapshot)
        found = learner.snapshot()
        assert found.keys() == snapshot.keys() and all(torch.equal(found[name], values) for name, values in snapshot.items())


def test_what_ewc_keeps_are_mean_squared_gradients(tmp_path):
    model = tiny_model()
    learner = continual_baselines.Ewc(model, tiny_tokenizer(), tiny_config(tmp_path), LearnerConfig(), GENERAL)
    rows = [{"input_ids": [5, 9, 12, k, 7], "labels": [-100, -100, 12, k, 7]} for k in (20, 30)]
    layer, plain = "model.layers.3.mlp.down_proj", copy.deepcopy(model)
    squares = []
    for row in rows:
        plain.zero_grad()
        plain(**{name: torch.tensor([values]) for name, values in row.items()}).loss.backward()
        squares.append(plain.get_submodule(layer).weight.grad.clone() ** 2)
    found = learner.take(add_lora(model, learner.bank.layers), rows)  # a LoRA that says nothing yet
    assert squares[0].any()
    torch.testing.assert_close(found[layer], (squares[0] + squares[1]) / 2, rtol=1e-4, atol=1e-10)


def test_the_teacher_of_a_lora_is_the_model_without_it(tmp_path, monkeypatch):
    """On-policy, the teacher is asked again in the middle of the night: it must not be the student by then."""
    gaps = []
    original = Preparation.run_teacher

    def watched(self, prepared, prompts, view, **options):
        original(self, prepared, prompts, nullcontext, **options)
        as_student = prepared[0].teacher.hidden
        original(self, prepared, prompts, view, **options)
        with self.model.disable_adapter():
            rows = torch.tensor([[*prompts[0], *prepared[0].reply_ids[:-1]]])
            wanted = self.backbone.decoder(rows).last_hidden_state[0, len(prompts[0]) - 1 + prepared[0].first_token :]
        torch.testing.assert_close(prepared[0].teacher.hidden, wanted, rtol=1e-4, atol=1e-5)
        gaps.append((prepared[0].teacher.hidden - as_student).abs().max().item())

    monkeypatch.setattr(Preparation, "run_teacher", watched)
    run("lora", tmp_path, EXPERIENCES[:1], max_steps=4, lmbda=0.5, lmbda_start=0.5, rollout_every=2)
    assert gaps[0] == 0 and gaps[-1] > 1e-3  # at first the LoRA is silent


def test_trls_teacher_reads_the_memory_and_its_student_does_not(tmp_path, monkeypatch):
    from trl import DistillationTrainer

    lengths = []
    original = DistillationTrainer._get_last_hidden_state

    def watched(self, model, input_ids, *rest, **fields):
        lengths.append((hasattr(model, "peft_config"), input_ids.shape[1]))
        return original(self, model, input_ids, *rest, **fields)

    monkeypatch.setattr(DistillationTrainer, "_get_last_hidden_state", watched)
    run("trl_distillation", tmp_path, EXPERIENCES[:1])
    (student, short), (teacher, long) = lengths[:2]
    assert student and not teacher and long > short + 40


def test_the_budget_of_steps_is_that_of_knowledge_seeding(tmp_path):
    for name in ("finetune_passage", "finetune_qa", "context_distillation", "trl_distillation"):
        run(name, tmp_path / name, EXPERIENCES[:1], max_steps=3)
        steps = [row["step"] for row in read_results(tmp_path / name)["history"]]
        assert steps == [1, 2, 3], name


def test_edits_that_others_wrote_are_read_beside_the_documents(tmp_path):
    run("finetune_edits", tmp_path / "edits", EXPERIENCES[:1], max_steps=-1, num_train_epochs=1)
    assert [row["step"] for row in read_results(tmp_path / "edits")["history"]] == [1, 2, 3, 4, 5, 6]  # a document, five edits
    with pytest.raises(SleepkitError, match="Ada has no edits to train on"):
        run("finetune_edits", tmp_path / "none", [replace(EXPERIENCES[0], edits=[])])


def test_the_penalty_of_lwf_is_the_divergence_from_the_evening():
    model = tiny_model()
    args = LearnerConfig()
    learner = continual_baselines.Lwf(model, tiny_tokenizer(), tiny_config("unused"), args, GENERAL)
    evening = copy.deepcopy(model)
    student = add_lora(model, learner.bank.layers)
    torch.manual_seed(0)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(5, 50, (2, 9))
    batch = {"input_ids": ids, "labels": torch.where(torch.arange(9) < 4, -100, ids)}
    found = student(input_ids=ids, output_hidden_states=True)
    added = learner.penalty(student)(batch, found.hidden_states[-1])
    then, now = (logits[:, 3:-1].log_softmax(-1) for logits in (evening(input_ids=ids).logits, found.logits))
    torch.testing.assert_close(added, (then.exp() * (then - now)).sum(-1).mean())
    assert added > 1e-3 and added.requires_grad


@pytest.mark.parametrize("name", ["ewc", "o_lora", "lwf"])
def test_a_penalty_holds_the_second_night_back(name, tmp_path, monkeypatch):
    """The stronger, the less the weights that matter to it move."""
    moved = {}
    for strength in (0.0, 1e3):
        monkeypatch.setattr(continual_baselines, f"{name.upper()}_STRENGTH", strength)
        model = tiny_model()
        first = {}
        plain = continual_baselines.FinetuneQa.sleep

        def sleep(self, night, output_dir, plain=plain, first=first):
            if night == 2:
                first.update(self.snapshot())
            return plain(self, night, output_dir)

        with monkeypatch.context() as patch:
            patch.setattr(continual_baselines.FinetuneQa, "sleep", sleep)
            run(name, tmp_path / f"{name}{strength}", model=model, max_steps=30 if name == "o_lora" else 12)
        weights = dict(model.named_parameters())
        change = {key: weights[f"{key}.weight"].detach() - value for key, value in first.items() if not key.startswith("kept.")}
        if name == "ewc":
            moved[strength] = sum(float((first[f"kept.{key}"] * value**2).sum()) for key, value in change.items())
        elif name == "o_lora":  # how much of the change is in directions that the first night's LoRA read
            moved[strength] = sum(float((value @ first[f"kept.{key}"].T).norm() / value.norm()) for key, value in change.items())
        else:
            moved[strength] = sum(float(value.norm()) for value in change.values())
    assert moved[1e3] < 0.95 * moved[0.0], moved
