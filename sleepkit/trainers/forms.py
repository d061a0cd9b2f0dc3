"""The forms in which a slept model is published, each as files that may leave this machine.

    experts    expert_bank.safetensors and .json, a few megabytes, for sleepkit; with the rehearsal buffer if asked
    plain      a whole model of its base's architecture, for any program                       language/experts/export.py
    lora       an adapter of PEFT for its base, distilled from it, for engines that swap them  language/lora_export.py

    form, why = chosen_form("auto")        plain unless something speaks against it; then experts, and why
    files, says = as_form("plain", run, folder, ...)

Left out: where they go (publish.py), and which files of a folder may leave (hub.py).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig, PublishedForm
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.reporting.cards import REPOSITORY, model_card, model_name, published_name
from sleepkit.reporting.results import FILE_NAME, in_model, read_results
from sleepkit.trainers.hub import BANK, CARD, DISTILLATION, Published, published
from sleepkit.utils.files import open_to_all, read_json, write_json
from sleepkit.utils.states import newest_state

if TYPE_CHECKING:
    from sleepkit.language.lora_export import Exam
    from sleepkit.language.questions.items import SyntheticExample

__all__ = ["Made", "as_experts", "as_form", "chosen_form", "rehearsal_folder"]

REHEARSAL = "rehearsal"
REHEARSAL_FILES = (
    "general.jsonl",
    "replay.jsonl",
    "quiz.jsonl",
    "dreams.json",
    "outdated.json",
)  # as `Rehearsal.save` writes them
REHEARSAL_NOTE = f"""
## Rehearsal buffer

`{REHEARSAL}/` holds what later nights rehearse: questions, answers and dreams, which are text of the documents.
`sleepkit sleep --model {REPOSITORY}` goes on with it.
"""
_OF_NIGHTS = (
    *("num_train_epochs", "max_steps", "min_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("general_share", "general_tokens", "divergence", "beta", "top_k", "chunk_size", "packing", "cache_frozen_layers"),
    *("lr_scheduler_type", "warmup_steps", "adam_beta2", "use_cpu"),
)  # settings of a night that a LoRA is distilled by
NO_TEXT = "no text that it has read"
Made = tuple[Published, str]  # the files, and what they are in a few words


# -- which form -------------------------------------------------------------------------------------------------------
def chosen_form(form: str, rehearsal: bool = False) -> tuple[str, str]:
    """The form that is to be tried, and why it is not the plain one where none was asked for.

    Args:
        form: one of `PublishedForm`.
        rehearsal: whether the rehearsal buffer goes with it.

    Raises:
        SleepkitError: the buffer goes with experts alone, or the form cannot be made by such processes as these.
    """
    if form not in get_args(PublishedForm):
        raise SleepkitError(f"form is {form!r}; use one of {', '.join(get_args(PublishedForm))}")
    if rehearsal and form in ("plain", "lora"):
        raise SleepkitError(
            f"form is {form} and the rehearsal buffer goes with experts, from which later nights go on; use form experts, or "
            "leave the buffer out"
        )
    if form != "auto":
        _check_process(form)
        return form, ""
    if rehearsal:
        return "experts", "later nights, which the rehearsal buffer is for, go on from experts"
    try:
        _check_process("plain")
    except SleepkitError as error:
        return "experts", str(error)
    return "plain", ""


def _check_process(form: str) -> None:
    """Raise `SleepkitError` for a form that this process cannot make: models are loaded by the main one alone."""
    from accelerate import PartialState
    from transformers.integrations import is_deepspeed_zero3_enabled  # type: ignore[attr-defined]

    later = f"publish it afterwards: sleepkit publish RUN owner/name --form {form}"
    if form == "lora" and (count := PartialState().num_processes) > 1:
        raise SleepkitError(f"a LoRA is distilled by one process, and there are {count}; {later}")
    if form in ("plain", "lora") and is_deepspeed_zero3_enabled():
        raise SleepkitError(f"ZeRO-3 splits what is loaded here, and one process writes the form {form}; {later}")


# -- the files of a form ----------------------------------------------------------------------------------------------
def as_form(form: str, run: str | Path, folder: Path, name: str, base_model: str | None, loading: Mapping[str, Any]) -> Made:
    """Write a slept model in a form into an empty folder, and return what of it may leave.

    Args:
        form: ``plain``, ``lora``, or ``auto``, which is plain, or experts where there is no plain form.
        run: output folder of a run; for the plain form also a folder of saved experts, or the Hub id of a slept model.
        folder: where to.
        name: of the model, on its card.
        base_model: Hub id or folder of the base, if it is no longer where the experts say.
        loading: how the base is loaded, as `load_model` takes it.

    Raises:
        SleepkitError: it has no such form, nothing has slept there, or its base cannot be loaded.
    """
    from sleepkit.language.experts.export import NoPlainFormError

    if form == "lora":
        return _as_lora(Path(run), folder, name, base_model, loading)
    try:
        return _as_plain(run, folder, name, base_model, loading)
    except NoPlainFormError as error:
        if form == "plain":
            raise
        return as_experts(Path(run), why=str(error))


def as_experts(run: Path, rehearsal: bool = False, why: str = "") -> Made:
    """What ``model/`` of a run holds: experts with their card; or an image model, which has no other form.

    Args:
        run: its output folder.
        rehearsal: whether the rehearsal buffer goes with them.
        why: they are published in place of a plain model, which is said.

    Raises:
        SleepkitError: the run has no model, or no rehearsal buffer though one is asked for.
    """
    if why:
        print(f"{run} is published as experts, not as a plain model: {why}", flush=True)
    content, says = published(run / "model"), "no text that the model has read"
    if rehearsal:
        folder = rehearsal_folder(run)
        if folder is None:
            raise SleepkitError(f"{run} has no rehearsal buffer; leave --rehearsal out")
        content.files |= {f"{REHEARSAL}/{name}": folder / name for name in REHEARSAL_FILES if (folder / name).is_file()}
        card = (run / "model" / CARD).read_text(encoding="utf-8")
        content.files[CARD] = (card + REHEARSAL_NOTE).encode()
        says = f"with the rehearsal buffer, which holds TEXT OF THE DOCUMENTS ({REHEARSAL}/)"
    if BANK in content.files:
        bank = json.loads(bytes(content.files[BANK]))
        if bank.get("base_model") is None:
            says += (
                f"; its base, {bank.get('base_name')}, is a folder of this machine: who loads it must have it and give --model"
            )
    return content, says


def _as_plain(run: str | Path, folder: Path, name: str, base_model: str | None, loading: Mapping[str, Any]) -> Made:
    """Write a plain model of the base's architecture; of a run it gets a card."""
    from sleepkit.language.experts.bank import read_bank_config
    from sleepkit.language.experts.export import check_kind, export_plain
    from sleepkit.language.model_io import load_slept
    from sleepkit.language.models.base_model import find_slept
    from sleepkit.trainers.outputs import base_name

    slept = find_slept(str(run), loading.get("revision"))
    if slept is not None:  # before its base is loaded
        document = read_bank_config(slept)
        check_kind(document["config"]["kind"], str(document["base_shape"]["model_type"]))
    model, tokenizer, bank = load_slept(run, base_model, **loading)
    plain = export_plain(bank)
    plain.save_pretrained(folder)
    open_to_all(folder)
    _write_tokenizer(tokenizer, folder)
    if (Path(run) / FILE_NAME).is_file():
        _write_card(Path(run), folder, name, base_name(model), form="plain")
    return _made(folder, f"a whole model, and {NO_TEXT}")


def _as_lora(run: Path, folder: Path, name: str, base_model: str | None, loading: Mapping[str, Any]) -> Made:
    """Write a LoRA that is distilled from the slept model of a run, with what it loses, and its tokenizer."""
    from sleepkit.language.lora_export import distilled
    from sleepkit.language.model_io import load_slept, move
    from sleepkit.language.models.base_model import base_of
    from sleepkit.language.retention import read_prompts
    from sleepkit.language.seeding.lora import save_adapter
    from sleepkit.reporting.results import versions
    from sleepkit.trainers.outputs import base_name

    results = read_results(run)
    given = results["config"]
    with tempfile.TemporaryDirectory() as scratch:
        args = KnowledgeSeedingConfig(output_dir=scratch, seed=results["seed"], **_of(given, _OF_NIGHTS))
        args.max_steps = max(args.max_steps, -1) * (sum(map(in_model, results["nights"])) if args.max_steps > 0 else 1)
        items, exam = _learned(run, args)
        model, tokenizer, bank = load_slept(run, base_model, **loading)
        move(model, args.device)
        config = LearnerConfig(**_of(given, ("max_new_tokens", "answer_score")))
        retention = read_prompts(given.get("anchors"), "anchors")
        with distilled(bank, tokenizer, items, args, exam, retention, config) as (adapted, report):
            base, known = base_name(model), base_of(model)
            adapter: Any = adapted.peft_config["default"]
            adapter.base_model_name_or_path, adapter.revision = base, known and known.revision
            save_adapter(adapted, folder)
    report = {"base_model": base, "base_revision": known and known.revision, **report, "versions": versions()}
    write_json(folder / DISTILLATION, report)
    _write_tokenizer(tokenizer, folder)
    _write_card(run, folder, name, base, form="lora", lora=report)
    return _made(folder, f"a LoRA for {base}, and {NO_TEXT}")


def _of(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: config[name] for name in names if name in config}


def _learned(run: Path, args: KnowledgeSeedingConfig) -> tuple[list[SyntheticExample], Exam]:
    """What the nights of a run that are in its model have learned, as items for a LoRA, and what it is asked.

    Raises:
        SleepkitError: the run has no saved state.
    """
    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.lora_export import Exam, lora_items
    from sleepkit.language.questions.items import load_items
    from sleepkit.language.rehearsal import Rehearsal
    from sleepkit.trainers.life import lived, replaced_in

    buffer = rehearsal_folder(run)
    if buffer is None:
        raise SleepkitError(f"{run} has no saved items (state/) to distil a LoRA from; publish it as plain or experts")
    rehearsal = Rehearsal(args, DreamingConfig())
    rehearsal.load(buffer)
    life, rows = lived(run)
    kept = [row["night"] for row in rows if in_model(row)]
    items = [*rehearsal.replay, *rehearsal.dreams.items]
    for night in kept:  # of which the buffer holds a few of each label
        path = run / f"night_{night:02d}" / "examples.jsonl"
        written = load_items(path) if path.is_file() else []
        items += [replace(item, night=night) for item in written if item.role == "new"]
    asked = {item.prompt for item in rehearsal.quiz}
    items = [item for item in rehearsal.current(items) if item.prompt not in asked]
    replaced = replaced_in(life)
    current = [life[night - 1] for night in kept if night - 1 not in replaced]
    questions = [question for experience in current for question in experience.questions]
    return lora_items(items, rehearsal.general), Exam(questions, rehearsal.current(rehearsal.quiz))


def _made(folder: Path, says: str) -> Made:
    """The files of a folder; one without a card is not to be uploaded, which was refused before."""
    if (folder / CARD).is_file():
        return published(folder), says
    return Published({path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}), says


def _write_card(run: Path, folder: Path, name: str, base: str, **options: Any) -> None:
    results = read_results(run)
    dataset = published_name(str(results["config"]["dataset"]))
    card = model_card(results, model_name=model_name(name, name), base_model=base, dataset=dataset, **options)
    card.save(folder / CARD)


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """The tokenizer with the chat template that its model was taught by, under a name that transformers 4 knows too.

    A tokenizer without a family has another name there, which converters and engines still pin.
    """
    from sleepkit.language.generation.prompts import PromptFormat

    tokenizer.chat_template = PromptFormat.of(tokenizer).template
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    if path.is_file() and (config := read_json(path)).get("tokenizer_class") == "TokenizersBackend":
        write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


# -- what goes with experts -------------------------------------------------------------------------------------------
def rehearsal_folder(name_or_path: str | Path, revision: str | None = None) -> Path | None:
    """Folder with the rehearsal buffer of a slept model, as `Rehearsal.load` reads it; None if there is none.

    Args:
        name_or_path: output folder of a run, its ``model/``, or a Hub id, to which it was pushed only if that was asked for.
        revision: branch, tag or commit of a Hub id.

    Raises:
        SleepkitError: it is there and cannot be fetched.
    """
    from sleepkit.language.models.base_model import find_slept

    slept = find_slept(str(name_or_path), revision)
    if slept is None:
        return None
    if not Path(name_or_path).expanduser().is_dir():
        return _fetched(str(name_or_path), slept.name)
    places = (slept / REHEARSAL, newest_state(slept.parent / "state"))
    return next((place for place in places if place is not None and (place / REHEARSAL_FILES[0]).is_file()), None)


def _fetched(name: str, commit: str) -> Path | None:
    from huggingface_hub import errors, hf_hub_download

    folder = None
    for file in REHEARSAL_FILES:
        try:
            folder = Path(hf_hub_download(name, f"{REHEARSAL}/{file}", revision=commit)).parent
        except (errors.RemoteEntryNotFoundError, errors.LocalEntryNotFoundError):
            if folder is None:
                return None  # it was not pushed
        except (OSError, ValueError) as error:
            raise SleepkitError(f"the rehearsal buffer of {name} cannot be fetched; check the network") from error
    return folder
