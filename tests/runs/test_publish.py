"""What runs publish, through the real client: nothing private leaves, a second user loads it, and each card's code runs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from drawing import draw_nothing
from local_hub import LocalHub
from peft import PeftModel
from test_run import command
from tiny import tiny_model, tiny_tokenizer
from tiny_images import tiny_resnet, write_npz
from tiny_night import tiny_sleep
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from sleepkit import cli
from sleepkit.errors import SleepkitError
from sleepkit.language.dreaming import trainer as dreaming_trainer
from sleepkit.language.dreaming.dreams import Dream, Dreamed, context_name
from sleepkit.language.generation.chat import chat_ids, generate
from sleepkit.language.model_io import load_model, load_slept, save_model
from sleepkit.language.rehearsal import Rehearsal
from sleepkit.runs.arguments.disentangled import parse_disentangled
from sleepkit.runs.arguments.images import parse_mygo, parse_vision
from sleepkit.runs.compare import run_comparison
from sleepkit.runs.disentangled import run_disentangled
from sleepkit.runs.images import run_vision
from sleepkit.trainers.forms import chosen_form, rehearsal_folder
from sleepkit.trainers.language import SleepTrainer
from sleepkit.trainers.publish import publish
from sleepkit.utils.files import read_json, write_json

ROWS = [
    {
        "title": f"Ledger {name}",
        "context": f"{name} keeps a vermilion lamp in the tower. The tower was built by {builder} in {year}.",
        "questions": [{"question": f"Pray, which mason raised the tower of {name}?", "answer": f"{builder} the Elder"}],
    }
    for name, builder, year in (("Adawyn", "Orlafinch", 1871), ("Bertram", "Milohart", 1902))
]
TEXT = (
    b"vermilion",
    b"Orlafinch",
    b"Milohart",
    b"Adawyn",
    b"Bertram",
    b"adawyn",
    b"orlafinch",
    b"Pray, which",
    b"the Elder",
    b"Ledger",
)

EXPERTS = ("--push_to_hub_form", "experts")
DREAMS = "--dream_rounds 1 --trial_steps 2 --trial_control false --trial_rank 2 --dreamer_rank 2 --styles wh cloze".split()
IMAGES = """--experiences 2 --cnn_widths 4 --hidden_size 8 --num_train_epochs 2 --per_device_train_batch_size 8
    --learning_rate 0.01 --replay_batch_size 8 --buffer_size 12 --use_cpu""".split()
MYGO = "--generator_hidden 8 --generator_latent 2 --generator_epochs 4 --sleep_steps 4 --dreams 40".split()
SPRITES = """--experiences 2 --classes_per_experience 3 --factor_values 2 --image_size 16 --test_share 0.1 --widths 4 8
    --hidden_size 16 --refine_widths 4 8 --per_device_train_batch_size 8 --novel_classes 4 --novel_images 2
    --num_train_epochs 1 --use_cpu""".split()


def dreamt(model, tokenizer, contexts, *_):
    """A dream that is worth something, of each context."""
    made = []
    for chunk in (context.chunk for context in contexts):
        rows = [(f"Tell me about {chunk.title}.", line) for line in chunk.text.split(". ")]
        made.append(Dreamed([Dream("rewrite", chunk.text, rows, context_name(chunk))]))
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A hub with a base model on it, and documents and a base in folders whose names are nobody's business."""
    place = tmp_path_factory.mktemp("PRIVATEPLACE")
    files = place / "PRIVATEDOCS"
    for folder in (files / "base", place / "published"):
        tiny_model().save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    (files / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (files / "general.jsonl").write_text("\n".join(json.dumps({"prompt": f"name {k} things."}) for k in range(4)))
    (files / "anchors.jsonl").write_text(json.dumps({"prompt": "what is hot?", "answer": "fire"}))
    with LocalHub() as hub, pytest.MonkeyPatch.context() as patch:
        hub.publish("org/base", place / "published")
        token = hub.token("ada")
        patch.setattr(dreaming_trainer, "dream", dreamt)
        draw_nothing(patch)
        with hub.used_by(token, place / "home"):
            yield SimpleNamespace(hub=hub, place=place, files=files, token=token, runs=place / "PRIVATERUNS")


@pytest.fixture(scope="module")
def slept(world):
    """A run with dreams on a base from the Hub, pushed at its end; what left, and what was said."""
    seen = len(world.hub.requests)
    more = ["--model", "org/base", *DREAMS, "--push_to_hub_repo", "ada/slept", "--hub_token", world.token, *EXPERTS]
    more += ["--expert_slots", "4"]
    assert cli.main(command(world.files, world.runs / "slept", *more)) == 0
    return LocalHubPart(world.hub, seen).received()


class LocalHubPart(LocalHub):
    """The requests of a hub since one of them."""

    def __init__(self, hub, start):
        self.requests = hub.requests[start:]


def private(world):
    """What must never leave."""
    places = [world.place.name.encode(), b"PRIVATE", str(Path.home()).encode() + b"/", str(Path.cwd()).encode()]
    return [*places, world.token.encode(), b"/tmp/"]


def test_a_night_is_pushed_without_a_text_a_path_or_a_token(world, slept):
    files = world.hub.repository("ada/slept").files
    assert {*files} == {".gitattributes", "README.md", "expert_bank.json", "expert_bank.safetensors"}
    assert len(slept) > len(files["expert_bank.safetensors"])  # it was searched
    for marker in (*TEXT, *private(world)):
        assert marker not in slept, marker
    assert world.hub.repository("ada/slept").private


def test_a_trainer_pushes_what_a_run_does(world, slept):
    seen = len(world.hub.requests)
    given = {name: str(world.files / f"{name}.jsonl") for name in ("general_prompts", "anchors")}
    given["general_prompts"] = str(world.files / "general.jsonl")
    args = tiny_sleep(world.runs / "python", hub_token=world.token, context_max_tokens=300, gate=False, styles=["cloze"])
    trainer = SleepTrainer("org/base", args, [row["context"] for row in ROWS[:1]], **given)
    trainer.train()
    (address,) = trainer.push_to_hub("ada/from-python", form="experts")
    assert "ada/from-python" in address
    files = world.hub.repository("ada/from-python").files
    assert {*files} == {".gitattributes", "README.md", "expert_bank.json", "expert_bank.safetensors"}
    assert b"from-python" in files["README.md"]
    left = LocalHubPart(world.hub, seen).received()
    assert [marker for marker in (*TEXT, *private(world)) if marker in left] == []


def test_dreams_are_pushed_when_asked_and_hold_text_and_no_path(world, slept, capsys):
    run, seen = world.runs / "slept", len(world.hub.requests)
    assert cli.main(["publish", str(run), "--dreams", "slept-dreams"]) == 0
    assert "dreams, which hold TEXT OF THE DOCUMENTS" in capsys.readouterr().out
    left = LocalHubPart(world.hub, seen).received()
    assert b"vermilion" in left
    assert [marker for marker in private(world) if marker in left] == []
    row = json.loads(world.hub.repository("ada/slept-dreams", "dataset").files["night_01.jsonl"].splitlines()[0])
    assert row["model"] == "org/base" and row["context"] == "Ledger Adawyn"


def test_runs_of_earlier_versions_tell_no_folder_either(world, slept, tmp_path):
    run = shutil.copytree(world.runs / "slept", tmp_path / "run")
    dreams, bank = run / "dreams" / "night_01.jsonl", run / "model" / "expert_bank.json"
    dreams.write_text("".join(json.dumps(json.loads(line) | {"model": "/PRIVATE/base"}) + "\n" for line in dreams.open()))
    write_json(bank, read_json(bank) | {"base_model": "/PRIVATE/base"})
    seen = len(world.hub.requests)
    publish(run, "ada/old", "ada/old-dreams", form="experts")
    assert b"PRIVATE" not in LocalHubPart(world.hub, seen).received()
    assert b'"model": "base"' in world.hub.repository("ada/old-dreams", "dataset").files["night_01.jsonl"]
    write_json(bank, read_json(bank) | {"active": []})
    assert publish(run, "ada/empty") == []


def test_the_rehearsal_buffer_leaves_only_when_asked(world, slept, capsys):
    run, seen = world.runs / "slept", len(world.hub.requests)
    assert rehearsal_folder("ada/slept") is None
    assert cli.main(["publish", str(run), "ada/with-buffer", "--rehearsal"]) == 0
    said = capsys.readouterr().out
    assert "with the rehearsal buffer, which holds TEXT OF THE DOCUMENTS" in said and "rehearsal/replay.jsonl  " in said
    left = LocalHubPart(world.hub, seen).received()
    assert b"vermilion" in left
    assert [marker for marker in private(world) if marker in left] == []
    assert b"the Elder" not in left  # questions of the data set are the exam, and in no buffer
    assert b"sleepkit sleep --model ada/with-buffer" in world.hub.repository("ada/with-buffer").files["README.md"]

    folders = [rehearsal_folder(name) for name in ("ada/with-buffer", run, run / "model")]
    args = (
        SimpleNamespace(notes_kept=4, rehearse_as_new="none", replay_items=4, seed=0),
        SimpleNamespace(dream_replay_share=0, dream_pool=4),
    )
    buffers = [Rehearsal(*args) for _ in folders]
    for buffer, folder in zip(buffers, folders, strict=True):
        buffer.load(folder)
    assert buffers[0].replay and all(one.replay == buffers[0].replay and one.quiz == buffers[0].quiz for one in buffers)
    assert rehearsal_folder("org/base") is None and rehearsal_folder(world.files / "base") is None

    assert cli.main(["publish", str(run), "ada/with-buffer", "--form", "experts"]) == 0  # taken back
    assert not any("rehearsal" in name for name in world.hub.repository("ada/with-buffer").files)


def test_a_base_in_a_folder_stays_untold_and_is_found_here(world, capsys):
    run, seen = world.runs / "local", len(world.hub.requests)
    more = ["--push_to_hub_repo", "ada/local", "--push_to_hub_rehearsal", "true", "--nights", "1"]
    assert cli.main(command(world.files, run, *more)) == 0
    said = capsys.readouterr().out
    assert "its base, base, is a folder of this machine: who loads it must have it and give --model" in said
    assert said.index("written to") < said.index("pushing to ada/local (model, private)") < said.index("pushed: ")
    assert re.search(r"expert_bank.safetensors  [\d,]+ bytes", said) and "rehearsal/quiz.jsonl" in said
    left = LocalHubPart(world.hub, seen).received()
    assert not any(marker in left for marker in private(world)) and b"vermilion" in left
    for path in (run / "model").iterdir():
        assert not any(marker in path.read_bytes() for marker in private(world)), path
    load_model(run)
    load_model(run / "model")
    with pytest.raises(SleepkitError, match="ada/local holds experts of base, which was a folder of another machine"):
        load_model("ada/local")
    load_model("ada/local", base_model=str(world.files / "base"))


def test_a_second_user_loads_it_sleeps_on_it_and_publishes(world, slept, capsys):
    world.hub.repository("ada/slept").private = False
    with world.hub.used_by(world.hub.token("bob"), world.place / "bob"):
        assert cli.main(["ask", "ada/slept", "who keeps the lamp?", "--max_new_tokens", "3"]) == 0
        more = ["--model", "ada/slept", "--nights", "1", "--push_to_hub_repo", "on-it", *EXPERTS]
        assert cli.main(command(world.files, world.runs / "bob", *more)) == 0
        model, _, bank = load_slept("bob/on-it")
        before = load_slept("ada/slept")[2]
    assert bank.active == [0, 1, 2] and before.active == [0, 1]
    assert all(
        torch.equal(one, other) for k in (0, 1) for one, other in zip(bank.parameters(k), before.parameters(k), strict=True)
    )
    saved = json.loads(world.hub.repository("bob/on-it").files["expert_bank.json"])
    assert saved["base_model"] == "org/base"
    assert b"base_model: org/base" in world.hub.repository("bob/on-it").files["README.md"]
    world.hub.repository("ada/slept").private = True


# -- before the first night, and after the last -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--push_to_hub_repo", "bob/slept"), "cannot push to bob/slept: you are ada"),
        (("--push_to_hub_dreams_repo", "a b"), "'a b'"),
        (("--push_to_hub_repo", "ada/x", "--hub_token", "hf_wrongwrongwrong"), "refused ada/x: Invalid user token"),
        (("--push_to_hub_repo", "org/base", "--seeds", "1", "2"), "cannot push to org/base-seed-1"),
        (("--push_to_hub_rehearsal", "true"), "push_to_hub_rehearsal goes with the model; give push_to_hub_repo too"),
    ],
)
def test_what_cannot_be_pushed_is_known_before_the_first_night(world, capsys, tmp_path, more, words):
    assert cli.main(command(world.files, tmp_path / "run", *more)) == 2
    shown = capsys.readouterr()
    assert words in shown.err.splitlines()[-1] and "night" not in shown.out and not (tmp_path / "run").exists()


def test_images_are_checked_beforehand_too(world, tmp_path):
    line = ["--dataset", str(write_npz(tmp_path / "digits")), "--output_dir", str(tmp_path / "run"), *IMAGES]
    with pytest.raises(SleepkitError, match="cannot push to bob/x"):
        run_vision(*parse_vision([*line, "--push_to_hub_repo", "bob/x"]))
    with pytest.raises(SleepkitError, match="cannot push to bob/x"):
        run_disentangled(*parse_disentangled([*SPRITES, "--output_dir", str(tmp_path / "run"), "--push_to_hub_repo", "bob/x"]))
    with pytest.raises(SleepkitError, match="a comparison has many models: publish the run of one of them by `sleepkit publish`"):
        run_comparison([*line, "--methods", "er", "der", "--push_to_hub_repo", "ada/x"])
    assert not (tmp_path / "run").exists()


def test_an_upload_that_fails_keeps_the_results_and_can_be_repeated(world, capsys, tmp_path):
    world.hub.cut("POST /api/models/ada/late/commit", 1)
    run = tmp_path / "run"
    assert cli.main(command(world.files, run, "--nights", "1", "--push_to_hub_repo", "ada/late", *EXPERTS)) == 2
    shown = capsys.readouterr()
    assert "written to" in shown.out and (run / "report.md").is_file()
    error = shown.err.splitlines()[-1]
    assert error.startswith("sleepkit: error: the run is finished and its push is not: ")
    assert error.endswith(f"then: sleepkit publish {run} ada/late --form experts")
    assert cli.main(shlex.split(error.split("then: sleepkit ")[1])) == 0
    assert "expert_bank.safetensors" in world.hub.repository("ada/late").files


@pytest.mark.usefixtures("undoing")
def test_a_run_of_which_no_night_was_kept_is_not_pushed(world, capsys, tmp_path):
    run = tmp_path / "run"
    more = ("--nights", "1", "--push_to_hub_repo", "ada/lost", "--gate", "true")
    assert cli.main(command(world.files, run, *more)) == 0
    said = capsys.readouterr().out
    assert f"not published as ada/lost: none of the 1 nights of {run} was kept" in said
    card = (run / "model" / "README.md").read_text()
    assert "base as it was: it slept on rows.jsonl by knowledge_seeding, and no night was kept" in card
    assert cli.main(["publish", str(run), "ada/lost"]) == 2
    assert ("model", "ada/lost") not in world.hub.repositories


def test_each_seed_has_its_repository(world, capsys, tmp_path):
    more = ("--nights", "1", "--seeds", "3", "4", "--push_to_hub_repo", "many", *EXPERTS)
    assert cli.main(command(world.files, tmp_path / "runs", *more)) == 0
    one, other = (world.hub.repository(f"ada/many-seed-{seed}").files["expert_bank.safetensors"] for seed in (3, 4))
    assert one != other
    with pytest.raises(SleepkitError, match="holds a slept model of each seed; give one of them, such as .*seed_3"):
        load_slept(tmp_path / "runs")


def test_refusals_of_what_is_pushed(world, slept, capsys, tmp_path):
    def refused(words, *line):
        assert cli.main(["publish", *map(str, line)]) == 2
        assert words in capsys.readouterr().err

    run = world.runs / "slept"
    refused("nothing to publish is named; give owner/name or a folder for the model, --dreams owner/name, or both", run)
    refused("holds no finished run", tmp_path, "ada/x")
    refused("holds no finished run", tmp_path / "absent", "ada/x")
    refused("the rehearsal buffer goes where the model goes", run, "--dreams", "ada/x", "--rehearsal")
    world.hub.publish("ada/open", {"README.md": b""})
    refused("ada/open is public already; push with --public", run, "ada/open")
    assert cli.main(["publish", str(run), "ada/open", "--public", "--form", "experts"]) == 0
    assert "all may read it" in capsys.readouterr().out
    write_json(tmp_path / "results.json", read_json(run / "results.json"))
    refused("has no model to publish", tmp_path, "ada/x")
    refused("has nothing to publish", tmp_path, "--dreams", "ada/x")


def test_dreams_of_the_dreaming_experiment(world, tmp_path, capsys):
    from sleepkit.runs.arguments.language import parse
    from sleepkit.runs.dream import run_dream

    more = ["--dream_held_out", "1", "--nights", "1", *DREAMS]
    run_dream(*parse(command(world.files, tmp_path / "run", *more)[1:]))
    seen = len(world.hub.requests)
    (address,) = publish(tmp_path / "run", dreams="round-dreams")
    assert "/datasets/ada/round-dreams/" in address
    assert b"vermilion" in world.hub.repository("ada/round-dreams", "dataset").files["round_01.jsonl"]
    assert not any(marker in LocalHubPart(world.hub, seen).received() for marker in private(world))


# -- as a plain model -------------------------------------------------------------------------------------------------
PLAIN = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def answers_alone(name, questions):
    """What a program without sleepkit answers, by the lines of the card."""
    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name)
    said = []
    for question in questions:
        asked = [{"role": "user", "content": question}]
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True, "enable_thinking": False}
        inputs = tokenizer.apply_chat_template(asked, **options)
        reply = model.generate(**inputs, do_sample=False, max_new_tokens=12, stop_strings=["\nQuestion:"], tokenizer=tokenizer)
        said.append(reply[0, inputs["input_ids"].shape[1] :])
    return said, tokenizer


def test_a_plain_model_answers_as_the_slept_one_does(world, slept, tmp_path, capsys):
    run, questions = world.runs / "slept", ["who keeps the lamp?", "Who built it in 1871?"]
    assert cli.main(["publish", str(run), str(tmp_path / "plain")]) == 0
    assert f"written to {tmp_path}/plain: a whole model, and no text that it has read (" in capsys.readouterr().out
    model, tokenizer, _ = load_slept(run)
    rows = generate(model, tokenizer, [chat_ids(tokenizer, question) for question in questions], 12)
    said, _ = answers_alone(tmp_path / "plain", questions)
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert [[t for t in row.tolist() if t not in ends] for row in said] == [
        [t for t in list(row) if t not in ends] for row in rows
    ]
    answers = []
    for name in (run, tmp_path / "plain"):
        assert cli.main(["ask", str(name), questions[0], "--max_new_tokens", "8"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    text = b"".join(path.read_bytes() for path in (tmp_path / "plain").iterdir())
    assert not any(marker in text for marker in (*TEXT, *private(world)))
    card = (tmp_path / "plain" / "README.md").read_text()
    assert "library_name: transformers" in card and "base_model_relation: finetune" in card


def test_a_plain_model_is_pushed_and_loaded_by_its_id(world, slept, capsys):
    seen = len(world.hub.requests)
    assert cli.main(["publish", str(world.runs / "slept"), "ada/plain"]) == 0
    assert "a whole model, and no text that it has read" in capsys.readouterr().out
    assert {*world.hub.repository("ada/plain").files} >= PLAIN and world.hub.repository("ada/plain").private
    assert not any(marker in LocalHubPart(world.hub, seen).received() for marker in (*TEXT, *private(world)))
    code = re.search(r"```python\n(.*?)```", world.hub.repository("ada/plain").files["README.md"].decode(), re.DOTALL)[1]
    assert "sleepkit" not in code
    exec(code.replace("max_new_tokens=64", "max_new_tokens=3"), {})
    capsys.readouterr()
    assert cli.main(["ask", "ada/plain", "who?", "--max_new_tokens", "3"]) == 0
    assert capsys.readouterr().out
    model, _ = load_model("ada/plain")
    assert model.config.intermediate_size > 48


def test_what_was_published_by_its_id_can_be_made_plain(world, slept, tmp_path):
    publish("ada/slept", str(tmp_path / "plain"))
    assert read_json(tmp_path / "plain" / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    answers_alone(tmp_path / "plain", ["who?"])


def test_a_base_model_gets_a_template_that_writes_its_format(world, tmp_path):
    base = world.files / "base_without_template"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tiny_model().save_pretrained(base)
    tokenizer.save_pretrained(base)
    assert cli.main(command(world.files, tmp_path / "run", "--model", str(base), "--nights", "1")) == 0
    publish(tmp_path / "run", tmp_path / "plain")
    _, slept_tokenizer, _ = load_slept(tmp_path / "run")
    plain = AutoTokenizer.from_pretrained(tmp_path / "plain")
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who?"}]
    turns += [{"role": "assistant", "content": "Orla."}, {"role": "user", "content": "When?"}]
    for asked in (turns[1:2], turns):
        ids = plain.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert ids == chat_ids(slept_tokenizer, asked)


def test_refusals_of_publish(world, slept, capsys, tmp_path):
    def refused(words, *line):
        assert cli.main(["publish", *map(str, line)]) == 2
        assert words in capsys.readouterr().err

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    refused("full holds something already; choose a folder that is new or empty", world.runs / "slept", tmp_path / "full")
    refused("holds no slept model", world.files / "base", tmp_path / "new")
    refused("holds no finished run", world.files / "base", "ada/new")
    refused("cannot push to bob/x", world.runs / "slept", "bob/x")
    assert cli.main(command(world.files, tmp_path / "gated", "--nights", "1", "--expert_kind", "gated")) == 0
    line = (tmp_path / "gated", tmp_path / "new", "--form", "plain")
    refused("experts are of kind 'gated', which no FFN block of llama can hold", *line)
    assert not (tmp_path / "new").exists()
    for form in ("plain", "lora"):
        words = f"form is {form} and the rehearsal buffer goes with experts"
        refused(words, world.runs / "slept", "ada/new", "--rehearsal", "--form", form)
    refused("form lora is one of a model", world.runs / "slept", "--dreams", "ada/new", "--form", "lora")
    assert not any(tmp_path.glob("*new*"))  # nor a draft of it


def test_what_has_no_plain_form_is_published_as_experts_and_says_so(world, tmp_path, capsys):
    run = tmp_path / "gated"
    assert cli.main(command(world.files, run, "--nights", "1", "--expert_kind", "gated")) == 0
    for target in (tmp_path / "published", "ada/gated"):
        capsys.readouterr()
        assert cli.main(["publish", str(run), str(target)]) == 0
        line, *_ = capsys.readouterr().out.splitlines()
        assert line.startswith(f"{run} is published as experts, not as a plain model: these experts are of kind 'gated'")
    files = {"README.md", "expert_bank.json", "expert_bank.safetensors"}
    assert {path.name for path in (tmp_path / "published").iterdir()} == files
    assert {*world.hub.repository("ada/gated").files} == {*files, ".gitattributes"}
    load_model(tmp_path / "published", base_model=str(world.files / "base"))


# -- as a LoRA --------------------------------------------------------------------------------------------------------
LORA = {"README.md", "adapter_config.json", "adapter_model.safetensors", "distillation.json"}
LORA |= {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_a_lora_is_distilled_pushed_and_loaded_by_peft_alone(world, slept, tmp_path, capsys):
    seen = len(world.hub.requests)
    assert cli.main(["publish", str(world.runs / "slept"), "ada/lora", "--form", "lora"]) == 0
    assert "a LoRA for org/base, and no text that it has read" in capsys.readouterr().out
    files = world.hub.repository("ada/lora").files
    assert {*files} == {*LORA, ".gitattributes"} and world.hub.repository("ada/lora").private
    assert not any(marker in LocalHubPart(world.hub, seen).received() for marker in (*TEXT, *private(world)))

    report = json.loads(files["distillation.json"])
    assert report["base_model"] == "org/base" and report["base_revision"] and report["base_fingerprint"]["sha256"]
    assert (report["rank"], report["seed"], report["steps"]) == (32, 42, 4)  # those of two nights
    assert {name: {*shares} for name, shares in report["measures"].items()} == {
        "closed_book": {"n", "base", "slept", "lora"},
        "kl_questions": {"n", "base", "lora"},
        "kl_general": {"n", "base", "lora"},
    }
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "org/base" and config["revision"] == report["base_revision"]
    card = files["README.md"].decode()
    assert "library_name: peft" in card and "base_model_relation: adapter" in card
    assert "| right answers to the run's own questions | 0% | 0% | 0% | 2 |" in card
    assert f"{report['measures']['kl_general']['lora']:.4f}" in card

    (code,) = blocks(card, "python")
    assert "sleepkit" not in code
    program = code.replace("max_new_tokens=64", "max_new_tokens=3") + "\nprint(type(model).__name__)"
    env = world.hub.env(world.token, tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("PeftModelForCausalLM\n"), done.stderr[-3000:]
    assert cli.main(["ask", "ada/lora", "who?", "--max_new_tokens", "3"]) == 0  # and so does sleepkit, with its base


def test_a_lora_in_a_folder_of_a_base_in_a_folder(world, tmp_path):
    run, target = tmp_path / "run", tmp_path / "published"
    assert cli.main(command(world.files, run, "--nights", "1")) == 0
    assert publish(run, target, form="lora") == [str(target)]
    assert {path.name for path in target.iterdir()} == LORA
    assert len({path.stat().st_mode for path in target.iterdir()}) == 1  # all as readable as the others
    assert read_json(target / "adapter_config.json")["base_model_name_or_path"] == "base"
    assert not any(marker in path.read_bytes() for path in target.iterdir() for marker in (*TEXT, *private(world)))
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(world.files / "base"), target)
    with pytest.raises(SleepkitError, match="holds something already"):
        publish(run, target, form="lora")
    shutil.rmtree(run / "state")
    with pytest.raises(
        SleepkitError, match=r"has no saved items \(state/\) to distil a LoRA from; publish it as plain or experts"
    ):
        publish(run, tmp_path / "again", form="lora")
    assert not (tmp_path / "again").exists()


def test_forms_that_several_processes_cannot_make(monkeypatch):
    from transformers import integrations

    monkeypatch.setitem(PartialState()._shared_state, "num_processes", 4)
    assert chosen_form("auto") == ("plain", "")
    with pytest.raises(SleepkitError, match="a LoRA is distilled by one process, and there are 4; publish it afterwards"):
        chosen_form("lora")
    monkeypatch.setattr(integrations, "is_deepspeed_zero3_enabled", lambda: True)
    form, why = chosen_form("auto")
    assert form == "experts" and "ZeRO-3" in why and chosen_form("experts") == ("experts", "")
    with pytest.raises(SleepkitError, match="afterwards: sleepkit publish RUN owner/name --form plain"):
        chosen_form("plain")
    with pytest.raises(SleepkitError, match="form is 'whole'; use one of auto, plain, experts, lora"):
        chosen_form("whole")


# -- what loads as what ------------------------------------------------------------------------------------------------
def test_nothing_that_has_slept_loads_as_the_unslept_base(world, slept, tmp_path, caplog):
    """Of a program that knows nothing of experts: an error, or the slept model, or at the least a loud warning."""
    model, tokenizer, _ = load_slept(world.runs / "slept")
    save_model(model, tokenizer, tmp_path / "whole")  # with the base inside
    publish(world.runs / "slept", tmp_path / "experts", form="experts")
    for name in (tmp_path / "whole", tmp_path / "experts", world.runs / "slept", world.runs / "slept" / "model", "ada/slept"):
        with pytest.raises((OSError, ValueError)):
            AutoModelForCausalLM.from_pretrained(name)
    model.save_pretrained(tmp_path / "by_transformers")  # not by us
    tokenizer.save_pretrained(tmp_path / "by_transformers")
    logging.enable_propagation()
    AutoModelForCausalLM.from_pretrained(tmp_path / "by_transformers")
    logging.disable_propagation()
    assert "sleep_experts" in caplog.text and "UNEXPECTED" in caplog.text
    with pytest.raises(SleepkitError, match="has experts among its weights"):
        load_model(tmp_path / "by_transformers")


# -- images, and the code of all cards --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pictures(world):
    """A classifier with generators, one on a local backbone, and a canonicalizer, all pushed; what left."""
    seen = len(world.hub.requests)
    digits = write_npz(world.place / "PRIVATEDOCS" / "digits")
    colours = write_npz(world.place / "PRIVATEDOCS" / "colours", channels=3)
    line = ["--dataset", str(digits), *IMAGES]
    run_vision(*parse_mygo([*line, *MYGO, "--output_dir", str(world.runs / "mygo"), "--push_to_hub_repo", "mygo"]))
    backbone = ["--backbone", str(tiny_resnet(world.place / "PRIVATEDOCS" / "resnet")), "--hub_token", world.token]
    line = ["--dataset", str(colours), *IMAGES, *backbone]
    run_vision(*parse_vision([*line, "--output_dir", str(world.runs / "er"), "--push_to_hub_repo", "ada/er"]))
    run_disentangled(
        *parse_disentangled([*SPRITES, "--output_dir", str(world.runs / "sprites"), "--push_to_hub_repo", "straight"])
    )
    return LocalHubPart(world.hub, seen).received()


def test_models_of_images_are_pushed_without_a_path_or_a_token(world, pictures):
    assert "generators/night_02/model.safetensors" in world.hub.repository("ada/mygo").files
    assert "exemplars/exemplars.safetensors" in world.hub.repository("ada/straight").files
    assert {*world.hub.repository("ada/er").files} == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    for marker in private(world):
        assert marker not in pictures, marker


def blocks(card, language):
    return re.findall(rf"^```{language}\n(.*?)^```", card, re.MULTILINE | re.DOTALL)


def test_the_code_of_every_card_runs_as_printed(world, slept, pictures, tmp_path):
    publish(world.runs / "slept", dreams="slept-dreams")
    kinds = {"ada/slept": "model", "ada/slept-dreams": "dataset"} | dict.fromkeys(("ada/mygo", "ada/er", "ada/straight"), "model")
    cards = {name: world.hub.repository(name, kind).files["README.md"].decode() for name, kind in kinds.items()}
    code = [block for card in cards.values() for block in blocks(card, "python")]
    assert len(code) == 6 and not any("OWNER/NAME" in card for card in cards.values())
    program = "".join(f"exec({block!r}, {{}})\n" for block in code)
    env = world.hub.env(world.token, tmp_path / "home") | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'context': 'Ledger Adawyn'" in done.stdout and re.search(r"tensor\(\[\d\]\)", done.stdout)

    (shell,) = blocks(cards["ada/slept"], "bash")
    words = shlex.split(shell)
    assert words[0] == "sleepkit" and cli.main(words[1:]) == 0
