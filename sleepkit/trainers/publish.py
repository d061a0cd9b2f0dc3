"""Publish a finished run: what `sleepkit publish` and `trainer.push_to_hub` do, and a run that was asked to at its end.

    publish("runs/owl", "me/owl", dreams="me/owl-dreams")     a whole model for any program, and its dreams
    publish("runs/owl", "me/owl", form="experts")             a few megabytes, for sleepkit
    publish("runs/owl", "published")                          the same files, in a folder

    <run>/model/       slept model in one of its forms (forms.py), classifier or canonicalizer, with its card   -> me/owl
    <run>/dreams/      accepted dreams (text); of recipes/dream.py those of all rounds                          -> me/owl-dreams
    <run>/state/       rehearsal buffer (text), only if asked for                            -> me/owl, below rehearsal/
    <run>/seed_<n>/    each such run by itself                                               -> me/owl-seed-<n>

A run of which no night was kept has nothing to publish, and says so.  What is uploaded is listed before it is.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting.cards import is_hub_id, published_name
from sleepkit.reporting.results import FILE_NAME, in_model, read_results
from sleepkit.trainers.forms import Made, as_experts, as_form, chosen_form
from sleepkit.trainers.hub import BANK, CARD, Published, Target, check_access, published, push_files
from sleepkit.utils.files import read_json, read_jsonl, writable
from sleepkit.utils.ranks import main_only

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = ["check_publishing", "publish", "publish_if_asked"]


@dataclass
class _Part:
    """What goes to one place: `make` writes it into the folder that it is given; None where ``reason`` says why nothing goes."""

    place: Target | Path
    make: Callable[[Path], Made] | None
    reason: str = ""

    @property
    def name(self) -> str:
        return self.place.repo_id if isinstance(self.place, Target) else str(self.place)


def publish(
    run: str | Path,
    target: str | Path | Target | None = None,
    dreams: str | None = None,
    *,
    form: str = "auto",
    rehearsal: bool = False,
    public: bool = False,
    base_model: str | None = None,
    token: str | None = None,
    **loading: Any,
) -> list[str]:
    """Publish what a finished run has made: write it to a folder, or upload it after it is listed.

    Args:
        run: output folder of a run, also one with several seeds, each of which gets a place of its own; for a plain model in a
            folder also the Hub id of a slept one, or a folder of saved experts.
        target: where the model goes: a folder, which must be empty or new, or ``owner/name`` on the Hub, where there is no
            folder ``owner`` here; None publishes none.
        dreams: repository of the accepted dreams, a data set; None uploads none.
        form: ``plain``, a whole model for any program; ``experts``, for sleepkit; ``lora``, an adapter of PEFT that is distilled
            now; ``auto``: plain where the model has such a form, else experts.
        rehearsal: the rehearsal buffer with the experts, which holds text of the documents.
        public: let all read what is pushed; otherwise repositories are private.
        base_model: Hub id or folder of the base, if it is no longer where the experts say.
        token: access token; None takes the one of `hf auth login`.
        loading: how the base is loaded, as `load_model` takes it.

    Returns:
        The folders, and the addresses of the commits.

    Raises:
        SleepkitError: no finished run there, nothing asked for, a form that the model does not have, a folder that holds
            something, or as `hub.push_files`.
    """
    if target is None and dreams is None:
        raise SleepkitError(
            "nothing to publish is named; give owner/name or a folder for the model, --dreams owner/name, or both"
        )
    if target is None and (rehearsal or form != "auto"):
        what = "the rehearsal buffer goes" if rehearsal else f"form {form} is one of a model, which goes"
        raise SleepkitError(f"{what} where the model goes; give owner/name or a folder for it too")
    with tempfile.TemporaryDirectory() as scratch:
        parts = []
        for folder, suffix in _runs(run):
            if target is not None:
                parts.append(_model_part(folder, _place(target, suffix), form, rehearsal, base_model, loading))
            if dreams is not None:
                parts.append(_dreams_part(Path(folder), Target(dreams + suffix, "dataset"), Path(scratch) / (suffix or "run")))
        for part in parts:
            if part.reason:
                print(f"not published as {part.name}: {part.reason}")
        wanted = [part for part in parts if part.make]
        _check_places(wanted, public, token)
        return [_published(part, public, token) for part in wanted]


def _runs(run: str | Path) -> list[tuple[str | Path, str]]:
    """The folder of a run, or those of its seeds, each with what its place is called by besides; or a slept model, as it is."""
    seeds = sorted(path.parent for path in Path(run).glob(f"seed_*/{FILE_NAME}"))
    return [(seed, f"-{seed.name.replace('_', '-')}") for seed in seeds] or [(run, "")]


def _place(target: str | Path | Target, suffix: str) -> Target | Path:
    """Where a target is: a name with an owner is on the Hub unless it can be a folder here."""
    if isinstance(target, Target):
        return Target(target.repo_id + suffix, target.kind)
    if isinstance(target, str) and is_hub_id(target, to_be_made=True):
        return Target(target + suffix)
    return Path(f"{target}{suffix}").expanduser()


def _check_places(parts: Sequence[_Part], public: bool, token: str | None) -> None:
    """Raise `SleepkitError` for what could not be written, before anything is made."""
    for path in (part.place for part in parts if isinstance(part.place, Path)):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise SleepkitError(f"{path} holds something already; choose a folder that is new or empty")
    if targets := [part.place for part in parts if isinstance(part.place, Target)]:
        check_access(targets, private=not public, token=token)


# -- what there is ----------------------------------------------------------------------------------------------------
def _model_part(
    run: str | Path, place: Target | Path, form: str, rehearsal: bool, base_model: str | None, loading: dict[str, Any]
) -> _Part:
    chosen, why = chosen_form(form, rehearsal)
    if not (Path(run) / FILE_NAME).is_file():
        if chosen != "plain" or isinstance(place, Target):
            raise SleepkitError(f"{run} holds no finished run; give the output folder of one")
        return _Part(place, lambda folder: as_form("plain", run, folder, place.name, base_model, loading))
    run = Path(run)
    if reason := _nothing_kept(run):
        return _Part(place, None, reason)
    if not (run / "model" / CARD).is_file():
        raise SleepkitError(
            f"{run} has no model to publish; give the folder of a run that makes one, or only --dreams owner/name"
        )
    if not (run / "model" / BANK).is_file():  # a model of images
        if form != "auto" or rehearsal:
            raise SleepkitError(f"{run} holds no language model, and so one form alone; leave --form and --rehearsal out")
        return _Part(place, lambda _: as_experts(run))
    if not read_json(run / "model" / BANK)["active"]:
        return _Part(place, None, f"{run} holds no expert that is in use")
    if chosen == "experts":
        return _Part(place, lambda _: as_experts(run, rehearsal, why))
    name = place.repo_id if isinstance(place, Target) else place.name
    return _Part(place, lambda folder: as_form(form, run, folder, name, base_model, loading))


def _nothing_kept(run: Path) -> str:
    """Why a run has nothing to publish, if no night of it was kept."""
    nights = read_results(run).get("nights") or []
    return f"none of the {len(nights)} nights of {run} was kept" if nights and not any(map(in_model, nights)) else ""


def _dreams_part(run: Path, target: Target, scratch: Path) -> _Part:
    if not (run / FILE_NAME).is_file():
        raise SleepkitError(f"{run} holds no finished run; give the output folder of one")
    folder = run / "dreams"
    if not (folder / CARD).is_file() and any(folder.glob("round_*")):
        folder = _dreams_of_rounds(run, scratch)
    if not (folder / CARD).is_file():
        return _Part(target, None, f"{run} has no accepted dreams")
    content = published(folder, "dataset")
    content.files |= {name: _without_folders(source) for name, source in content.files.items() if name.endswith(".jsonl")}
    return _Part(target, lambda _: (content, "dreams, which hold TEXT OF THE DOCUMENTS as the model wrote it"))


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


# -- where it goes ----------------------------------------------------------------------------------------------------
def _published(part: _Part, public: bool, token: str | None) -> str:
    """Make a part in a folder of its own, so that one that fails leaves nothing, and put it in its place."""
    assert part.make is not None
    if isinstance(part.place, Target):
        with tempfile.TemporaryDirectory() as draft:
            return _pushed(part.place, *part.make(Path(draft)), public, token)
    place = part.place.absolute()
    with writable(place):
        beside = next(folder for folder in place.parents if folder.is_dir())  # on the same disk, so that files can be moved
        with tempfile.TemporaryDirectory(dir=beside, prefix=f".{place.name}.") as draft:
            content, says = part.make(Path(draft))
            _put(content, place, Path(draft))
    print(f"written to {part.place}: {says} ({_size(content)})", flush=True)
    return str(part.place)


def _put(content: Published, folder: Path, draft: Path) -> None:
    """Move what was made in a draft into a folder, and copy the rest."""
    for name, source in content.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            path.write_bytes(source)
        elif draft in source.parents:
            os.replace(source, path)
        else:
            shutil.copyfile(source, path)
        content.files[name] = path


def _pushed(target: Target, content: Published, says: str, public: bool, token: str | None) -> str:
    print(f"pushing to {target.repo_id} ({target.kind}, {'all may read it' if public else 'private'}): {says}")
    for name, size in content.sizes().items():
        print(f"  {name}  {size:,} bytes")
    for name in content.left:
        print(f"  (stays here: {name})")
    print(f"  {_size(content)}", flush=True)
    address = push_files(content.files, target, private=not public, token=token)
    print(f"pushed: {address}", flush=True)
    return address


def _size(content: Published) -> str:
    sizes = content.sizes()
    return f"{len(sizes)} files, {sum(sizes.values()):,} bytes"


# -- of a run, from its arguments -------------------------------------------------------------------------------------
@dataclass
class _Asked:
    """What is to be pushed at the end of a run, as the arguments of a command or its configuration say."""

    repo_id: str | None
    form: str
    dreams: str | None
    rehearsal: bool

    @classmethod
    def by(cls, *given: Any) -> _Asked:
        """Take of each option the first value that is given."""

        def named(name: str) -> Any:
            return next((value for choice in given if (value := getattr(choice, f"push_to_hub_{name}", None))), None)

        return cls(named("repo"), named("form") or "auto", named("dreams_repo"), bool(named("rehearsal")))

    def command(self, run: str, token: str | None) -> str:
        """Write the command that does it."""
        words = ["sleepkit publish", shlex.quote(run), _with_owner(self.repo_id, token) if self.repo_id else ""]
        words += [f"--form {self.form}" if self.form != "auto" else "", f"--dreams {self.dreams}" if self.dreams else ""]
        return " ".join(filter(None, [*words, "--rehearsal" if self.rehearsal else ""]))


def _with_owner(name: str, token: str | None) -> str:
    """A repository as `sleepkit publish` takes it, to which a name without an owner is a folder."""
    if "/" in name:
        return name
    try:
        return check_access([Target(name)], private=False, token=token)[0]
    except SleepkitError:  # which is why the push has failed
        return f"OWNER/{name}"


def check_publishing(args: Any, config: TrainingArguments, refused: str = "") -> None:
    """Before the first night: raise `SleepkitError` if what is to be pushed at the end could not be, so that no hour is lost.

    Args:
        args: with ``push_to_hub_repo``, and what else of ``seeds``, ``push_to_hub_form``, ``push_to_hub_dreams_repo`` and
            ``push_to_hub_rehearsal`` the method has.
        config: with the token.
        refused: why a run like this one has nothing to push.
    """
    asked = _Asked.by(args, config)
    if asked.repo_id is None and (asked.rehearsal or asked.form != "auto"):
        name = "rehearsal" if asked.rehearsal else "form"
        raise SleepkitError(f"push_to_hub_{name} goes with the model; give push_to_hub_repo too, or leave it out")
    if asked.repo_id is None and asked.dreams is None:
        return
    if refused:
        raise SleepkitError(f"push_to_hub_{'repo' if asked.repo_id else 'dreams_repo'} is given and {refused}; leave it out")
    chosen_form(asked.form, asked.rehearsal)
    suffixes = [f"-seed-{seed}" for seed in getattr(args, "seeds", None) or []] or [""]
    targets = [Target(asked.repo_id + suffix) for suffix in suffixes if asked.repo_id]
    targets += [Target(asked.dreams + suffix, "dataset") for suffix in suffixes if asked.dreams]
    main_only(lambda: check_access(targets, private=True, token=config.hub_token or None))


def publish_if_asked(args: Any, config: TrainingArguments, **loading: Any) -> None:
    """After the results are written and printed: push what was asked for.

    Args:
        args, config: as for `check_publishing`.
        loading: how the base is loaded, as `load_model` takes it.

    Raises:
        SleepkitError: the upload failed; it can be repeated by `sleepkit publish`.
    """
    asked, run, token = _Asked.by(args, config), str(config.output_dir), config.hub_token or None
    if asked.repo_id is None and asked.dreams is None:
        return
    target = None if asked.repo_id is None else Target(asked.repo_id)

    def push() -> None:
        try:
            publish(run, target, asked.dreams, form=asked.form, rehearsal=asked.rehearsal, token=token, **loading)
        except SleepkitError as error:
            again = asked.command(run, token)
            raise SleepkitError(f"the run is finished and its push is not: {error}; then: {again}") from error

    main_only(push)
