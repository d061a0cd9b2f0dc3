"""The command: help without heavy imports, one-line errors with exit code 2, and each subcommand on a tiny model."""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit import cli
from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank, read_bank_config
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.reporting.results import RunRecord

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of a tiny chat model."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def slept(base, tmp_path):
    """Output folder of a run: one trained expert."""
    model = tiny_model()
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=4))
    slot = bank.activate()
    for parameter in bank.parameters(slot):
        parameter.data += 0.5
    bank.save(tmp_path / "run" / "model", base_model=str(base))
    return tmp_path / "run"


def one_line(capsys):
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and shown.err.startswith("sleepkit: error: ")
    return shown.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--help", ("sleep", "ask", "report", "history", "expand")),
        ("ask --help", ("folder", "--compare", "example:")),
        ("report --help", ("FOLDER",)),
        ("expand --help", ("--slots", "--layers", "example:")),
        ("sleep --help", ("--config", "--dataset", "--expert_slots")),
    ],
)
def test_help(line, words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(line.split())
    shown = capsys.readouterr().out
    assert end.value.code == 0 and all(word in shown for word in words)


def test_help_does_not_import_torch():
    code = "import sys, sleepkit.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "a COMMAND is required"),
        ("slep", "unknown command 'slep'; did you mean sleep"),
        ("dream", "unknown command 'dream'; see"),
        ("ask", "required"),
        ("ask nowhere who", "nowhere holds no slept model"),
        ("ask nowhere who --max_new_tokens 0", "--max_new_tokens: '0' cannot be used; give a whole number of at least 1"),
        ("report nowhere", "cannot read nowhere/results.json"),
        ("expand nowhere out --layers some", "--layers is .'some'."),
        ("sleep --nights 2", "dataset is missing"),
        ("sleep --dataset nowhere.jsonl", "nowhere.jsonl does not exist"),
        ("sleep --config nowhere.yaml", "nowhere.yaml cannot be read"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(line, words, capsys):
    import re

    assert cli.main(line.split()) == 2
    assert re.search(words, one_line(capsys))


def test_the_version(capsys):
    from sleepkit import __version__

    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"sleepkit {__version__}\n"


@pytest.mark.parametrize("command", ["sleep", "ask", "report", "expand", "idsprites"])
def test_a_name_that_is_nearly_right(command, capsys):
    assert cli.main([command, "--tracback"]) == 2
    assert "unknown argument '--tracback'; did you mean --traceback?" in one_line(capsys)
    assert cli.main([command[:-1] + "x"]) == 2
    assert f"did you mean {command}" in one_line(capsys)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--verion", "unknown argument '--verion'; did you mean --version?"),
        ("ask run --comapre who", "unknown argument '--comapre'; did you mean --compare?"),
        ("ask run who --max_new_token 3", "did you mean --max_new_tokens?"),
        ("ask run who --max_new_tokens", "--max_new_tokens: expected one argument"),
        ("ask run who --max_new_tokens 1.5", "--max_new_tokens: '1.5' cannot be used; give a whole number of at least 1"),
        ("ask run who --max_new_tokens nan", "'nan' cannot be used"),
        ("ask run who --dtype int8", "--dtype: invalid choice: 'int8'"),
        ("ask run who --device_map gpu", "--device_map: invalid choice"),
        ("ask run who --load_in_4bit --load_in_8bit", "both given"),
        ("report", "required: FOLDER"),
        ("expand x", "required: folder"),
        ("expand x y --slots 0", "--slots: '0' cannot be used"),
        ("expand x y --width -1", "--width: '-1' cannot be used"),
        ("expand x y --layers", "--layers: expected at least one argument"),
        ("expand x y --layers -1", "--layers is ['-1']"),
        ("expand x /dev/null/y", "folder is '/dev/null/y', and /dev/null is not a folder"),
        ("idsprites --columns 0", "--columns: '0' cannot be used; give a whole number from 2 to 100"),
        ("idsprites --columns 1", "--columns: '1' cannot be used"),
        ("idsprites --image_size 100000", "--image_size: '100000' cannot be used; give a whole number from 16 to 1024"),
        ("idsprites --vertices 2 3", "--vertices: '2' cannot be used"),
        ("idsprites --vertices 5", "--vertices: expected 2 arguments"),
        ("idsprites --seed -1", "--seed: '-1' cannot be used"),
        (f"idsprites --seed {2**63}", "cannot be used"),
    ],
)
def test_more_errors_are_one_line(line, words, capsys):
    assert cli.main(line.split()) == 2
    assert words in one_line(capsys)


def test_other_ranks_of_a_machine_are_silent_and_interrupts_have_their_code(monkeypatch, capsys):
    def fail(error):
        raise error

    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.guard(lambda: fail(SleepkitError("no"))) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cli.guard(lambda: fail(SleepkitError("two\nlines"))) == 2
    assert "two lines" in one_line(capsys)
    assert cli.guard(lambda: fail(KeyboardInterrupt())) == 130


def test_the_recipe_script_reports_in_the_same_way(monkeypatch, capsys, tmp_path):
    spec = importlib.util.spec_from_file_location("recipe", ROOT / "recipes" / "sleep.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / "bad.yaml").write_text("dataset: x\nnigths: 1\n")
    monkeypatch.setattr(sys, "argv", ["sleep.py", "--config", str(tmp_path / "bad.yaml")])
    assert cli.guard(script.main) == 2
    assert "unknown key 'nigths'" in one_line(capsys)


def test_ask_once_and_from_a_pipe(slept, capsys, monkeypatch):
    assert cli.main(["ask", str(slept), "who", "is", "it", "--compare", "--max_new_tokens", "6"]) == 0
    before, after = capsys.readouterr().out.splitlines()[-2:]
    assert before.startswith("before sleep: ") and after.startswith("after sleep:  ")
    assert before.split(": ")[1].strip() != after.split(": ")[1].strip()
    monkeypatch.setattr(sys, "stdin", io.StringIO("who is it\n\nwho is it\n"))
    assert cli.main(["ask", str(slept / "model"), "--max_new_tokens", "6"]) == 0
    answers = capsys.readouterr().out.splitlines()
    assert answers == [after.removeprefix("after sleep:  ")] * 2


QUESTION = ["Who", "is", "it?"]


@pytest.mark.parametrize(
    "line",
    [
        "RUN --compare QUESTION",  # as README has it
        "RUN QUESTION --compare",
        "--compare RUN QUESTION",
        "RUN --max_new_tokens 3 QUESTION --compare",
        "RUN QUESTION --max-new-tokens 3 --compare",
        "RUN --compare -- QUESTION",
    ],
)
@pytest.mark.parametrize("words", [QUESTION, [" ".join(QUESTION)]])
def test_options_stand_anywhere(line, words, slept, capsys):
    typed = [one for word in line.split() for one in ({"RUN": [str(slept)], "QUESTION": words}.get(word) or [word])]
    assert cli.main(["ask", *typed]) == 0
    before, after = capsys.readouterr().out.splitlines()[-2:]
    assert before.startswith("before sleep: ") and after.startswith("after sleep:  ")


def test_the_tracebacks_of_any_command(capsys, tmp_path):
    for line in (["--traceback", "report", str(tmp_path)], ["report", str(tmp_path), "--traceback"], ["sleep", "--traceback"]):
        assert cli.main(line) == 2
        said = capsys.readouterr().err
        assert "Traceback" in said and said.splitlines()[-1].startswith("sleepkit: error: ")


def test_a_question_that_is_no_text(slept, capsys, monkeypatch):
    assert cli.main(["ask", str(slept), "who\udc80"]) == 2
    assert "question is 'who\\udc80', which has bytes that are no text" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"who\xff?\n"), encoding="utf-8"))
    assert cli.main(["ask", str(slept)]) == 2
    assert "no text in UTF-8" in capsys.readouterr().err.splitlines()[-1]


def test_ask_says_when_the_base_model_is_gone_or_another(slept, base, capsys, tmp_path):
    tiny_model(num_hidden_layers=2).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    assert cli.main(["ask", str(slept), "who", "--model", str(tmp_path / "other")]) == 2
    assert "load them into the model they were grown on" in capsys.readouterr().err
    assert cli.main(["ask", str(slept), "who", "--model", str(tmp_path / "gone")]) == 2
    assert "cannot load" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if"), "the chat template of"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"), "cannot load"),
        (
            lambda folder: tiny_model(vocab_size=32, eos_token_id=1).save_pretrained(folder),
            "token ids up to 63, the model has 32",
        ),
        (lambda folder: tiny_model(eos_token_id=5).save_pretrained(folder), "generation stops at [5]"),
    ],
    ids=["template", "truncated", "vocabulary", "end"],
)
def test_models_that_would_spoil_a_night_are_refused(spoil, words, tmp_path, capsys):
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    spoil(tmp_path / "model")
    assert cli.main(["expand", str(tmp_path / "model"), str(tmp_path / "grown")]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("sleepkit: error: ") and words in shown
    assert not (tmp_path / "grown").exists()


def test_expand(base, tmp_path, capsys):
    line = [
        "expand",
        str(base),
        str(tmp_path / "grown"),
        "--slots",
        "3",
        "--width",
        "4",
        "--layers",
        "1",
        "2",
        "--kind",
        "ungated",
    ]
    assert cli.main(line) == 0
    assert "3 experts in 2 layers" in capsys.readouterr().out
    saved = read_bank_config(tmp_path / "grown")
    assert (saved["base_model"], saved["layers"], saved["active"]) == (str(base), [1, 2], [])
    assert saved["config"]["kind"] == "ungated"
    ExpertBank.load(tiny_model(), tmp_path / "grown")


def test_report_of_one_run_of_seeds_and_of_several(tmp_path, capsys):
    for method, seed in (("knowledge_seeding", 0), ("knowledge_seeding", 1), ("lora", 0)):
        folder = tmp_path / method / f"seed_{seed}"
        RunRecord(method, seed, metrics={"recovery": 0.5 + seed / 10}).save(folder)
    assert cli.main(["report", str(tmp_path / "lora" / "seed_0")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "lora" / "seed_0" / name) for name in ("report.md", "report.html")]
    assert cli.main(["report", str(tmp_path / "knowledge_seeding"), str(tmp_path / "lora" / "seed_0")]) == 0
    table = capsys.readouterr().out
    assert "| knowledge_seeding | 2 | 0.550 ± 0.071 |" in table and "| lora | 1 | 0.500 |" in table
