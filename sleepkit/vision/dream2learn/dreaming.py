"""Optimise soft prompts by a classifier's signal until an oracle says stop; all prompts of a night in one batch.

    x_i    = paint(start image i, noise i, p)               i = 1..m, images of a class that is not the target
    loss   = mean_i CE(classifier(x_i), target)             over the units of seen classes
    p     <- Adam(p, learning rate x rms of token embeddings)
    stop   where k >= least updates and oracle(Z_0, Z_k) >= threshold, or k = most updates; a dream that has collapsed there
           goes back to the last update (from the least on) where it had not

Start images and noise stay the same during a run.  A prompt that has stopped leaves the batch.  Where there is no oracle yet,
every prompt goes to the end, and is taken from where its score was greatest; the trajectories train the oracle.

Prompts do not depend on each other: each rank optimises its own, and every few updates the state is written (one file,
one rename), so that a night that was killed goes on in the middle of its prompts, to the same vectors.

Source: see painter.py and oracle.py.  Ours: batching, resuming, Adam by hand (its state is two tensors, rows of which
stop on their own).  No `transformers.Trainer` here: its one loss and one step for all would couple the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from sleepkit.utils.phases import PhaseFile
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import require_finite
from sleepkit.vision.dream2learn.config import Dream2LearnConfig
from sleepkit.vision.dream2learn.oracle import FEATURES, DreamFeatures, Oracle, collapse, describe, score
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import rms
from sleepkit.vision.incremental.classifier import IncrementalClassifier
from sleepkit.vision.incremental.output_units import REAL

__all__ = ["Cost", "OptimisedPrompt", "PromptRequest", "Seen", "new_pairs", "optimise_prompts", "seen_classes", "summary"]

BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass
class Seen:
    """The classes met so far: their ``units`` (classes,), and in feature space ``prototypes`` (classes, hidden) and the
    distance ``near`` (classes,) from it below which few images of the class are."""

    units: Tensor
    prototypes: Tensor
    near: Tensor


@dataclass
class PromptRequest:
    """Prompt to be optimised, and the images of the source class that it starts from.

    Attributes:
        target, source: places among the seen classes.
        images: ``(m, channels, height, width)``, of the source.
        vectors: where the prompt starts, ``(n, token size)``.
        seed: of the noise.
        number: of the dream, the seed of what noise its images share.
    """

    target: int
    source: int
    images: Tensor
    vectors: Tensor
    seed: int
    number: int

    @property
    def seeds(self) -> list[int]:
        """Seeds of the noise, one for each image."""
        return [derive_seed(self.seed, "noise", place) for place in range(len(self.images))]


@dataclass
class OptimisedPrompt:
    """What became of a request: ``path`` (updates + 1, n, token size), ``described`` (updates + 1, FEATURES), ``scores``
    (updates + 1,), ``collapsed`` (updates + 1, 2) bool (became the target, became alike), and whether the oracle stopped it."""

    path: Tensor
    described: Tensor
    scores: Tensor
    collapsed: Tensor
    stopped: bool

    @property
    def updates(self) -> int:
        """Number of prompt updates that were made."""
        return len(self.path) - 1

    def stop(self, least: int) -> int:
        """Return the update that a dream is taken from: where an oracle has stopped it, or before it collapsed if it has."""
        sound = [update for update in range(min(least, self.updates), self.updates + 1) if not self.collapsed[update].any()]
        return sound[-1] if sound else self.updates


class Cost(NamedTuple):
    """Cost of a rank's prompts: ``calls`` of the UNet in all sessions, and ``flops_before`` this session began."""

    calls: int
    flops_before: int


def optimise_prompts(
    painter: DreamPainter,
    model: IncrementalClassifier,
    requests: Sequence[PromptRequest],
    seen: Seen,
    oracle: Oracle | None,
    config: Dream2LearnConfig,
    folder: Path,
    identity: Mapping[str, Any] | None = None,
) -> tuple[list[OptimisedPrompt], Cost]:
    """Optimise all prompts, each rank its share.

    Args:
        folder: where each rank keeps its state.
        identity: what decides the prompts; a state that was kept with another one is not gone on from.

    Returns:
        What became of the prompts, in their order, the same on all ranks; and what this rank's have cost.
    """
    ranks = PartialState()
    mine = list(range(ranks.process_index, len(requests), ranks.num_processes))
    path = folder / f"prompts_{ranks.process_index}_of_{ranks.num_processes}.safetensors"
    found: list[OptimisedPrompt] = []
    cost = Cost(0, 0)
    if mine:
        phase = PhaseFile(path, identity or {})
        found, cost = _PromptOptimiser(painter, model, [requests[place] for place in mine], seen, oracle, config, phase).run()
    if ranks.num_processes == 1:
        return found, cost
    both: list[Any] = gather_object(list(zip(mine, found, strict=True)))
    return [one for _, one in sorted(both, key=lambda pair: pair[0])], cost


def new_pairs(
    classes: Sequence[int], taken: set[tuple[int, int]], count: int, seed: int | Sequence[int]
) -> list[tuple[int, int]]:
    """(target, source) of ``count`` dreams, or fewer: each class in turn, with sources in an order of its own, none twice."""
    source = np.random.default_rng(seed)
    orders = {one: source.permutation([other for other in classes if other != one]).tolist() for one in classes}
    turns = range(len(classes) - 1)
    every = [(one, orders[one][turn]) for turn in turns for one in source.permutation(classes).tolist()]
    return [pair for pair in every if pair not in taken][: max(count, 0)]


def summary(prompts: Sequence[OptimisedPrompt], stops: Sequence[int], ends: Sequence[int], most: int) -> dict[str, float]:
    """Return means over the optimised prompts, by name; empty where there are none.

    Args:
        stops: update that each is taken from.
        ends: update at which it was stopped, which is later where it went back; ``most`` if it was not.
    """
    if not prompts:
        return {}
    there = torch.stack([prompt.collapsed[stop] for prompt, stop in zip(prompts, stops, strict=True)]).float()
    last = torch.stack([prompt.collapsed[-1] for prompt in prompts])
    return {
        "stop_updates": sum(stops) / len(stops),
        "stopped_early": sum(end < most for end in ends) / len(ends),
        "became_target": there[:, 0].mean().item(),
        "became_alike": there[:, 1].mean().item(),
        "collapse_rate": there.amax(1).mean().item(),
        "collapse_rate_at_end": last.any(1).float().mean().item(),
    }


class _PromptOptimiser:
    """The state of one rank's prompts, all tensors of which have a row for each request."""

    def __init__(
        self,
        painter: DreamPainter,
        model: IncrementalClassifier,
        requests: list[PromptRequest],
        seen: Seen,
        oracle: Oracle | None,
        config: Dream2LearnConfig,
        phase: PhaseFile,
    ) -> None:
        self.painter, self.model, self.requests, self.seen = painter, model, requests, seen
        self.oracle, self.config, self.phase = oracle, config, phase
        count, most = len(requests), config.dream_updates
        vectors = torch.stack([request.vectors for request in requests]).float()
        self.state = {
            "path": vectors[:, None].repeat(1, most + 1, 1, 1),  # (requests, updates + 1, n, token size)
            "first": torch.zeros_like(vectors),  # Adam's moments
            "second": torch.zeros_like(vectors),
            "described": torch.zeros(count, most + 1, FEATURES),
            "scores": torch.zeros(count, most + 1),
            "collapsed": torch.zeros(count, most + 1, 2, dtype=torch.bool),
            "updates": torch.full((count,), most),  # after which it ended
            "running": torch.ones(count, dtype=torch.bool),
            "next": torch.zeros((), dtype=torch.int64),
            "calls": torch.zeros((), dtype=torch.int64),  # of the UNet, and floating-point operations
            "flops": torch.zeros((), dtype=torch.int64),
        }
        self.rate = config.prompt_learning_rate * rms(painter.table)
        self.latents = [painter.encode(request.images) for request in requests]
        self.started: dict[int, DreamFeatures] = {}  # before any update

    def run(self) -> tuple[list[OptimisedPrompt], Cost]:
        state, before = self.state, 0
        if self.phase.read() is not None:
            state |= load_file(self.phase.path)
            flops = self.painter.flops
            self.started = self._look_at_start()
            before = int(state["flops"]) - (self.painter.flops - flops)  # an uninterrupted run does not look again
        for update in range(int(state["next"]), self.config.dream_updates + 1):
            if not state["running"].any():
                break
            calls, flops = self.painter.calls, self.painter.flops
            for rows in state["running"].nonzero().flatten().split(self.config.prompts_per_batch):
                self._step(update, rows.tolist())
            state["calls"] += self.painter.calls - calls
            state["flops"] += self.painter.flops - flops
            state["next"].fill_(update + 1)
            if (update + 1) % self.config.checkpoint_updates == 0:
                self._save()
        self._save()
        require_finite({"the prompts": state["path"]}, "dreaming", self.config.prompt_learning_rate)
        return [self._optimised(row) for row in range(len(self.requests))], Cost(int(state["calls"]), before)

    def _step(self, update: int, rows: list[int]) -> None:
        """Look at the images of some prompts, stop those that should, and move the others."""
        state, last = self.state, update == self.config.dream_updates
        vectors = state["path"][rows, update].to(self.painter.device).requires_grad_()
        with torch.set_grad_enabled(not last):
            looks, losses = self._look(rows, vectors)
        going = []
        for place, (row, now) in enumerate(zip(rows, looks, strict=True)):
            self._note(row, update, now)
            advice = self.oracle is not None and update >= self.config.least_updates
            stop = advice and self.oracle(state["described"][row, update][None]).item() >= self.config.stop_threshold  # type: ignore[misc]
            if stop:
                state["updates"][row], state["running"][row] = update, False
            elif not last:
                going.append(place)
        if going:
            (gradient,) = torch.autograd.grad(losses[going].sum(), vectors)
            moving = [rows[place] for place in going]
            state["path"][moving, update + 1] = self._moved(moving, update, gradient[going].float().cpu())

    def _moved(self, rows: list[int], update: int, gradient: Tensor) -> Tensor:
        """Take one step of Adam."""
        state, (one, two) = self.state, BETAS
        state["first"][rows] = one * state["first"][rows] + (1 - one) * gradient
        state["second"][rows] = two * state["second"][rows] + (1 - two) * gradient**2
        mean = state["first"][rows] / (1 - one ** (update + 1))
        root = (state["second"][rows] / (1 - two ** (update + 1))).sqrt()
        return state["path"][rows, update] - self.rate * mean / (root + EPSILON)

    def _look(self, rows: list[int], vectors: Tensor) -> tuple[list[DreamFeatures], Tensor]:
        """Show the images of some prompts to the classifier, without gradient; returns what it sees, and losses ``(rows,)``."""
        latents = torch.cat([self.latents[row] for row in rows])
        seeds = [seed for row in rows for seed in self.requests[row].seeds]
        m, size = len(self.requests[0].images), self.requests[0].images.shape[-1]
        common = [self.requests[row].number for row in rows for _ in range(m)]
        images = self.painter.paint(latents, vectors, seeds, size, common)
        found = self.model(pixel_values=images)
        logits = found.logits[:, self.seen.units]
        targets = torch.tensor([self.requests[row].target for row in rows], device=logits.device)
        losses = F.cross_entropy(logits, targets.repeat_interleave(m), reduction="none").view(-1, m).mean(1)
        features, shares = found.features.detach().split(m), logits.detach().softmax(1).split(m)
        return [DreamFeatures(*one) for one in zip(features, shares, strict=True)], losses

    @torch.no_grad()
    def _look_at_start(self) -> dict[int, DreamFeatures]:
        found = []
        for rows in torch.arange(len(self.requests)).split(self.config.prompts_per_batch):
            found += self._look(rows.tolist(), self.state["path"][rows, 0].to(self.painter.device))[0]
        return dict(enumerate(found))

    def _note(self, row: int, update: int, now: DreamFeatures) -> None:
        state, request, first = self.state, self.requests[row], self.started.setdefault(row, now)
        own, other = self.seen.prototypes[request.target], self.seen.prototypes[request.source]
        progress = update / max(self.config.dream_updates, 1)
        state["described"][row, update] = describe(first, now, request.target, own, other, progress)
        state["scores"][row, update] = score(first, now)
        near = self.seen.near[request.target].item()
        state["collapsed"][row, update] = torch.tensor(collapse(first, now, own, near))

    def _save(self) -> None:
        self.phase.write(lambda draft: save_file(self.state, draft))

    def _optimised(self, row: int) -> OptimisedPrompt:
        made = int(self.state["updates"][row]) + 1
        names = ("path", "described", "scores", "collapsed")
        path, described, scores, collapsed = (self.state[name][row, :made].clone() for name in names)
        return OptimisedPrompt(path, described, scores, collapsed, stopped=not bool(self.state["running"][row]))


def seen_classes(model: IncrementalClassifier, features: Tensor, units: Tensor, nearer_than: float) -> Seen:
    """Prototypes of the real classes from replayed images.

    Args:
        features: ``(n, hidden)``.
        units: ``(n,)`` of the images.
        nearer_than: share of a class' images that are nearer to its prototype than ``near``.
    """
    known = torch.tensor(model.slots.where(REAL))
    prototypes, near = [], []
    for unit in known:
        own = features[units == unit]
        prototypes.append(own.mean(0))
        near.append((own - prototypes[-1]).norm(dim=1).quantile(nearer_than))
    device = model.device
    return Seen(known.to(device), torch.stack(prototypes).to(device), torch.stack(near).to(device))
