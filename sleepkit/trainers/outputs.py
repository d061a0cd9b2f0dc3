"""What a `SleepTrainer` leaves behind: its nights, the published folder with its card, and the accepted dreams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sleepkit.reporting.cards import model_card, model_name, published_name
from sleepkit.reporting.results import in_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sleepkit.reporting.results import RunRecord

__all__ = ["Night", "base_name", "nights_of", "write_card", "write_dreams"]


@dataclass(frozen=True)
class Night:
    """Night of a run: whether it was kept, why, and its metrics.

    Attributes:
        number (`int`): from 1.
        experience (`str`): name of what was learned.
        kept (`bool`): False where the gate undid it, or it was forgotten.
        reason (`str`): the gate's measures and limits, in one line.
        metrics (`dict[str, float]`): all that was measured, by name.
    """

    number: int
    experience: str
    kept: bool
    reason: str
    metrics: Mapping[str, float]


def nights_of(record: RunRecord) -> list[Night]:
    """The nights of a record, in order."""
    return [
        Night(
            row["night"],
            row["experience"],
            in_model(row),
            row["reason"],
            {k: v for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool) and k != "night"},
        )
        for row in record.nights
    ]


def base_name(model: PreTrainedModel) -> str:
    """Name of the base as others may know it: its Hub id, or the last part of its folder."""
    from sleepkit.language.model_io import SMOLLM2_ID
    from sleepkit.language.models.base_model import SMOLLM2, base_of

    base = base_of(model)
    if base is None:
        return type(model).__name__
    return SMOLLM2_ID if base.name == SMOLLM2 else base.public_name


def write_card(folder: Path, model: PreTrainedModel, record: RunRecord, repo_id: str | None) -> None:
    """The model card of a slept model, as ``README.md``."""
    base = base_name(model)
    dataset = published_name(str(record.config["dataset"]))
    name = model_name(repo_id, f"{base}-slept")
    model_card(record.to_dict(), model_name=name, base_model=base, dataset=dataset).save(folder / "README.md")


def write_dreams(out: Path, model: PreTrainedModel, record: RunRecord) -> None:
    """The accepted dreams of the nights that were kept, as a data set beside the model; nothing where there are none."""
    from sleepkit.language.dreaming.dataset import add_night, write_card
    from sleepkit.language.dreaming.night import accepted_dreams

    kept = [row["night"] for row in record.nights if in_model(row)]
    accepted = {night: accepted_dreams(out / f"night_{night:02d}") for night in kept}
    if not any(accepted.values()):
        return
    base = base_name(model)
    for night, dreams in accepted.items():
        add_night(out / "dreams", f"night_{night:02d}", dreams, base)
    source = published_name(str(record.config["dataset"]))
    write_card(out / "dreams", name=f"{Path(base).name}-dreams", model=base, source=source)
