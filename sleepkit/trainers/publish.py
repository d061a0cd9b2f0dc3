"""Publish a finished run: what `sleepkit push` and `sleepkit publish` do, and a run that was asked to at its end.

    push_run("runs/owl", "me/owl", dreams="me/owl-dreams")
    publish_plain("runs/owl", "me/owl-plain")                 a whole model for any program; or into a folder

    <run>/model/       slept model, classifier or canonicalizer, with its card           -> me/owl
    <run>/dreams/      accepted dreams (text); of recipes/dream.py those of all rounds   -> me/owl-dreams
    <run>/state/       rehearsal buffer (text), only if asked for                        -> me/owl, below rehearsal/
    <run>/seed_<n>/    each such run by itself                                           -> me/owl-seed-<n>

A run of which no night was kept has nothing to publish, and says so.  What is uploaded is listed before it is.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting.cards import REPOSITORY, model_card, model_name, published_name
from sleepkit.reporting.results import FILE_NAME, in_model, read_results
from sleepkit.trainers.hub import BANK, CARD, Published, Target, check_access, published, push_files
from sleepkit.utils.files import read_json, read_jsonl, write_json
from sleepkit.utils.ranks import main_only
from sleepkit.utils.states import newest_state

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = ["check_publishing", "publish_if_asked", "publish_plain", "push_run", "rehearsal_folder"]

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


@dataclass
class _Push:
    """Repository that is to be written, or the reason why it is not."""

    target: Target
    content: Published
    says: str
    reason: str = ""


def push_run(
    run: str | Path,
    repo_id: str | None = None,
    dreams: str | None = None,
    *,
    rehearsal: bool = False,
    public: bool = False,
    token: str | None = None,
) -> list[str]:
    """Upload what a finished run has to publish, after it is listed; returns the addresses of the commits.

    Args:
        run: output folder of a run, also one with several seeds, each of which gets a repository of its own.
        repo_id: repository of the model, ``owner/name``; None uploads none.
        dreams: repository of the accepted dreams, a data set; None uploads none.
        rehearsal: upload the rehearsal buffer with the model, which holds text of the documents.
        public: let all read what is pushed; otherwise repositories are private.
        token: access token; None takes the one of `hf auth login`.

    Raises:
        SleepkitError: no finished run there, nothing asked for, or as `hub.push_files`.
    """
    if repo_id is None and dreams is None:
        raise SleepkitError("nothing to push is named; give owner/name for the model, --dreams owner/name, or both")
    if rehearsal and repo_id is None:
        raise SleepkitError("the rehearsal buffer goes with the model; give owner/name for it too")
    with tempfile.TemporaryDirectory() as scratch:
        pushes = [
            push for folder, suffix in _runs(Path(run)) for push in _plan(folder, suffix, repo_id, dreams, rehearsal, scratch)
        ]
        wanted = [push for push in pushes if not push.reason]
        for push in pushes:
            if push.reason:
                print(f"not pushed to {push.target.repo_id}: {push.reason}")
        if wanted:
            check_access([push.target for push in wanted], private=not public, token=token)
        return [_push(push, public, token) for push in wanted]


def publish_plain(
    run: str | Path, target: str, *, base_model: str | None = None, public: bool = False, token: str | None = None, **loading: Any
) -> str:
    """Write a slept model as a plain one of its architecture, which any program loads, to a folder or to the Hub.

    Args:
        run: output folder of a run, or Hub id of a slept model.
        target: a folder, which must be empty or new; or ``owner/name`` of a repository, where there is no folder ``owner`` here.
        base_model: Hub id or folder of the base, if it is no longer where the experts say.
        public: let all read what is pushed; otherwise the repository is private.
        token: access token; None takes the one of `hf auth login`.
        loading: how the base is loaded, as `load_model` takes it.

    Returns:
        The folder, or the address of the commit.

    Raises:
        SleepkitError: nothing has slept there, its experts have no plain form, the folder holds something, or as `push_files`.
    """
    on_hub, path = is_repository(target), Path(target).expanduser()
    if on_hub:
        check_access([Target(target)], private=not public, token=token)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SleepkitError(f"{target} holds something already; choose a folder that is new or empty")
    if not on_hub:
        return _write_plain(run, path, target, base_model, loading)
    with tempfile.TemporaryDirectory() as scratch:
        _write_plain(run, Path(scratch), target, base_model, loading)
        content = published(scratch)
        return _push(_Push(Target(target), content, "a whole model, and no text that it has read"), public, token)


def is_repository(target: str) -> bool:
    """Whether a target is ``owner/name`` on the Hub, and no folder: one that is there, or whose parent is, is a folder."""
    path = Path(target).expanduser()
    return re.fullmatch(r"[\w.-]+/[\w.-]+", target) is not None and target[0] not in ".~" and not path.parent.exists()


def _write_plain(run: str | Path, folder: Path, name: str, base_model: str | None, loading: dict[str, Any]) -> str:
    from sleepkit.language.experts.export import export_plain
    from sleepkit.language.generation.prompts import PromptFormat
    from sleepkit.language.model_io import load_slept
    from sleepkit.trainers.outputs import base_name

    model, tokenizer, bank = load_slept(run, base_model, **loading)
    plain = export_plain(bank)
    tokenizer.chat_template = PromptFormat.of(tokenizer).template
    folder.mkdir(parents=True, exist_ok=True)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_for_all(folder / "tokenizer_config.json")
    if (Path(run) / FILE_NAME).is_file():
        results = read_results(run)
        dataset = published_name(str(results["config"]["dataset"]))
        card = model_card(results, model_name=model_name(name, name), base_model=base_name(model), dataset=dataset, plain=True)
        card.save(folder / CARD)
    return str(folder)


def _name_for_all(path: Path) -> None:
    """Call a tokenizer without a family by the name that transformers 4 knows too, which converters and engines still pin."""
    if path.is_file() and (config := read_json(path)).get("tokenizer_class") == "TokenizersBackend":
        write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def _push(push: _Push, public: bool, token: str | None) -> str:
    sizes = push.content.sizes()
    who = "all may read it" if public else "private"
    print(f"pushing to {push.target.repo_id} ({push.target.kind}, {who}): {push.says}")
    for name, size in sizes.items():
        print(f"  {name}  {size:,} bytes")
    for name in push.content.left:
        print(f"  (stays here: {name})")
    print(f"  {len(sizes)} files, {sum(sizes.values()):,} bytes", flush=True)
    address = push_files(push.content.files, push.target, private=not public, token=token)
    print(f"pushed: {address}", flush=True)
    return address


def _runs(run: Path) -> list[tuple[Path, str]]:
    """The folder of a run, or those of its seeds, each with what its repository is called by besides."""
    if (run / FILE_NAME).is_file() and not any(run.glob(f"seed_*/{FILE_NAME}")):
        return [(run, "")]
    seeds = sorted(path.parent for path in run.glob(f"seed_*/{FILE_NAME}"))
    if not seeds:
        raise SleepkitError(f"{run} holds no finished run; give the output folder of one")
    return [(folder, f"-{folder.name.replace('_', '-')}") for folder in seeds]


def _plan(run: Path, suffix: str, repo_id: str | None, dreams: str | None, rehearsal: bool, scratch: str) -> list[_Push]:
    plans = []
    nights = read_results(run).get("nights") or []
    lost = bool(nights) and not any(map(in_model, nights))
    if repo_id is not None:
        if lost:
            plans.append(_Push(Target(repo_id + suffix), Published(), "", f"none of the {len(nights)} nights of {run} was kept"))
        else:
            plans.append(_plan_model(run, Target(repo_id + suffix), rehearsal))
    if dreams is not None:
        plans.append(_plan_dreams(run, Target(dreams + suffix, "dataset"), Path(scratch) / (suffix or "run")))
    return plans


def _plan_model(run: Path, target: Target, rehearsal: bool) -> _Push:
    if not (run / "model" / CARD).is_file():
        raise SleepkitError(f"{run} has no model to push; give the folder of a run that makes one, or only --dreams owner/name")
    content, says = published(run / "model"), "no text that the model has read"
    bank: Any = json.loads(bytes(content.files[BANK])) if BANK in content.files else None
    if bank is not None and not bank["active"]:
        return _Push(target, Published(), "", f"{run} holds no expert that is in use")
    if rehearsal:
        folder = rehearsal_folder(run)
        if folder is None:
            raise SleepkitError(f"{run} has no rehearsal buffer; leave --rehearsal out")
        content.files |= {f"{REHEARSAL}/{name}": folder / name for name in REHEARSAL_FILES if (folder / name).is_file()}
        card = (run / "model" / CARD).read_text(encoding="utf-8")
        content.files[CARD] = (card + REHEARSAL_NOTE).encode()
        says = f"with the rehearsal buffer, which holds TEXT OF THE DOCUMENTS ({REHEARSAL}/)"
    if bank is not None and bank.get("base_model") is None:
        name = bank.get("base_name")
        says += f"; its base, {name}, is a folder of this machine: who loads it must have it and give --model"
    return _Push(target, content, says)


def _plan_dreams(run: Path, target: Target, scratch: Path) -> _Push:
    folder = run / "dreams"
    if not (folder / CARD).is_file() and any(folder.glob("round_*")):
        folder = _dreams_of_rounds(run, scratch)
    if not (folder / CARD).is_file():
        return _Push(target, Published(), "", f"{run} has no accepted dreams")
    content = published(folder, "dataset")
    content.files |= {name: _without_folders(source) for name, source in content.files.items() if name.endswith(".jsonl")}
    return _Push(target, content, "dreams, which hold TEXT OF THE DOCUMENTS as the model wrote it")


def _without_folders(file: Any) -> bytes:
    """Rows of dreams, whose dreamer may once have been told by its folder."""
    rows = [row | {"model": published_name(row.get("model") or "")} for row in read_jsonl(file)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _dreams_of_rounds(run: Path, folder: Path) -> Path:
    """The dreams of recipes/dream.py that were rewarded, as a data set with a config for each round."""
    from sleepkit.language.dreaming.dataset import add_night, write_card
    from sleepkit.language.dreaming.dreams import load_dreams

    config = read_results(run)["config"]
    model = published_name(str(config.get("model", "")))
    for path in sorted((run / "dreams").glob("round_*")):
        dreams = [dream for file in sorted(path.glob("context_*.jsonl")) for dream in load_dreams(file)]
        accepted = [dream for dream in dreams if dream.reward is not None and dream.reward > 0]
        if accepted:
            add_night(folder, f"round_{int(path.name.split('_')[1]):02d}", accepted, model)
    if any(folder.glob("*.jsonl")):
        write_card(folder, name=f"{Path(model).name}-dreams", model=model, source=published_name(str(config.get("dataset", ""))))
    return folder


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


# -- of a run, from its arguments -------------------------------------------------------------------------------------
def check_publishing(args: Any, config: TrainingArguments, refused: str = "") -> None:
    """Before the first night: raise `SleepkitError` if what is to be pushed at the end could not be, so that no hour is lost.

    Args:
        args: with ``push_to_hub_repo``, and what else of ``seeds``, ``push_to_hub_dreams_repo`` and ``push_to_hub_rehearsal``
            the method has.
        config: with the token.
        refused: why a run like this one has nothing to push.
    """
    repo_id, dreams, rehearsal = _asked(args, config)
    if rehearsal and repo_id is None:
        raise SleepkitError("push_to_hub_rehearsal goes with the model; give push_to_hub_repo too, or leave it out")
    if repo_id is None and dreams is None:
        return
    if refused:
        raise SleepkitError(f"push_to_hub_{'repo' if repo_id else 'dreams_repo'} is given and {refused}; leave it out")
    suffixes = [f"-seed-{seed}" for seed in getattr(args, "seeds", None) or []] or [""]
    targets = [Target(repo_id + suffix) for suffix in suffixes if repo_id]
    targets += [Target(dreams + suffix, "dataset") for suffix in suffixes if dreams]
    main_only(lambda: check_access(targets, private=True, token=config.hub_token or None))


def publish_if_asked(args: Any, config: TrainingArguments) -> None:
    """After the results are written and printed: push what was asked for.

    Raises:
        SleepkitError: the upload failed; it can be repeated by `sleepkit push`.
    """
    repo_id, dreams, rehearsal = _asked(args, config)
    if repo_id is None and dreams is None:
        return
    again = " ".join(
        ["sleepkit push", shlex.quote(str(config.output_dir)), repo_id or "", f"--dreams {dreams}" if dreams else ""]
        + ["--rehearsal" if rehearsal else ""]
    )

    def push() -> None:
        try:
            push_run(str(config.output_dir), repo_id, dreams, rehearsal=rehearsal, token=config.hub_token or None)
        except SleepkitError as error:
            raise SleepkitError(f"the run is finished and its push is not: {error}; then: {' '.join(again.split())}") from error

    main_only(push)


def _asked(*given: Any) -> tuple[str | None, str | None, bool]:
    """Return what is to be pushed, as the arguments of a command or its configuration say."""

    def named(name: str) -> Any:
        return next((value for choice in given if (value := getattr(choice, name, None))), None)

    return named("push_to_hub_repo"), named("push_to_hub_dreams_repo"), bool(named("push_to_hub_rehearsal"))
