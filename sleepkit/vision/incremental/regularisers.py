"""Penalties on changing weights that earlier experiences need.

    loss + weight / 2 * sum_i importance_i (theta_i - anchor_i)^2         anchor: the weights at the end of the last night

    ewc   importance = decay * importance + F,   F_i = mean over images of (d log p(y | x) / d theta_i)^2
    si    importance += max(0, omega_i / ((theta_i - anchor_i)^2 + xi)),   omega_i = - sum over steps of g_i * (step of theta_i)

Sources: Kirkpatrick et al. 2017 (EWC), in its online form of Schwarz et al. 2018 (arXiv 1805.06370), with the label of the
image as y (empirical Fisher information); Zenke et al. 2017 (SI, arXiv 1703.04200), xi = 0.1, whose sum has no 1/2.
The head's rows of later classes did not exist and are free.  Ours: SI's gradients are those of each rank, averaged at the
end of the night, which is the same sum and works wherever the optimizer steps out of sight (DeepSpeed); the gradient is
that of all of the loss, penalty included, as in the authors' code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from transformers import TrainerCallback

from sleepkit.vision.incremental.classifier import masked_cross_entropy
from sleepkit.vision.incremental.learner import ImageLearner

__all__ = ["OnlineEwc", "SynapticIntelligence"]

XI = 0.1  # SI's damping


class Regulariser(ImageLearner, ABC):
    """A quadratic penalty; ``extras`` holds ``importance.<name>`` and ``anchor.<name>`` of each parameter."""

    @property
    @abstractmethod
    def weight(self) -> float:
        """Weight of the penalty beside the cross-entropy."""

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Return fine-tuning's loss plus the penalty."""
        loss = super().loss(model, pixels, units, step)
        terms = [
            (self.extras[f"importance.{name}"] * (parameter[: len(anchor)] - anchor) ** 2).sum()
            for name, parameter in self.trained().items()
            if (anchor := self.extras.get(f"anchor.{name}")) is not None
        ]
        return loss + self.weight / 2 * torch.stack(terms).sum() if terms else loss

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def keep(self, importance: dict[str, Tensor]) -> None:
        """Take over new importances; the weights of now become the anchors."""
        for name, parameter in self.trained().items():
            self.extras[f"importance.{name}"] = importance[name].detach()
            self.extras[f"anchor.{name}"] = parameter.detach().clone()

    def old_importance(self, name: str, like: Tensor) -> Tensor:
        """Importance so far, 0 for rows that are new."""
        found = torch.zeros_like(like)
        old = self.extras.get(f"importance.{name}")
        if old is not None:
            found[: len(old)] = old
        return found


class OnlineEwc(Regulariser):
    """Fisher information of tonight's images, added to what is left of the earlier nights'."""

    @property
    def weight(self) -> float:
        """Weight of the penalty: EWC's lambda."""
        return self.config.ewc_weight

    def after_training(self) -> None:
        """Measure the importance of each weight, from one gradient for each of some images; each rank takes its share of them."""
        super().after_training()
        images = self.today.train
        generator = torch.Generator().manual_seed(self.night_seed)
        places = torch.randperm(len(images), generator=generator)[: self.config.fisher_images]
        pixels = images.pixels(places).to(self.model.device)
        units = self.model.units_of(images.labels[places]).to(self.model.device)
        parameters = self.trained()
        fisher = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        ranks = PartialState()
        for k in range(ranks.process_index, len(units), ranks.num_processes):
            logits = self.model(pixel_values=pixels[k : k + 1]).logits
            loss = masked_cross_entropy(logits, units[k : k + 1], self.allowed(units[k : k + 1]))
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for total, gradient in zip(fisher.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient**2 / len(units)
        fisher = {name: reduce(total, "sum") for name, total in fisher.items()}
        self.keep({name: self.config.ewc_decay * self.old_importance(name, one) + one for name, one in fisher.items()})


class SynapticIntelligence(Regulariser):
    """Credit along the path of the weights."""

    @property
    def weight(self) -> float:
        """SI's c, whose penalty has no 1/2."""
        return 2 * self.config.si_weight

    def before_training(self) -> None:
        """Start to follow the path of the weights."""
        super().before_training()
        self.path = WeightPath(self.trained())

    def callbacks(self) -> list[TrainerCallback]:
        """Return the callback that follows the weights."""
        return [*super().callbacks(), self.path]

    def after_training(self) -> None:
        """Turn the path into importances."""
        super().after_training()
        importance = {}
        for name, parameter in self.trained().items():
            moved = parameter.detach() - self.path.start[name]
            credit = (reduce(self.path.omega[name], "mean") / (moved**2 + XI)).clamp(min=0)
            importance[name] = self.old_importance(name, credit) + credit
        self.keep(importance)


class WeightPath(TrainerCallback):
    """``omega``: minus the sum over steps of gradient times change, for each parameter."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters
        self.start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self.before = {name: values.clone() for name, values in self.start.items()}
        self.omega = {name: torch.zeros_like(values) for name, values in self.start.items()}
        self.gradients: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            parameter.register_hook(lambda gradient, name=name: self._add(name, gradient))

    def _add(self, name: str, gradient: Tensor) -> None:
        self.gradients[name] = gradient.detach() + self.gradients.get(name, 0)

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the step that the optimizer has just made to the path."""
        for name, gradient in self.gradients.items():
            now = self.parameters[name].detach()
            self.omega[name] -= gradient * (now - self.before[name])
            self.before[name].copy_(now)
        self.gradients = {}
