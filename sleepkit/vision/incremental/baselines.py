"""Baselines of continual learning on images, each a few lines on the same learner, stream, backbone and trainer.

    finetune     cross-entropy on new images only                                                     (floor)
    joint        a new model every night, trained on all images so far                                (ceiling)
    er           new and replayed images in one batch; reservoir (Chaudhry et al. 2019, arXiv 1902.10486)
    der          DER++: + alpha MSE(logits, stored logits) + beta CE(labels) (Buzzega et al. 2020, arXiv 2004.07211)
    er_ace       new images compete among themselves only, replayed ones with all (Caccia et al. 2022, arXiv 2104.05025)
    gdumb        a new model every night, trained on a class-balanced replay buffer only (Prabhu et al. 2020)
    lwf          + T^2 KL(old model || model) on new images, over old classes (Li & Hoiem 2016, arXiv 1606.09282)
    ewc, si      a quadratic penalty on changing important weights: regularisers.py
    generative   one VAE per class, the class is that of the highest likelihood: generative_classifier.py
    frozen       the backbone as it is, and ridge regression on all features seen, exactly (one pass)

Ours: the buffer changes between nights only.  ER replays earlier experiences; for ER-ACE and DER++, whose new classes meet the
old ones in replayed images, rows enter the buffer at the start of their night, and DER++ stores their logits at its end
and compares units that existed then; joint and GDumb take, each night, as many epochs over what
they train on and as many steps as fine-tuning takes, respectively; `frozen` replaces the gradient-trained linear probe by its
closed form, which nothing forgets.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleepkit.vision.incremental.classifier import IncrementalClassifier, masked_cross_entropy
from sleepkit.vision.incremental.learner import ImageLearner, normal_equations, ridge_regression
from sleepkit.vision.incremental.output_units import REAL
from sleepkit.vision.incremental.trainer import TensorRows

__all__ = ["DarkExperienceReplay", "ErAce", "ExperienceReplay", "FrozenFeatures", "GDumb", "Joint", "LwF"]


class ExperienceReplay(ImageLearner):
    """Mean cross-entropy of new and replayed images."""

    replays = True

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Return the cross-entropy of new and replayed images together, in one forward pass."""
        if self.replayed is not None:
            old = self.draw(step)
            pixels, units = torch.cat([pixels, old.pixels]), torch.cat([units, old.units])
        return super().loss(model, pixels, units, step)


class ErAce(ExperienceReplay):
    """Asymmetric cross-entropy: new classes do not push old ones away."""

    replays_today = True

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Return the sum of two cross-entropies: of new images over today's classes, and of replayed ones over all."""
        old = self.draw(step)
        new_logits, old_logits = self.forward(model, torch.cat([pixels, old.pixels])).split([len(pixels), len(old.pixels)])
        present = self.model.mask(REAL, self.today.number) if self.scenario != "domain" else self.model.mask(REAL)
        return masked_cross_entropy(new_logits, units, present) + masked_cross_entropy(
            old_logits, old.units, self.allowed(old.units)
        )


class DarkExperienceReplay(ExperienceReplay):
    """DER++: replayed images keep the logits that they had when they were stored."""

    replays_today = True

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Three terms, of three batches in one forward pass."""
        first, second = self.draw(step), self.draw(step, call=1)
        parts = [pixels, first.pixels, second.pixels]
        new, distilled, labelled = self.forward(model, torch.cat(parts)).split(list(map(len, parts)))
        loss = masked_cross_entropy(new, units, self.allowed(units))
        loss = loss + self.config.der_beta * masked_cross_entropy(labelled, second.units, self.allowed(second.units))
        if "logits" in first.extras:  # (batch, units of the last night), NaN for units that did not exist and images of today
            stored = first.extras["logits"]
            squares = (distilled[:, : stored.shape[1]] - stored.nan_to_num()) ** 2
            loss = loss + self.config.der_alpha * (squares * ~stored.isnan()).sum() / (~stored.isnan()).sum().clamp(min=1)
        return loss

    def after_training(self) -> None:
        """Store the logits of those of today's images that are kept."""
        super().after_training()
        assert self.buffer is not None
        rows = self.buffer.rows_of(self.today.number)
        if len(rows):
            self.buffer.store("logits", self.today.number, self.in_batches(self.logits, self.today.train.pixels(rows)))


class Fresh(ImageLearner):
    """A method that trains a new model every night."""

    def __init__(self, model: IncrementalClassifier, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        self.start = {name: copy.deepcopy(part.state_dict()) for name, part in self._parts().items()}

    def before_training(self) -> None:
        """Start from the first weights, with a new head; the units stay."""
        super().before_training()
        for name, part in self._parts().items():
            part.load_state_dict(self.start[name])
        self.model.head.reset_parameters()

    def _parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.model.backbone, "top": self.model.top}


class Joint(Fresh):
    """Joint training on all images met so far, from new weights each night."""

    def training_rows(self) -> TensorRows:
        """Return the images of all experiences up to tonight's."""
        met = self.stream[: self.today.number + 1]
        labels = torch.cat([experience.train.labels for experience in met])
        return TensorRows(torch.cat([experience.train.pixels() for experience in met]), self.model.units_of(labels))

    def bytes(self) -> int:
        """Number of bytes of all images met so far."""
        met = self.stream[: self.today.number + 1]
        image = self.stream[0].train.source.pixels[0]
        return sum(len(one.train) for one in met) * image.numel() * image.element_size()


class GDumb(Fresh):
    """GDumb: each night trains a new model on a class-balanced replay buffer, and on nothing else."""

    replays = replays_today = True
    buffer_policy = "class_balanced"

    def training_rows(self) -> TensorRows:
        """Return the rows of the replay buffer, repeated until there are as many rows as today has images."""
        assert self.replayed is not None
        return TensorRows(self.replayed.pixels.cpu(), self.replayed.units.cpu(), len(self.today.train))


class LwF(ImageLearner):
    """Learning without forgetting: distillation from the model as it was before tonight's training."""

    teacher: IncrementalClassifier | None = None

    def before_training(self) -> None:
        """Copy the model as it is before tonight's training: it is the teacher."""
        super().before_training()
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False) if self.night > 1 else None

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Cross-entropy on new classes, distillation on old ones, of the same images."""
        if self.teacher is None:
            return super().loss(model, pixels, units, step)
        pixels = self.augmented(pixels)
        logits = model(pixel_values=pixels).logits
        with torch.no_grad():
            old_logits = self.teacher(pixel_values=pixels).logits
        distance = torch.stack([distillation(logits[:, g], old_logits[:, g], self.config.lwf_temperature) for g in self._old()])
        return masked_cross_entropy(logits, units, self.allowed(units)) + self.config.lwf_weight * distance.mean()

    def after_training(self) -> None:
        """Finish the night, and drop the teacher."""
        super().after_training()
        self.teacher = None

    def _old(self) -> list[list[int]]:
        """Groups of units that a softmax runs over: each old task, or all old classes together."""
        slots = self.model.slots
        known = slots.where(REAL)
        if self.scenario == "domain":
            return [known]
        earlier = [unit for unit in known if slots.tasks[unit] != self.today.number]
        if self.scenario == "class":
            return [earlier]
        return [[unit for unit in earlier if slots.tasks[unit] == task] for task in sorted({slots.tasks[u] for u in earlier})]


class FrozenFeatures(ImageLearner):
    """Ridge regression on a backbone that never changes; sums over images are all it keeps."""

    def train(self, folder: Path) -> dict[str, Any]:
        """Add today's images to the sums, and solve."""
        features = self.in_batches(self.model.features, self.today.train)
        gram, cross = normal_equations(features, self.model.units_of(self.today.train.labels), len(self.model.slots))
        if "gram" in self.extras:
            old = F.pad(self.extras["cross"].cpu(), (0, cross.shape[1] - self.extras["cross"].shape[1]))
            gram, cross = gram + self.extras["gram"].cpu(), cross + old
        self.extras = {"gram": gram, "cross": cross}
        weights = ridge_regression(gram, cross, self.config.ridge)
        self.model.head.load_state_dict({"weight": weights[:-1].T.float(), "bias": weights[-1].float()})
        return {"history": []}


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(teacher || student)`` of softened softmaxes, mean over the batch."""
    student, teacher = (F.log_softmax(values / temperature, dim=1) for values in (logits, teacher_logits))
    return temperature**2 * F.kl_div(student, teacher, log_target=True, reduction="batchmean")
