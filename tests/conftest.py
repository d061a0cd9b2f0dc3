"""Puts this folder on the import path, so that every test can use `tiny`."""

import gc


def pytest_collection_finish():
    """Every Trainer collects garbage; without this it would go through all that the imports have left, each time."""
    gc.freeze()
