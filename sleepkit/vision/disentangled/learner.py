"""Disentangled continual learning: what all classes share goes into weights, what is a class' own into an exemplar.

    wake      exemplars of today's classes are added                    (exemplars.py)
    sleep     the canonicalizer on today's images, whose poses are known, and on exemplars of all classes in random poses

              matrix and refinement losses of canonicalizer.py
    evaluate  the class of the exemplar that is nearest in canonical form

Labels of images (training rows): ``(n, 5)``, class and scale, orientation, position x and y.

Source: "Infinite dSprites for Disentangled Continual Learning" (arXiv 2312.16731).  Ours: pose replay, that is exemplars laid
into the image in poses drawn from the range of today's; it makes grids of poses continuous and keeps old shapes in view.  And:
exemplars from first images, as an alternative to canonical renders.  A night that was killed is trained again
from its start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sleepkit.utils.ranks import of_rows, own_draws, several_of_rows
from sleepkit.utils.seeds import derive_seed
from sleepkit.vision.data.image_data import as_bytes
from sleepkit.vision.disentangled.canonicalizer import OUTPUTS, RESNET_18, Canonicalizer, CanonicalizerConfig
from sleepkit.vision.disentangled.config import DisentangledConfig
from sleepkit.vision.disentangled.exemplars import Exemplars, Match
from sleepkit.vision.idsprites.affine import factors_to_matrix, rotations
from sleepkit.vision.idsprites.stream import SpritesExperience
from sleepkit.vision.incremental.learner import Accuracy, Snapshots
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows

__all__ = ["DisentangledLearner", "build_canonicalizer", "pose_rms"]


def build_canonicalizer(config: DisentangledConfig, exemplars: Tensor, backbone: str = "cnn") -> Canonicalizer:
    """Build a canonicalizer for images like ``exemplars`` (n, C, S, S), of their background too.

    Its weights come from torch's generator, those of ``backbone``, a Hub id or folder, from there.
    """
    channels, image_size = exemplars.shape[1:3]
    form = CanonicalizerConfig(
        num_channels=channels,
        image_size=image_size,
        output=config.output,
        backbone=RESNET_18 if backbone == "resnet18" else None,
        widths=list(config.widths),
        hidden_size=config.hidden_size,
        refinements=config.refinements,
        refine_widths=list(config.refine_widths),
        refine_hidden_size=config.hidden_size,
        image_mean=exemplars[..., 0, :].median().item(),
        refine_size=round(image_size * 5 / 8),  # a little coarser than the image
    )
    return Canonicalizer(form) if backbone in ("cnn", "resnet18") else Canonicalizer.on_backbone(backbone, form)


class DisentangledLearner(Snapshots):
    """Learner that puts what all classes share into the weights of a canonicalizer, and each class into an exemplar.

    Args:
        model: a canonicalizer for the stream's images.
        config: how a night is trained and exemplars are compared.
    """

    def __init__(self, model: Canonicalizer, config: DisentangledConfig) -> None:
        self.model, self.config = model, config
        self.model.to(config.device)  # type: ignore[arg-type]
        form = model.config
        self.exemplars = Exemplars(form.image_size, form.num_channels, form.output, config.exemplar_size, form.image_mean)
        self.today: SpritesExperience | None = None
        self.night = 0

    # -- awake ------------------------------------------------------------------------------------------------------
    def wake(self, experience: SpritesExperience) -> None:
        """Take an experience into view."""
        self.today = experience

    def evaluate(self, experiences: Sequence[SpritesExperience], in_context: bool = False) -> list[Accuracy]:
        """Accuracy on the test images of each experience: among all classes, and its own (by search in the pose of these).

        Of classes not met yet there is none; nor, but in every `evaluate_every`-th night and the last one, of earlier nights'.
        """
        known = set(self.exemplars.labels.tolist())
        if self.today is not None and self.night % self.config.evaluate_every and self.night < len(experiences):
            known &= set(self.today.labels)
        return [
            self._accuracy(experience) if known.issuperset(experience.labels) else Accuracy(float("nan"), float("nan"), 0)
            for experience in experiences
        ]

    def _accuracy(self, experience: SpritesExperience) -> Accuracy:
        images = experience.test.batch()["pixel_values"]
        labels, found = experience.test.labels, self.match(images, self.poses(images))
        right = (found.labels[:, 0] == labels).double().mean().item()
        own = torch.isin(self.exemplars.labels, torch.tensor(experience.labels)).nonzero().flatten()
        seen = self.exemplars.described(images, found.matrix)
        tangent = self.config.match == "aligned"
        nearest = of_rows(lambda part: self.exemplars.search(part, 1, tangent, own)[1][:, 0], seen, len(seen))
        return Accuracy(right, (self.exemplars.labels[nearest] == labels).double().mean().item(), len(labels))

    @torch.no_grad()
    def poses(self, images: Tensor) -> Tensor:
        """Matrices ``(N, 3, 3)`` of images ``(N, C, S, S)`` from 0 to 1, on the CPU; call it on all processes."""
        self.model.eval()
        device, size = self.model.device, self.config.per_device_eval_batch_size
        return of_rows(lambda part: self.model(pixel_values=part.to(device)).matrix.float().cpu(), images, size)

    def match(self, images: Tensor, matrix: Tensor, exemplars: Exemplars | None = None, how: str | None = None) -> Match:
        """Return the nearest classes of images, each process those of its share; call it on all.

        Args:
            images: ``(n, channels, size, size)``, 0 to 1.
            matrix: their poses, ``(n, 3, 3)``.
            exemplars: to compare with; the learner's by default.
            how: to compare, one of `MATCHES`; as configured by default.
        """
        exemplars = self.exemplars if exemplars is None else exemplars
        config, size = self.config, self.config.per_device_eval_batch_size
        given = (how or config.match, config.candidates, config.align_steps, config.turns)

        def classified(rows: Tensor) -> Match:
            return exemplars.classify(images[rows], matrix[rows], *given)

        return Match(*several_of_rows(classified, torch.arange(len(images)), size))

    # -- asleep -----------------------------------------------------------------------------------------------------
    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Learn today's experience; returns history and costs."""
        assert self.today is not None
        start = time.process_time()
        self.night = night
        test = self.today.test.batch()
        before = self._pose_rms(test)
        self.exemplars.add(*self._exemplars(self.today))
        images = self.today.train.batch()
        rows = TensorRows(
            as_bytes(images["pixel_values"]), torch.cat([images["labels"][:, None].float(), images["factors"]], dim=1)
        )
        self._range = images["factors"].aminmax(dim=0)
        self.model.train()
        folder, what = Path(output_dir) / f"night_{night:02d}", f"night {night}"
        trainer = IncrementalTrainer(self.model, self.loss, self.config, rows, self._night_seed, folder, what=what)
        log = trainer.run()
        self.model.eval()
        log |= {"bytes": self.exemplars.bytes, "forward_pose_rms": before, "pose_rms": self._pose_rms(test)}
        return log | {"cpu_seconds": time.process_time() - start}

    @property
    def _night_seed(self) -> int:
        return derive_seed(self.config.seed, "night", self.night)

    def _exemplars(self, experience: SpritesExperience) -> tuple[Tensor, Tensor]:
        """Views and labels of the exemplars of its classes."""
        if self.config.exemplar_source == "render":
            canonical = torch.eye(3).expand(len(experience.labels), 3, 3)
            return self.exemplars.view(experience.exemplars, canonical), torch.tensor(experience.labels)
        labels = experience.train.labels
        first = torch.cat(
            [(labels == label).nonzero().flatten()[: self.config.exemplars_per_class] for label in experience.labels]
        )
        images = experience.train.batch(first)
        return self.exemplars.view(images["pixel_values"], factors_to_matrix(images["factors"])), images["labels"]

    def loss(self, model: nn.Module, pixels: Tensor, labels: Tensor, step: int) -> Tensor:
        """Return the loss of today's images, with exemplars in random poses beside them."""
        config, device = self.config, pixels.device
        generator, today = np.random.default_rng([config.seed, self.night, step, 0]), len(pixels)
        replayed = config.pose_replay * today

        def own(draw: Callable[[int], Any]) -> Tensor:
            return torch.from_numpy(np.concatenate([own_draws(draw, today), own_draws(draw, replayed)]))

        images, matrix = pixels / 255, factors_to_matrix(labels[:, 1:])
        if replayed:
            known = len(self.exemplars)
            places = torch.from_numpy(own_draws(lambda count: generator.integers(known, size=count), replayed))
            poses = own_draws(lambda count: self._drawn_poses(count, generator), replayed).to(device)
            images = torch.cat([images, self.exemplars.warped(places, poses)])
            matrix = torch.cat([matrix, poses])
        outputs = OUTPUTS[config.output]
        noise = own(lambda count: generator.standard_normal((count, outputs), dtype=np.float32))
        extra = {}
        if config.turns > 1:
            angles = own(lambda count: generator.uniform(0, 2 * math.pi, count))
            extra["turn"] = rotations(angles.float()).to(device)
        low, high = math.log(config.spread_low), math.log(config.spread_high)
        spread = own(lambda count: generator.uniform(low, high, (count, 1))).exp().float()
        loss: Tensor = model(pixel_values=images, matrix=matrix, noise=noise.to(device), spread=spread.to(device), **extra).loss
        return loss

    def _drawn_poses(self, count: int, generator: np.random.Generator) -> Tensor:
        """Matrices ``(count, 3, 3)`` of any orientation, and scales and positions from the range of today's."""
        low, high = self._range
        factors = low + torch.from_numpy(generator.random((count, 4), dtype=np.float32)) * (high - low)
        factors[:, 1] = torch.from_numpy(generator.uniform(0, 2 * math.pi, count)).float()
        return factors_to_matrix(factors)

    def _pose_rms(self, batch: dict[str, Tensor]) -> float:
        return pose_rms(self.poses(batch["pixel_values"]), factors_to_matrix(batch["factors"]))

    # -- keeping ----------------------------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that a night changes."""
        state = {f"model.{name}": values.detach().cpu().clone() for name, values in self.model.state_dict().items()}
        return state | {"exemplars.pictures": self.exemplars.pictures.clone(), "exemplars.labels": self.exemplars.labels.clone()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo everything since the snapshot, bit for bit."""
        self.exemplars.set(snapshot["exemplars.pictures"].clone(), snapshot["exemplars.labels"].clone())
        weights = {name.removeprefix("model."): values for name, values in snapshot.items() if name.startswith("model.")}
        self.model.load_state_dict(weights)


def pose_rms(found: Tensor, matrix: Tensor) -> float:
    """Root mean square of the errors of the six entries of matrices ``(N, 2 or 3, 3)``."""
    return (found[:, :2] - matrix[:, :2]).double().square().mean().sqrt().item()
