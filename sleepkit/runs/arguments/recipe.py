"""Recipes: flat YAML files of options, read strictly.

    learning_rate: 5e-3
    styles: [question, wh]        a list; a single value is a list of one
    dataset_split: null           the value that an option has if it is left out, where that is no value

Each value must have the type of its option, so that nothing is taken for something else.  Read as in YAML 1.2: ``5e-3`` is a
number, ``010``, ``1:30`` and ``2024-01-15`` are texts.  Refused are keys that stand twice, tags, anchors and aliases, and TRL's
``env``, which would change the environment of the process.
"""

from __future__ import annotations

import re
import types
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.options import LARGEST, shown

__all__ = ["read_recipe", "typed"]

LARGEST_FILE = 2**20  # bytes; the longest recipe of ours has a thousand


class _Loader(yaml.SafeLoader):
    """Plain scalars of YAML 1.2, plus the words for truth values of 1.1; neither aliases nor double keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: anchors and aliases have no use in a recipe")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for k, key in enumerate(keys) if key in keys[:k]]
        if twice:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice")
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The options of a recipe, as they stand there.

    Raises:
        SleepkitError: not a readable text file, not YAML, not a flat mapping with a name before each value, or a key twice.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise SleepkitError(f"{path} has more than a megabyte; give a YAML recipe")
        found = yaml.load(content.decode("utf-8-sig"), _Loader)
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        if isinstance(error, RecursionError):
            raise SleepkitError(f"{path} is nested too deeply; a recipe is a flat list of `field: value`") from None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise SleepkitError(f"{path} cannot be read ({reason}); give a YAML recipe") from None
    except SleepkitError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise SleepkitError(f"{path} is not YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise SleepkitError(f"{path} is not a flat mapping of fields; write one `field: value` per line")
    if "env" in found:
        raise SleepkitError(f"{path} has an unknown key 'env'; set environment variables in the shell, before the command")
    return found


def typed(name: str, value: Any, hint: Any) -> Any:
    """``value`` as an option of type ``hint`` takes it: a single value becomes a list of one, a whole number a float.

    Raises:
        SleepkitError: it is of another type, or none of the known values.
    """
    origin: Any = get_origin(hint)
    inner = get_args(hint)
    if origin in (Union, types.UnionType):
        return _of_union(name, value, inner)
    if origin is Literal:
        if any(value == one and type(value) is type(one) for one in inner):
            return value
        raise SleepkitError(f"{name} is {shown(value)}; use one of {', '.join(map(str, inner))}")
    if origin is list:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise SleepkitError(f"{name} is an empty list; give at least one value, or leave it out")
        return [_element(name, one, inner[0]) for one in values]
    if origin is dict and isinstance(value, dict):
        return value
    if isinstance(hint, type) and _has_type(value, hint):
        return float(value) if hint is float and abs(value) <= LARGEST else value
    raise SleepkitError(f"{name} is {_described(value)}; give {_wanted(hint)}")


def _of_union(name: str, value: Any, members: tuple[Any, ...]) -> Any:
    if value is None and type(None) in members:
        return None
    members = tuple(one for one in members if one is not type(None))
    if str in members and isinstance(value, str):
        return value
    errors = []
    for member in sorted(members, key=_is_list):
        try:
            return typed(name, value, member)
        except SleepkitError as error:
            errors.append(error)
    raise errors[-1 if isinstance(value, list) else 0]


def _is_list(hint: Any) -> bool:
    origin: Any = get_origin(hint)
    return origin is list


def _element(name: str, value: Any, hint: Any) -> Any:
    """Of a list; where texts are wanted, whole numbers (of layers, classes, tasks) are taken as texts."""
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return typed(name, value, hint)


def _has_type(value: Any, hint: type) -> bool:
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float)) if hint is float else isinstance(value, hint)


def _described(value: Any) -> str:
    if value is None:
        return "without a value"
    if isinstance(value, bool):
        return f"{value} (YAML reads yes, no, on and off as truth values)"
    kinds: dict[Any, str] = {list: "a list, ", dict: "a mapping, ", str: "the text "}
    return kinds.get(type(value), "") + shown(value)


def _wanted(hint: Any) -> str:
    for one, wanted in (
        (bool, "true or false"),
        (int, "a whole number, without quotes"),
        (float, "a number, without quotes"),
        (str, "a text, in quotes if it looks like something else"),
        (dict, "a mapping"),
    ):
        if one in (hint, get_origin(hint)):
            return wanted
    return f"a value of type {getattr(hint, '__name__', hint)}"
