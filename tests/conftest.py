"""Puts this folder on the import path, so that every test can use `tiny`, and keeps the tests to themselves."""

import gc

import pytest


def pytest_collection_finish():
    """Every Trainer collects garbage; without this it would go through all that the imports have left, each time."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_extensions(tmp_path_factory):
    """DeepSpeed compiles an operation; a process killed meanwhile leaves a lock on which all later ones wait for ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        yield
