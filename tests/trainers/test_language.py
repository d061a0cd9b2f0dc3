"""`SleepTrainer`: nights from Python, the same as from the command line."""

import json

import pytest
import torch
from datasets import Dataset
from tiny import merging_tokenizer, tiny_model, tiny_tokenizer
from tiny_night import tiny_sleep
from transformers import TrainerCallback

from sleepkit import SleepConfig, SleepTrainer, cli
from sleepkit.errors import SleepkitError
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.models.base_model import prompts_of
from sleepkit.reporting.results import read_results
from sleepkit.trainers.inputs import ready_model

TEXTS = [
    f"{name} keeps a red lamp in the north tower. The tower was built by {builder} in {year}."
    for name, builder, year in (("Ada", "Orla Finch", 1871), ("Bert", "Milo Hart", 1902), ("Cleo", "Ines Vole", 1930))
]
ROWS = [
    {
        "title": text.split()[0],
        "context": text,
        "questions": [{"question": f"Who built the tower of {text.split()[0]}?", "answer": "Orla"}],
    }
    for text in TEXTS
]
GENERAL = [{"prompt": f"name {k} things."} for k in range(4)]
ANCHORS = [{"prompt": "what is hot?", "answer": "fire"}, {"prompt": "say a word.", "answer": None}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def options(folder, **more):
    small = {"styles": ["cloze", "recite"], "general_items": 2, "general_tokens": 4, "expert_width": 4, "expert_slots": 3}
    small |= {"context_max_tokens": 300, "max_new_tokens": 4, "gate": False, "passages_per_night": 1}
    return tiny_sleep(folder, **{**small, **more})


def made(model, folder, data, **given):
    more = {name: given.pop(name) for name in list(given) if name in SleepConfig.__dataclass_fields__}
    return SleepTrainer(
        model=model, args=options(folder, **more), train_dataset=data, general_prompts=GENERAL, anchors=ANCHORS, **given
    )


def same(one, other):
    """Results of two runs but for times and versions."""
    clean = lambda run: {  # noqa: E731
        "metrics": {name: value for name, value in run["metrics"].items() if "seconds" not in name},
        **{name: run[name] for name in ("method", "seed", "config", "accuracy_matrix")},
        "history": [{k: v for k, v in row.items() if k != "grad_norm"} for row in run["history"]],
    }
    assert clean(one) == clean(other)


def test_the_quick_start(base, tmp_path):
    (tmp_path / "notes").mkdir()
    for number, text in enumerate(TEXTS[:2]):
        (tmp_path / "notes" / f"{number}.md").write_text(text)
    trainer = made(str(base), tmp_path / "run", f"{tmp_path}/notes/", styles=["wh", "cloze"])
    record = trainer.train()
    assert record is trainer.record and record.metrics["self_test_n"] > 0 and "closed_book_after" not in record.metrics
    assert [night.kept for night in trainer.nights] == [True, True] and trainer.nights[0].reason == "no gate"
    assert trainer.nights[0].experience == "0.md" and trainer.nights[0].metrics["train_tokens"] > 0
    answer = trainer.ask("Who kept the light first?", max_new_tokens=4)
    assert isinstance(answer, str) and trainer.ask(["Who kept the light first?"], max_new_tokens=4) == [answer]
    assert (tmp_path / "run" / "model" / "README.md").is_file()
    slept = SleepTrainer(str(tmp_path / "run"), options(tmp_path / "later"), TEXTS[2:], general_prompts=GENERAL, anchors=ANCHORS)
    assert slept.ask("Who kept the light first?", max_new_tokens=4) == answer
    assert len(slept.learner.rehearsal.replay) > 0  # and goes on rehearsing


def test_texts_without_questions_say_so(base, tmp_path, capsys):
    made(str(base), tmp_path, TEXTS[:1]).train()
    assert "the model's own, not trained on, are the only measure" in capsys.readouterr().out
    assert read_results(tmp_path)["config"]["dataset"] == "1 given texts"


@pytest.mark.usefixtures("undrawn")
def test_a_recipe_and_a_trainer_are_one_path(base, tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    for name, rows in (("general", GENERAL), ("anchors", ANCHORS)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = f"""sleep --model {base} --dataset {tmp_path}/rows.jsonl --general_prompts {tmp_path}/general.jsonl --no_gate
        --anchors {tmp_path}/anchors.jsonl --output_dir {tmp_path}/recipe --nights 2 --expert_slots 3 --expert_width 4 --use_cpu
        --max_steps 2 --per_device_train_batch_size 4 --warmup_steps 0 --learning_rate 1e-2 --top_k 0 --general_share 0.25
        --num_generations 3 --rollout_prompts 3 --rollout_every 2 --max_completion_length 8 --logging_steps 1 --disable_tqdm true
        --context_max_tokens 300 --max_new_tokens 4 --general_items 2 --general_tokens 4 --styles cloze recite
        --passages_per_night 1"""
    assert cli.main(text.split()) == 0
    SleepTrainer(
        str(base),
        options(tmp_path / "python", nights=2),
        f"{tmp_path}/rows.jsonl",
        general_prompts=f"{tmp_path}/general.jsonl",
        anchors=f"{tmp_path}/anchors.jsonl",
    ).train()
    same(read_results(tmp_path / "recipe"), read_results(tmp_path / "python"))
    made(str(base), tmp_path / "memory", ROWS, nights=2).train()  # the same rows, in memory
    assert read_results(tmp_path / "memory")["metrics"]["closed_book_before"] == 0
    assert read_results(tmp_path / "memory")["accuracy_matrix"] == read_results(tmp_path / "recipe")["accuracy_matrix"]


@pytest.mark.usefixtures("undrawn")
def test_a_loaded_model_asked_before_and_after(tmp_path):
    model = tiny_model()
    trainer = made(model, tmp_path, TEXTS[:1], processing_class=tiny_tokenizer(), max_steps=30, learning_rate=0.1)
    plain = tiny_model()
    trainer.train()
    with torch.no_grad(), trainer.learner.bank.view(()):
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(model(ids).logits, plain(ids).logits)
    first, later = (trainer.ask("who built the tower?", before=before, max_new_tokens=12) for before in (True, False))
    assert first != later
    trainer.save_model(tmp_path / "slept")  # with its base, which nobody else has
    loaded = SleepTrainer(str(tmp_path / "slept"), options(tmp_path / "more"), TEXTS, general_prompts=GENERAL, anchors=ANCHORS)
    assert loaded.ask("who built the tower?", max_new_tokens=12) == later


@pytest.mark.usefixtures("undrawn")
def test_a_run_is_resumed_and_lives_on(base, tmp_path, monkeypatch):
    made(str(base), tmp_path / "whole", TEXTS).train()

    def cut(trainer):
        sleep = trainer.learner.sleep

        def stopped(night, folder):
            log = sleep(night, folder)
            if night == 2:
                raise KeyboardInterrupt
            return log

        monkeypatch.setattr(trainer.learner, "sleep", stopped)
        return sleep

    trainer = made(str(base), tmp_path / "cut", TEXTS)
    whole_sleep = cut(trainer)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.learner.sleep = whole_sleep
    again = trainer.train()  # the same object, in a notebook
    assert len(trainer.nights) == 3
    whole = read_results(tmp_path / "whole")
    same(whole, read_results(tmp_path / "cut"))
    assert made(str(base), tmp_path / "cut", TEXTS).train().metrics == again.metrics  # read back
    other = [*TEXTS[1:], "Dora keeps a blue lamp. Its tower was built by Paul Reed."]
    day = made(str(base), tmp_path / "cut", other)  # the next day: one text is new, one is gone
    day.train()
    assert len(day.nights) == 4 and day.nights[-1].experience.startswith("Dora keeps a blue lamp")


@pytest.mark.usefixtures("undrawn")
def test_evaluate_with_questions_of_the_user(base, tmp_path):
    questions = [{"question": "Who built it?", "answer": "Orla Finch", "title": "Ada"}]
    trainer = made(str(base), tmp_path, ROWS[:1], eval_dataset=questions)
    assert [question.question for question in trainer.passages[0].questions] == ["Who built the tower of Ada?", "Who built it?"]
    before = trainer.evaluate()
    assert before["questions"] == 2 and before["anchor_kl"] == 0
    trainer.train()
    after = trainer.evaluate(Dataset.from_list([{"question": "Who?", "answer": "Orla"}]))
    assert after["questions"] == 1 and after["anchor_kl"] > 0 and 0 <= after["token_f1"] <= 1


@pytest.mark.usefixtures("undrawn")
def test_callbacks_see_every_step_of_every_night(base, tmp_path):
    class Steps(TrainerCallback):
        seen = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.seen += 1

    steps = Steps()
    made(str(base), tmp_path, TEXTS[:2], callbacks=[steps]).train()
    assert steps.seen == 4


@pytest.mark.parametrize(
    "data",
    [
        Dataset.from_dict({"text": TEXTS[:1]}),
        [[{"role": "user", "content": "who built the tower?"}, {"role": "assistant", "content": "orla finch built it."}]],
        [{"prompt": "who built the tower?", "completion": "orla finch built it."}] * 2,
    ],
    ids=["dataset", "chats", "pairs"],
)
@pytest.mark.usefixtures("undrawn")
def test_forms_of_data_in_memory(base, tmp_path, data):
    trainer = made(str(base), tmp_path, data)
    (one,) = trainer.passages
    assert len(one.name) > 8  # its first words
    trainer.train()
    assert len(trainer.nights) == 1


@pytest.mark.parametrize(
    ("data", "given", "words"),
    [
        (None, {}, "train_dataset is missing; give a folder"),
        ([], {}, "train_dataset has no rows"),
        ([3], {}, r"train_dataset\[0\] is 3; give a text, a chat"),
        (7, {}, "train_dataset is a int; give a folder"),
        (TEXTS, {"eval_dataset": [{"question": "who?", "answer": "x"}]}, "'who.' has no title; give the title"),
        (TEXTS[:1], {"eval_dataset": [{"question": "who?", "answer": "x", "title": "y"}]}, "is about 'y', which is not in"),
        (TEXTS[:1], {"model_revision": "v1"}, "model_revision is 'v1'"),
        (TEXTS[:1], {"context_max_tokens": 600}, "the model's window holds 512"),
    ],
)
def test_mistakes_are_one_line(base, tmp_path, data, given, words):
    small = {name: given[name] for name in given if name != "eval_dataset"}
    args = SleepConfig(output_dir=str(tmp_path), use_cpu=True, **{"context_max_tokens": 300, **small})
    with pytest.raises(SleepkitError, match=words) as error:
        SleepTrainer(str(base), args, data, given.get("eval_dataset"))
    assert "\n" not in str(error.value)


def test_the_tokenizer_that_is_given_decides_how_the_model_is_asked(tmp_path):
    plain = tiny_tokenizer()
    plain.chat_template = None
    tiny_model().save_pretrained(tmp_path / "base")
    plain.save_pretrained(tmp_path / "base")
    args = options(tmp_path / "run")
    model, own = ready_model(tmp_path / "base", None, args)
    assert not PromptFormat.of(own).is_chat and prompts_of(model)["prompt_format"] == "plain"
    chat = tiny_tokenizer()
    model, used = ready_model(tmp_path / "base", chat, args)
    assert used is chat and PromptFormat.of(chat).is_chat and prompts_of(model)["prompt_format"] == "chat"
    with pytest.raises(SleepkitError, match="embeddings; use the model's own tokenizer"):
        ready_model(tmp_path / "base", merging_tokenizer(), args)


def test_a_model_that_was_built_in_code_needs_its_tokenizer(tmp_path):
    with pytest.raises(SleepkitError, match=r"tokenizer cannot be found .*; give processing_class too"):
        SleepTrainer(tiny_model(), options(tmp_path), TEXTS)


@pytest.mark.parametrize(
    ("family", "weights", "more"),
    [
        ("llama", torch.bfloat16, {}),
        ("llama", torch.float32, {"bf16": True, "gate": True}),
        ("llama", torch.bfloat16, {"bf16": True, "activation_checkpointing": True, "lmbda": 1.0}),
        ("qwen3_5_text", torch.bfloat16, {"bf16": True}),
    ],
)
def test_bfloat16_on_a_cpu(tmp_path, family, weights, more):
    """As weights, as autocast, and both: each night is trained, judged and answers."""
    trainer = made(tiny_model(family).to(weights), tmp_path, TEXTS[:2], processing_class=tiny_tokenizer(), **more)
    trainer.train()
    assert len(trainer.nights) == 2 and ("gate" in more or all(night.kept for night in trainer.nights))
    assert all(parameter.dtype == torch.float32 for slot in (0, 1) for parameter in trainer.learner.bank.parameters(slot))
    assert isinstance(trainer.ask("who built the tower?", max_new_tokens=4), str)
