"""Prompts that are vectors: where they start, and files that any Stable Diffusion pipeline loads.

    p        (n, token size)       n learnable token embeddings
    start    mean      mean of the generator's token embeddings + `SPREAD` rms N(0, 1)
             tokens    embeddings of n tokens, drawn in proportion to their squared length (one that training of the generator has
                       not touched is short, and says nothing): every dream starts from other words
    step     learning rate in units of the rms of the token embeddings, so that one value serves all generators

A file has the layout of textual inversion (Gal et al. 2022, arXiv 2208.01618), ``{"<dream-3>": (n, token size)}``::

    pipe.load_textual_inversion("prompts/dream_3.safetensors"); pipe("<dream-3>")

Ours: all numbers.  Left out: how prompts are learned (dreaming.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sleepkit.utils.files import replacing

__all__ = ["STARTS", "Dream", "initial_vectors", "rms", "save_prompt"]

STARTS = ("tokens", "mean")
SPREAD = 0.5


@dataclass(eq=False)
class Dream:
    """A pseudo-class: images of one seen class, regenerated under a prompt that was optimised for another.

    Attributes:
        number: its own, never given again; the label of its unit.
        target: label of the class that the prompt was optimised for.
        source: label of the class whose images it starts from.
        night: that made it, from 1.
        stop: updates that its prompt had.
        vectors: the prompt, ``(n, token size)``.
    """

    number: int
    target: int
    source: int
    night: int
    stop: int
    vectors: Tensor

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the dream as tensors, which an image learner's `extras` hold."""
        about = torch.tensor([self.target, self.source, self.night, self.stop])
        return {f"{self.number}.about": about, f"{self.number}.vectors": self.vectors}

    @classmethod
    def from_tensors(cls, number: int, parts: dict[str, Tensor]) -> Dream:
        """Return the dream that `to_tensors` has made tensors of."""
        target, source, night, stop = parts["about"].tolist()
        return cls(number, target, source, night, stop, parts["vectors"])


def rms(table: Tensor) -> float:
    """Root mean square of all token embeddings ``(tokens, size)``."""
    return table.pow(2).mean().sqrt().item()


def initial_vectors(table: Tensor, count: int, seed: int, start: str = "mean") -> Tensor:
    """``(count, token size)``, of a generator's token embeddings ``(tokens, token size)``; ``start`` is one of `STARTS`."""
    generator = torch.Generator().manual_seed(seed)
    table = table.cpu()
    if start == "tokens":
        return table[torch.multinomial(table.pow(2).sum(1), count, replacement=True, generator=generator)]
    return table.mean(0) + SPREAD * rms(table) * torch.randn(count, table.shape[1], generator=generator)


def save_prompt(path: Path, name: str, vectors: Tensor) -> None:
    """Write one prompt in the layout of textual inversion."""
    with replacing(path) as draft:
        save_file({name: vectors.detach().float().cpu().contiguous()}, draft)
