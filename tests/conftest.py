"""Puts this folder on the import path, so that every test can use `tiny`, and keeps the tests to themselves."""

import gc
import os

import pytest

REPLY_TOKENS = 6


def pytest_collection_finish():
    """Every Trainer collects garbage; without this it would go through all that the imports have left, each time."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_extensions(tmp_path_factory):
    """DeepSpeed compiles an operation; a process killed meanwhile leaves a lock on which all later ones wait for ever.

    The workers of pytest-xdist share what is compiled.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder / "extensions"))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_replies():
    """Replies to the general prompts that are measured before and after each night: of tiny models most of a night's time."""
    from sleepkit.language.retention import RetentionSet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RetentionSet.__init__, "__defaults__", (REPLY_TOKENS, *RetentionSet.__init__.__defaults__[1:]))
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of runs that look at something else than pictures."""
    from drawing import draw_nothing

    draw_nothing(monkeypatch)


@pytest.fixture
def undoing(monkeypatch):
    """A gate that undoes every night: a divergence of random models is rounding, and a limit of 0 would go by its sign."""
    from sleepkit.cycle.gate import RetentionGate, Verdict

    monkeypatch.setattr(RetentionGate, "decide", lambda *_: Verdict(False, "of a test"))
