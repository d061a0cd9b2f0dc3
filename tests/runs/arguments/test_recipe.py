"""Recipes: what YAML says and what an option takes; anything else is one line."""

import os
from typing import Any, Literal

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.recipe import read_recipe, typed


def read(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_recipe(path)


def refused(call, words):
    with pytest.raises(SleepkitError) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def test_plain_values_are_those_of_yaml_1_2(tmp_path):
    text = """
        a: 5e-3   # a number, with a comment
        b: [1, two, 0.5]
        c: 010
        d: 1:30
        e: 2024-01-15
        f: null
        g: "7"
        h: 1_000
        i: .inf
        j: no
        k: 0x1F
        l: ä
        m: -3
        n: +.5E+2
        o: <<
    """
    assert read(tmp_path, "\n".join(line.strip() for line in text.splitlines())) == {
        **{"a": 0.005, "b": [1, "two", 0.5], "c": "010", "d": "1:30", "e": "2024-01-15", "f": None, "g": "7", "h": "1_000"},
        **{"i": float("inf"), "j": False, "k": "0x1F", "l": "ä", "m": -3, "n": 50.0, "o": "<<"},
    }
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\r\n") == {"a": 1}  # as Windows writes it


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' stands twice"),
        ("a: &x 1\nb: *x\n", "anchors and aliases have no use"),
        ("a: &x [1]\n", "anchors and aliases"),
        ("a: *x\n", "anchors and aliases"),
        ("env: {PATH: x}\na: 1\n", "unknown key 'env'; set environment variables in the shell"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        ("a: !own 3\n", "is not YAML"),
        ("", "is not a flat mapping"),
        ("# nothing\n", "is not a flat mapping"),
        ("- a\n- b\n", "is not a flat mapping"),
        ("just words\n", "is not a flat mapping"),
        ("1: 2\n", "is not a flat mapping"),
        ("? [a]\n: b\n", "is not YAML"),
        ("? {a: 1}\n: b\n", "is not YAML"),
        ("a: 1\n---\na: 2\n", "is not YAML"),
        ("a: [\n", "is not YAML"),
        ("a: 'x\n", "is not YAML"),
        ("\ta: 1\n", "is not YAML"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "cannot be read"),
        (b"a: \x00\n", "is not YAML"),
        ("a: ä".encode("latin-1"), "cannot be read"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("a: " + "9" * 10_000, "is not YAML"),
        ("a: 1\n#" + "x" * 2**20, "more than a megabyte"),
    ],
    ids=range(24),
)
def test_what_is_no_recipe_is_one_line(tmp_path, content, words):
    assert "recipe.yaml" in refused(lambda: read(tmp_path, content), words)


def test_the_environment_stays(tmp_path):
    refused(lambda: read(tmp_path, "env: {SLEEPKIT_PLANTED: '1'}\n"), "env")
    assert "SLEEPKIT_PLANTED" not in os.environ


def test_a_folder_and_a_missing_file(tmp_path):
    refused(lambda: read_recipe(tmp_path), "cannot be read")
    refused(lambda: read_recipe(tmp_path / "none.yaml"), "none.yaml cannot be read")
    refused(lambda: read_recipe("\0"), "is not YAML")
    refused(lambda: read_recipe("x" * 300), "cannot be read")


@pytest.mark.parametrize(
    ("value", "hint", "found"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float, 0.5),
        (True, bool, True),
        ("x", str, "x"),
        ("x", str | None, "x"),
        (None, str | None, None),
        (None, int | None, None),
        (4, int | None, 4),
        (["a", "b"], list[str], ["a", "b"]),
        ("a", list[str], ["a"]),
        (3, list[int], [3]),
        ([3, 1], list[str], ["3", "1"]),
        (3, list[str] | None, ["3"]),
        ("file", Literal["file", "random"], "file"),
        ("file", Literal["file"] | None, "file"),
        (None, Literal["file"] | None, None),
        ("x", str | list[str] | None, "x"),
        (["x", "y"], str | list[str] | None, ["x", "y"]),
        ({"a": 1}, dict[str, Any] | str | None, {"a": 1}),
        ('{"a": 1}', dict[str, Any] | str | None, '{"a": 1}'),
        (False, bool | None, False),
    ],
)
def test_values_of_the_right_type(value, hint, found):
    assert typed("it", value, hint) == found and type(typed("it", value, hint)) is type(found)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ([0.1], float, "it is a list, [0.1]; give a number, without quotes"),
        (True, int, "it is True (YAML reads yes, no, on and off as truth values); give a whole number"),
        (True, int | None, "it is True"),
        (True, float, "it is True"),
        (False, str, "it is False (YAML reads yes, no, on and off as truth values); give a text, in quotes"),
        (1.5, int, "it is 1.5; give a whole number"),
        (2.0, int, "it is 2.0; give a whole number"),
        ("2", int, "it is the text '2'; give a whole number, without quotes"),
        ("0.1", float, "it is the text '0.1'; give a number"),
        ("true", bool, "it is the text 'true'; give true or false"),
        (1, bool, "it is 1; give true or false"),
        (0, bool | None, "it is 0; give true or false"),
        (5, str, "it is 5; give a text, in quotes"),
        (None, float, "it is without a value; give a number"),
        (None, str, "it is without a value"),
        (None, list[str], "it is without a value"),
        ({"a": 1}, int, "it is a mapping, {'a': 1}; give a whole number"),
        ({"a": 1}, list[str], "it is a mapping"),
        ([], list[str], "it is an empty list"),
        ([[1]], list[int], "it is a list, [1]; give a whole number"),
        ([1.5], list[int], "it is 1.5; give a whole number"),
        ([True], list[str], "it is True"),
        (["1"], list[int], "it is the text '1'"),
        ("1 4 16", list[int], "it is the text '1 4 16'; give a whole number"),
        ("upwards", Literal["file", "random"], "it is 'upwards'; use one of file, random"),
        (1, Literal["file"], "it is 1; use one of file"),
        (["file"], Literal["file", "random"], "it is ['file']; use one of"),
        (["x"], str | None, "it is a list"),
        (3, dict[str, Any] | None, "it is 3; give a mapping"),
    ],
)
def test_values_of_another_type_are_one_line(value, hint, words):
    refused(lambda: typed("it", value, hint), words)
