"""What `sleepkit publish` costs in the plain form: the model is loaded, its FFN blocks are copied with more units and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sleepkit.language.experts.export import PROBED, added_units
from sleepkit.language.experts.ffn import matrices_of
from sleepkit.language.models.decoder import find_decoder_layers, find_ffn, text_config

if TYPE_CHECKING:
    from sleepkit.language.plan.blank import BlankModel
    from sleepkit.language.plan.machines import Machine

__all__ = ["Export", "planned_export"]


@dataclass(frozen=True)
class Export:
    """The plain form of a slept model.

    Attributes:
        form: "plain", or "experts" where there is no plain form.
        file_bytes: that are written.
        peak_bytes: beyond Python and its libraries, on the CPU: the slept model, and the blocks of the wider one.
        flops: of comparing the two.
        seconds: of writing.
    """

    form: str
    file_bytes: int
    peak_bytes: int
    flops: float
    seconds: float


def planned_export(blank: BlankModel, nights: int, machine: Machine) -> Export:
    """Plan the publishing of a model with the experts of so many nights."""
    bank, sizes = blank.bank, blank.sizes
    width = bank.config.width or 0
    if bank.config.kind != "ffn":
        size = 4 * sizes.trained * nights
        return Export("experts", size, size, 0.0, size / machine.disk)
    item = next(blank.model.parameters()).element_size()
    blocks = [find_ffn(layer) for layer in find_decoder_layers(blank.model)]
    hidden = text_config(blank.model).hidden_size
    copied = written = 0
    for ffn in blocks:
        matrices = None if ffn is None else matrices_of(ffn, hidden)
        if ffn is None or matrices is None:
            continue
        units = added_units(matrices.width, width * nights)
        own = sum(p.numel() for name, p in ffn.named_parameters() if "sleep_experts" not in name) * item
        copied += own * (matrices.width + units) // matrices.width
        written += own * units // matrices.width
    vocabulary = text_config(blank.model).vocab_size
    logits = PROBED * vocabulary * (2 * item + 3 * 4)
    size = sizes.weights + written
    return Export(
        "plain", size, sizes.weights + sizes.experts + copied + logits, 4.0 * sizes.parameters * PROBED, size / machine.disk
    )
