"""Every block of Python in README and docs is run, and every example row is read; on tiny models, data and a Hub of one process.

The blocks of a page are run in their order, in one namespace, as a reader would run them.  What cannot be run here says so in the
line above it: ``<!-- not run: why -->``.  Names, ids and paths stay as they are printed: the folders of the pages are there, the
model is on the Hub of the test, and configurations are made with few steps.
"""

import ast
import dataclasses
import importlib
import importlib.util
import json
import re
import runpy
import sys

import pytest
from launch import ROOT
from local_hub import LocalHub
from tiny import tiny_model, tiny_tokenizer
from tiny_images import write_npz

from sleepkit.language.data.documents import load_experiences

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.+?) -->\n)?^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the id in the pages
CONFIGS = {
    "trl": ("SFTConfig",),
    "sleepkit": ("SleepConfig", "IncrementalTrainingConfig", "GenerativeReplayConfig", "Dream2LearnConfig", "DisentangledConfig"),
}
FEW = {
    **{"max_steps": 2, "use_cpu": True, "report_to": "none", "save_strategy": "no", "max_length": 64},
    **{"general_items": 2, "general_tokens": 4, "context_max_tokens": 300, "max_new_tokens": 4, "gate": False},
    **{
        "classes_per_experience": 2,
        "factor_values": 2,
        "novel_classes": 2,
        "novel_images": 1,
        "image_size": 16,
        "test_share": 0.2,
    },
    **{"sleep_steps": 2, "dreams": 4, "generator_epochs": 1, "judge_epochs": 1, "judged_dreams": 2, "validation_steps": 1},
}
NOTES = {
    "keepers.md": "The first keeper of Skarrowmere Light was Orla Finch. She kept it from 1871.",
    "bicycle.txt": "The red bicycle is in the barn.",
}


def code_of(page):
    """The blocks of a page: the number of the first line, the code, and why it is not run, if so."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start("code")].count("\n") + 1, m["code"], m["why"]) for m in BLOCK.finditer(text)]


def absent(code):
    """Names that a block imports from sleepkit and that are not there."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sleepkit":
            module = importlib.import_module(node.module)
            yield from (one.name for one in node.names if not hasattr(module, one.name))


def test_blocks_are_marked_alike():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert len(re.findall("^```python$", text, re.MULTILINE)) == len(re.findall("```python", text))
    assert "```py\n" not in text


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder with what the pages name, configurations of few steps, and a Hub with the model of the pages."""
    for name, text in NOTES.items():
        (tmp_path / "notes").mkdir(exist_ok=True)
        (tmp_path / "notes" / name).write_text(text)
    write_npz(tmp_path / "digits")
    write_npz(tmp_path / "runs" / "features")
    tiny_model(max_position_embeddings=4096).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    for module, names in CONFIGS.items():
        for name in names:
            made_of = getattr(importlib.import_module(module), name, None)
            if made_of is not None:
                few = {item.name: FEW[item.name] for item in dataclasses.fields(made_of) if item.name in FEW}
                monkeypatch.setattr(module + f".{name}", lambda of=made_of, few=few, **given: of(**{**given, **few}))
    monkeypatch.chdir(tmp_path)
    with LocalHub() as hub, hub.used_by(hub.token("me"), tmp_path / "home"):
        hub.publish(MODEL, tmp_path / "base")
        yield hub


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, reader):
    missing = sorted({name for _, code, _ in code_of(page) for name in absent(code)})
    if missing:
        pytest.skip(f"sleepkit has no {', '.join(missing)} yet")
    namespace = {"__name__": page.stem}
    for line, code, why in code_of(page):
        if why is None:
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


ROWS = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: ", ".join(json.loads(rows.splitlines()[0])))
def test_example_rows_are_read(rows, tmp_path):
    (tmp_path / "rows.jsonl").write_text(rows)
    found = load_experiences(tmp_path / "rows.jsonl")
    assert found and all(experience.documents for experience in found)


def test_the_configuration_page_is_up_to_date():
    written = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))["page"]()
    assert written == (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"), "run docs/make_configuration.py"


def test_the_new_places_of_modules_are_there():
    rows = re.findall(r"^\| `[\w.]+` \| `([\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 100
    assert [name for name in rows if not (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()] == []


def test_every_page_of_the_site_is_there():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = set(re.findall(r": ([\w/]+\.md)$", site, re.MULTILINE))
    assert pages == {"CHANGELOG.md", *(page.name for page in (ROOT / "docs").glob("*.md"))}


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed; `make docs` builds the site")
def test_the_site_is_built_without_a_broken_link(tmp_path, monkeypatch):
    from mkdocs.__main__ import cli

    monkeypatch.setattr(sys, "argv", ["mkdocs"])
    with pytest.raises(SystemExit) as done:
        cli(["build", "--strict", "--quiet", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(tmp_path)])
    assert done.value.code == 0
