"""What `import sleepkit` offers: names that editors and mypy know, each documented."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sleepkit

ROOT = Path(__file__).parents[1]


def typed_names():
    """Those of the block that type checkers read, each with its module."""
    tree = ast.parse((ROOT / "sleepkit" / "__init__.py").read_text())
    (block,) = (one for one in tree.body if isinstance(one, ast.If))
    return {alias.name: one.module for one in block.body for alias in one.names}


def test_what_is_typed_is_what_there_is():
    assert typed_names() == sleepkit._HOME
    for name, module in sleepkit._HOME.items():
        found = getattr(sleepkit, name)
        assert found.__module__.startswith("sleepkit.") and module.startswith("sleepkit."), name


def test_names_are_listed_without_heavy_imports():
    code = "import sys, sleepkit; print(*dir(sleepkit)); assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert {"SleepTrainer", "SleepConfig", "SleepCallback", "SleepCycle", "load_model", *sleepkit._HOME} <= set(listed)
    with pytest.raises(AttributeError, match="no attribute 'SleepTrainr'; dir"):
        sleepkit.SleepTrainr  # noqa: B018


@pytest.mark.parametrize("name", ["SleepTrainer", "SleepChat", "SleepConfig", "SleepCallback", "SleepSchedule"])
def test_classes_are_documented_with_arguments_and_an_example(name):
    doc = inspect.getdoc(getattr(sleepkit, name))
    for part in ("Args:", "Raises:", "Example:", ">>>"):
        assert part in doc, part


@pytest.mark.parametrize("name", ["train", "ask", "evaluate", "push_to_hub"])
def test_methods_are_documented(name):
    doc = inspect.getdoc(getattr(sleepkit.SleepTrainer, name))
    assert "Returns:" in doc and "Example:" in doc


@pytest.mark.slow
def test_mypy_finds_a_misspelt_name(tmp_path):
    (tmp_path / "user.py").write_text(
        "from sleepkit import SleepConfig, SleepTrainr\n\nargs = SleepConfig(output_dir='x')\nreveal_type(args.expert_slots)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "user.py"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=_environment()).stdout
    assert 'Module "sleepkit" has no attribute "SleepTrainr"; maybe "SleepTrainer"' in said
    assert 'Revealed type is "int"' in said or 'Revealed type is "builtins.int"' in said


def _environment():
    import os

    return {**os.environ, "MYPYPATH": str(ROOT)}
