"""How recipes and command lines are read: `read` fills dataclasses, one option for each of their fields.

    read(["--config", "demo.yaml", "--nights", "2"], (SleepArguments, KnowledgeSeedingConfig), ...)  ->  an object of each

The recipe gives values, the command line overrides them; of an option that stands twice the last one holds.  Options are built by
`transformers.HfArgumentParser`; ours is what is refused, in one line that names the option as it was typed and before anything
is read, loaded or written: unknown names (with the nearest ones), values of another type, texts that no file can hold, what
means nothing here, and an ``output_dir`` that cannot be made.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast, get_type_hints

from sleepkit.errors import SleepkitError, first_line, show_tracebacks
from sleepkit.language.generation.prompts import FORMATS, template_variables
from sleepkit.runs.arguments.groups import COMMON, arrange
from sleepkit.runs.arguments.recipe import read_recipe, typed
from sleepkit.utils.launch.agreement import agree
from sleepkit.utils.options import LARGEST, shown
from sleepkit.utils.precision import DTYPES, check_quantization
from sleepkit.utils.training_fields import REFUSED, check_machinery, own_fields

__all__ = [
    "Parser",
    "add_loading",
    "check_folder",
    "check_text",
    "did_you_mean",
    "home_expanded",
    "loading",
    "read",
    "whole_number",
]

# Fields that name a place on this machine, or something on the Hub: a leading ~ is the home folder.
PLACES = frozenset(
    "dataset test_dataset out_of_scope general_prompts anchors dream_set dreamer_path model generator lcm_lora others_dataset "
    "backbone output_dir output folder folders run".split()
)
MAY_BE_EMPTY = frozenset(("dataset", "debug", "run"))  # whose own checks say what is missing
SECRET = frozenset(("api_key", "hub_token"))  # which no message shows
LONGEST_NAME, LONGEST_PATH = 255, 3500  # bytes of a file's name, and of a folder's path that leaves room for names below it

# What other programs call our options.
OTHER_NAMES = {
    "model_name_or_path": "model",
    "model_id": "model",
    "base_model": "model",
    "revision": "model_revision",
    "torch_dtype": "dtype",
    "precision": "dtype",
    "dataset_name": "dataset",
    "data": "dataset",
    "train_file": "dataset",
    "split": "dataset_split",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "output": "output_dir",
    "out": "output_dir",
    "lambda": "lmbda",
    "repo_id": "push_to_hub_repo",
    "load_4bit": "load_in_4bit",
    "load_8bit": "load_in_8bit",
}
NO_OPTIONS = {"device_map": "a night takes a model that fits on one GPU; for a larger one give load_in_4bit"}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `SleepkitError`, which knows ``--traceback`` and names the nearest option."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": _Help, **options})
        self.add_argument("--traceback", action="store_true", help="show the traceback of an error, above its line")

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Add an option, also under its name with hyphens."""
        twins = [name.replace("_", "-") for name in names if name.startswith("--") and "_" in name]
        return super().add_argument(*names, *(twin for twin in twins if twin not in names), **options)

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (--\w+)(/[^:]*)?: ", r"\1: ", message)  # without its twins
        raise SleepkitError(f"{_shortened(message)}; see `{self.prog} --help`")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Positional arguments may stand before, between and after options, on every version of Python."""
        words = list(args or ())
        self.look_over(words)
        found, unknown = self.parse_known_intermixed_args(words, namespace)
        self.refuse_unknown(unknown)
        for name, value in vars(found).items():
            setattr(found, name, _checked(name, value))
        return found

    def look_over(self, words: Sequence[str]) -> None:
        """Before anything is said to be missing: whether tracebacks are shown, and names that are no option's."""
        if "--traceback" in words:
            show_tracebacks()
        before = words[: words.index("--")] if "--" in words else words
        names = [word for word in before if word.startswith("--") and " " not in word]
        self.refuse_unknown([word for word in names if word.split("=", 1)[0] not in self._option_string_actions])

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """Parse ``words`` and return the options that were given, by name."""
        return {name: value for name, value in vars(self.parse_args(words)).items() if name not in ("traceback", "help_all")}

    def refuse_unknown(self, unknown: Sequence[str]) -> None:
        """Raise `SleepkitError` for the first word that is no option."""
        if not unknown:
            return
        word = next((one for one in unknown if one.startswith("-")), unknown[0])
        word = word.split("=", 1)[0]  # without its value, which may be a secret
        name = word.lstrip("-\N{EN DASH}\N{EM DASH}")
        options = [action.dest for action in self._actions if action.option_strings]
        raise SleepkitError(f"unknown argument {shown(word)}; {did_you_mean(name, options, self.prog, '--')}")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """One name for each field: its hyphenated and negated twins are accepted but not listed."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} {self._format_args(action, action.dest.upper())}".rstrip()


class _HelpAll(argparse.Action):
    """Shows the help of every option."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(Parser.format_help(cast(Any, parser)), end="")
        parser.exit()


def read(
    argv: Sequence[str],
    classes: Sequence[type],
    *,
    prog: str,
    description: str,
    default_config: str | Path | None = None,
    ignored: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> list[Any]:
    """An object of each class, from `--config recipe.yaml` and the command line; the last one is a `TrainingArguments`.

    Args:
        argv: arguments without the name of the program.
        prog: the command that `--help` and the messages name.
        default_config: recipe that is read if there is no `--config`.
        ignored: fields that this command does not use, and what to do instead: refused unless they have their default.
        defaults: values by name, which a recipe overrides; names of no field are passed over.

    Raises:
        SleepkitError: unknown option or key (with the nearest names), wrong type, value out of range, unreadable
            recipe, a field that means nothing here, an output folder that cannot be made.
        SystemExit: after `--help`.
    """
    parser = _parser_of(classes, prog, description)
    hints = _hints(classes)
    parser.set_defaults(**{key: typed(key, value, hints[key]) for key, value in (defaults or {}).items() if key in hints})
    parser.look_over(argv)
    options, unknown = parser.parse_known_args(list(argv))
    parser.refuse_unknown(unknown)
    if sum(word == "--config" or word.startswith("--config=") for word in argv) > 1:
        raise SleepkitError("--config is given twice; give one recipe, and the other's fields on the command line")
    recipe = options.config if options.config is not None else default_config
    if recipe is not None:
        parser.set_defaults(**_recipe_values(str(recipe), parser, classes))
        options = parser.parse_args(list(argv))
    if options.output_dir:
        agree(options.output_dir, vars(options))  # before a configuration looks for its device, and so for the other processes
    parsed = [_made(one, options, ignored or {}) for one in classes]
    check_folder("output_dir", parsed[-1].output_dir)
    check_machinery(parsed[-1])
    return parsed


def _parser_of(classes: Sequence[type], prog: str, description: str) -> Any:
    from transformers import HfArgumentParser

    class DataclassParser(Parser, HfArgumentParser):
        def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
            return argparse.ArgumentParser.parse_args(self, args, namespace)

        def format_help(self) -> str:
            """Return the help of the options that most people set."""
            others = [action for action in self._actions if action.dest not in COMMON]
            helps = [action.help for action in others]
            for action in others:
                action.help = argparse.SUPPRESS
            try:
                return super().format_help()
            finally:
                for action, text in zip(others, helps, strict=True):
                    action.help = text

    parser = DataclassParser(
        dataclass_types=cast(Any, tuple(classes)),
        prog=prog,
        usage=f"{prog} [--config RECIPE.yaml] [--FIELD VALUE ...]",
        description=description,
        epilog="--help_all lists every option. Fields of transformers.TrainingArguments that mean something here are accepted "
        "too: --bf16, --use_cpu, ...",
        formatter_class=_Help,
    )
    parser.add_argument("--config", help="a YAML recipe of the fields below; the command line overrides it")
    parser.add_argument("--help_all", action=_HelpAll, help="show every option and exit")
    for action in parser._actions:
        if action.dest == "report_to":
            action.nargs = "+"  # one tracker or several
    _only_own_help(parser, classes)
    arrange(parser, classes)
    return parser


def _only_own_help(parser: argparse.ArgumentParser, classes: Sequence[type]) -> None:
    """Hide what `--help` would show of TrainingArguments, and the `--no_` twins."""
    listed = {item.name for one in classes[:-1] for item in dataclasses.fields(one)}
    listed |= {"seed", "help", "help_all", "config", "traceback", *own_fields(classes[-1])}
    for action in parser._actions:
        if action.dest not in listed or action.option_strings[0].startswith("--no_"):
            action.help = argparse.SUPPRESS


def _recipe_values(path: str, parser: Any, classes: Sequence[type]) -> dict[str, Any]:
    """Return the values that the recipe gives, each of its option's type."""
    hints = _hints(classes)
    found = read_recipe(path)
    for key in found:
        if key not in hints:
            raise SleepkitError(f"{path} has an unknown key {shown(key)}; {did_you_mean(key, hints, parser.prog)}")
    return {key: typed(key, value, hints[key]) for key, value in found.items()}


def _hints(classes: Sequence[type]) -> dict[str, Any]:
    """The types of all fields that can be given, by name."""
    hints: dict[str, Any] = {}
    for one in classes:
        of_class = get_type_hints(one)
        hints |= {item.name: of_class[item.name] for item in dataclasses.fields(one) if item.init}
    return hints


def _made(one: type, options: argparse.Namespace, ignored: Mapping[str, str]) -> Any:
    """An object of a class, of the options that are its fields."""
    values = {}
    for item in dataclasses.fields(one):
        if item.init:
            value = home_expanded(item.name, getattr(options, item.name))
            check_text(item.name, value)
            if item.name in ignored and value != _default(item):
                raise SleepkitError(f"{item.name} is {shown(value)}; {ignored[item.name]}")
            values[item.name] = value
    if "output_dir" in values and values["output_dir"] is None:
        raise SleepkitError("output_dir is empty; give --output_dir with a folder for the results")
    try:
        return one(**values)
    except SleepkitError:
        raise
    except Exception as error:  # TrainingArguments judges some values itself, by errors of many kinds
        raise SleepkitError(f"{_shortened(first_line(error))}; correct the recipe or the command line") from error


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default


def _checked(name: str, value: Any) -> Any:
    """A value of the command line: a path, a text or several; texts checked, home folder in place of ``~``."""
    if isinstance(value, list):
        return [_checked(name, one) for one in value]
    if isinstance(value, Path):
        return Path(_checked("output_dir", str(value)))
    value = home_expanded(name, value)
    check_text(name, value)
    return value


def home_expanded(name: str, value: Any) -> Any:
    """The value; of a field that names a place, with the home folder for ``~``.

    Raises:
        SleepkitError: there is no such user.
    """
    if name not in PLACES or not isinstance(value, str) or not value.startswith("~"):
        return value
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise SleepkitError(f"{name} is {shown(value)}, and there is no user of that name; write the whole path")
    return expanded


def check_text(name: str, value: Any) -> None:
    """Raise `SleepkitError` for a text, or one in a list, that is empty or that no file can hold."""
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(text, str):
            continue
        if not text.strip() and name not in MAY_BE_EMPTY:
            raise SleepkitError(f"{name} is empty; give a value, or leave it out")
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            value = "..." if name in SECRET else shown(text)
            raise SleepkitError(f"{name} is {value}, which has bytes that are no text in UTF-8; write it anew")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """The ``type`` of an option that takes whole numbers of this range."""

    def whole(text: str) -> int:
        wanted = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= (LARGEST if most is None else most):
            raise argparse.ArgumentTypeError(f"{shown(text)} cannot be used; give {wanted}")
        return number

    return whole


def add_loading(parser: Parser) -> None:
    """The options of a parser that say how a model is loaded, as the fields of `language.ModelArguments` do."""
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the base's weights")
    parser.add_argument("--model_revision", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run Python code that comes with the base; read it first"
    )
    parser.add_argument("--prompt_format", choices=FORMATS, default="auto", help="auto: as in its nights")
    parser.add_argument("--chat_template_kwargs", help="variables for the chat template, as JSON")
    parser.add_argument("--load_in_8bit", action="store_true", help="load the base in 8 bits (bitsandbytes)")
    parser.add_argument("--load_in_4bit", action="store_true", help="load the base in 4 bits (bitsandbytes)")


def loading(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments for `model_io.load_model`; raises `SleepkitError` if a package is missing."""
    check_quantization(options.load_in_8bit, options.load_in_4bit)
    names = ("dtype", "trust_remote_code", "load_in_8bit", "load_in_4bit", "prompt_format")
    variables = template_variables(options.chat_template_kwargs)
    return {"revision": options.model_revision, "chat_template_kwargs": variables} | {
        name: getattr(options, name) for name in names
    }


def check_folder(name: str, folder: str | Path) -> None:
    """Raise `SleepkitError` unless a folder is there, or can be made, and can be written to.  Leaves nothing behind."""
    path = Path(os.path.abspath(Path(folder).expanduser()))
    longest = max(len(os.fsencode(part)) for part in path.parts)
    if longest > LONGEST_NAME or len(os.fsencode(path)) > LONGEST_PATH:
        raise SleepkitError(f"{name} is {shown(str(folder))}, a path too long for a file system; choose a shorter one")
    try:
        there = next(one for one in (path, *path.parents) if os.path.lexists(one))
        if not there.is_dir():
            raise SleepkitError(f"{name} is {shown(str(folder))}, and {there} is not a folder; choose another")
        os.rmdir(tempfile.mkdtemp(prefix=".sleepkit-", dir=there))
    except OSError as error:
        raise SleepkitError(f"{name} {folder} cannot be written to ({error.strerror or error}); choose another") from None


def did_you_mean(name: str, known: Iterable[str], prog: str, prefix: str = "") -> str:
    """The second half of a message about an unknown name: the nearest ones, or where to find them all."""
    name = name.replace("-", "_").lower()
    options = sorted(set(known) - set(REFUSED))
    if name in NO_OPTIONS:
        return NO_OPTIONS[name]
    meant = [OTHER_NAMES[name]] if OTHER_NAMES.get(name) in options else []
    near = meant or difflib.get_close_matches(name, options, n=3)
    if near:
        return f"did you mean {' or '.join(prefix + one for one in near)}?"
    return f"see `{prog} --help` for the {'options' if prefix else 'fields'}"


def _shortened(message: str, longest: int = 300) -> str:
    line = " ".join(message.split())
    return line if len(line) <= longest else f"{line[:longest]} ..."
