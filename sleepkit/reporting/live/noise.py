"""Quiet libraries: what they warn, log or draw while a run works is not for its reader, and hides what is.

Errors still pass.  Warnings of our own are shown, each once.  Somebody who asks a library to speak (TRANSFORMERS_VERBOSITY,
PYTHONWARNINGS) hears it.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

__all__ = ["hush_late", "quiet"]

LIBRARIES = (
    *("transformers", "trl", "accelerate", "datasets", "peft", "diffusers", "huggingface_hub", "torch"),
    *("evaluate", "matplotlib", "fsspec", "filelock", "httpx", "trackio", "tensorboard", "tensorflow", "absl"),
)
LATE = ("DeepSpeed",)  # are imported by others when they please, and then set their own level
OURS = "sleepkit"


@contextmanager
def quiet(say: Callable[[str], None]) -> Iterator[None]:
    """Let libraries show errors alone inside the block, and ``say`` show each warning of ours once."""
    with ExitStack() as stack:
        stack.enter_context(_loggers())
        stack.enter_context(_bars())
        stack.enter_context(_own_warnings(say))
        if not sys.warnoptions:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield


def hush_late() -> None:
    """Let libraries that set their own level when somebody imports them show errors alone, from now on."""
    for name in LATE:
        logging.getLogger(name).addFilter(_is_error)  # a second time changes nothing


@contextmanager
def _loggers() -> Iterator[None]:
    import datasets  # noqa: F401  both set their own level when they are imported first
    import transformers.utils.logging  # noqa: F401

    names = [name for name in LIBRARIES if not os.environ.get(f"{name.upper()}_VERBOSITY")]
    found = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    hush_late()
    late = "diffusers" in names and "diffusers" not in sys.modules  # it is imported by the runs that need it
    if late:
        os.environ["DIFFUSERS_VERBOSITY"] = "error"
    try:
        yield
    finally:
        if late:
            del os.environ["DIFFUSERS_VERBOSITY"]
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextmanager
def _bars() -> Iterator[None]:
    """Progress bars of libraries: they would stand between our lines, and are full of control characters in a log."""
    import datasets.utils
    import huggingface_hub.utils
    from transformers.utils import logging as transformers

    modules: list[Any] = [datasets.utils, huggingface_hub.utils]
    switched = [module for module in modules if not module.are_progress_bars_disabled()]
    was_on = transformers.is_progress_bar_enabled()
    transformers.disable_progress_bar()  # that of the Hub, too
    for module in switched:
        module.disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            transformers.enable_progress_bar()
        for module in switched:
            module.enable_progress_bars()


class _Once(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.say, self.seen = say, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.seen:
            self.seen.add(text)
            self.say(f"{record.levelname.lower()}: {text}")


@contextmanager
def _own_warnings(say: Callable[[str], None]) -> Iterator[None]:
    handler = _Once(say)
    logger = logging.getLogger(OURS)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
