"""Writes docs/configuration.md from the `--help` of every recipe and command, so that no option is described twice.

    python docs/make_configuration.py            `make docs` runs it before it builds the site; a test compares

Each parser is asked for its help, and its options are written as tables, one for each titled group.
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sleepkit import cli
from sleepkit.runs.arguments.command_line import Parser

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """\
# Configuration

<!-- Written by docs/make_configuration.py from the help of the options; edit that, not this. -->

A run is configured by the fields of a few dataclasses. The same names are used everywhere:

| where | how |
| --- | --- |
| Python | `SleepConfig(output_dir="runs/notes", num_train_epochs=4)` |
| command line | `sleepkit sleep --dataset notes/ --output_dir runs/notes --num_train_epochs 4` |
| recipe, a flat YAML file | `num_train_epochs: 4`, read with `--config recipe.yaml` |

The command line overrides a recipe.

`--num-train-epochs` is accepted beside `--num_train_epochs`, and `--gate false` or `--no_gate` for a switch. An unknown name, a
value of the wrong type or a value out of range ends the command with one line that names the option and the remedy. The fields
of `transformers.TrainingArguments` that mean something in a night are accepted too (`--bf16`, `--use_cpu`, `--report_to trackio`,
...); those that would do something else than their name says are refused, and the message says what to use instead.

`None` stands for an option that is not given.
"""
UNTITLED = ("options", "positional arguments")  # as argparse calls its own groups
HIDDEN = ("help", "help_all", "config", "traceback")


class _Caught(BaseException):
    """Carries the parser whose help was asked for; no `Exception`, which a command would turn into a line."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


RECIPES = (  # title, file, the recipe whose options are not listed again
    ("A night of a language model", "sleep", None),
    ("Baselines of a night", "text_baseline", "sleep"),
    ("Dreaming", "dream", "sleep"),
    ("ARC-AGI", "arc", "sleep"),
    ("Images: a method on a stream", "vision_baseline", None),
    ("Images: MyGO", "mygo", "vision_baseline"),
    ("Images: Dream2Learn", "dream2learn", "vision_baseline"),
    ("Images: disentangled learning", "disentangled", "vision_baseline"),
    ("Images: a stream as files", "sprites_data", "disentangled"),
    ("A small diffusion model", "train_tiny_diffusion", "vision_baseline"),
    ("Texts as features", "text_features", None),
    ("A context longer than the window", "long_context_data", None),
)


def parsers() -> Iterator[tuple[str, str, Parser, Sequence[str]]]:
    """Title, introduction and parser of each recipe and command, and the options that an earlier table has."""
    listed: dict[str | None, list[str]] = {None: []}
    for title, recipe, before in RECIPES:
        parser = caught(lambda recipe=recipe: run_recipe(recipe))
        listed[recipe] = visible(parser)
        same = f" Options of `recipes/{before}.py` that it also takes are not listed again." if before else ""
        also = " The command `sleepkit sleep` is the same." if recipe == "sleep" else ""
        yield title, f"`recipes/{recipe}.py`: {described(parser)}{also}{same}", parser, listed[before]
    for name in cli.COMMANDS:
        if name != "sleep":
            parser = caught(lambda name=name: cli.main([name, "--help"]))
            known = [one for one in listed["sleep"] if one != "model"] if name in ("chat", "serve") else ()
            same = " All options of `sleepkit sleep` that say how a night is are its options too." if known else ""
            yield f"sleepkit {name}", f"{described(parser)}{same}", parser, known


def described(parser: Parser) -> str:
    """What the parser says that its command does, as Markdown."""
    return (parser.description or "").replace("<", "&lt;")


def run_recipe(recipe: str) -> None:
    """Ask a recipe for its help, as its file is run."""
    path = str(ROOT / "recipes" / f"{recipe}.py")
    with patch.object(sys, "argv", [path, "--help"]):
        runpy.run_path(path, run_name="configuration")["main"]()


def caught(ask: Callable[[], Any]) -> Parser:
    """The parser that would print its help."""

    def catch(parser: Parser, file: Any = None) -> None:
        raise _Caught(parser)

    with patch.object(Parser, "print_help", catch):
        try:
            ask()
        except _Caught as caught:
            return caught.parser
    raise AssertionError("no help was asked for")


def shown(parser: Parser) -> Iterator[tuple[str, list[argparse.Action]]]:
    """The titled groups of a parser with the options that its help lists."""
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if one.help != argparse.SUPPRESS and one.dest not in HIDDEN]
        if actions:
            yield group.title or "options", actions


def visible(parser: Parser) -> list[str]:
    """Names of the options that the help lists."""
    return [action.dest for _, actions in shown(parser) for action in actions]


def table(actions: Sequence[argparse.Action]) -> str:
    """Options as a Markdown table."""
    rows = [f"| `{name(action)}` | {default(action)} | {explained(action)} |" for action in actions]
    return "\n".join(("| option | default | |", "| --- | --- | --- |", *rows))


def name(action: argparse.Action) -> str:
    """The option as it is typed, or the name of an argument without one."""
    return action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)


def default(action: argparse.Action) -> str:
    """The default as it is written in a recipe."""
    value = action.default
    if not action.option_strings or value == "" or isinstance(value, bool) and action.nargs == 0 and not value:
        return ""
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    return f"`{str(getattr(value, 'value', value)).lower() if isinstance(value, bool) else getattr(value, 'value', value)}`"


def explained(action: argparse.Action) -> str:
    """The help, with the choices that it does not name itself."""
    said = (action.help or "").replace("%%", "%").replace("|", "\\|").replace("<", "&lt;").strip()
    said = said[:1].upper() + said[1:] + ("" if said.endswith((".", ")")) or not said else ".")
    choices = [str(getattr(one, "value", one)) for one in action.choices or ()]
    unnamed = [one for one in choices if not re.search(rf"\b{re.escape(one)}\b", said)]
    return f"{said} One of {', '.join(f'`{one}`' for one in choices)}." if unnamed else said


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, introduction, parser, known in parsers():
        parts.append(f"## {title}\n\n{introduction}\n")
        groups: dict[str, list[argparse.Action]] = {}
        for head, actions in shown(parser):
            head = "" if head in UNTITLED else f"### {head[:1].upper()}{head[1:]}\n\n"
            groups.setdefault(head, []).extend(one for one in actions if one.dest not in known)
        parts += [f"{head}{table(actions)}\n" for head, actions in groups.items() if actions]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
