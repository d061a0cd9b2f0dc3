"""An image learner: a growing classifier that meets one experience a night; the base of all vision methods.

    sleep      grow -> before_training -> train (one `transformers.Trainer`) -> after_training
               assigned: today's accuracy after growing, when its classes have units and are not learned yet
    evaluate   accuracy on held-out test images:
               class_il   argmax over the units of all classes met so far      (task not given)
               task_il    argmax over the units of the experience              (task given)
               probe      ridge regression on the backbone's features, from some training images of the experience

A method is a subclass that overrides `loss` and what it needs of `before_training`, `after_training` and `training_rows`;
baselines.py has them.  This class itself is plain fine-tuning.  What a night changes is in `snapshot`: weights, units, replay
buffer and the tensors of a method (`extras`); the same goes into the file that `save` writes.

Scenario: in "task" a softmax runs over the units of the label's own task, else over all classes met.  Every rank holds the
whole model and buffer, and draws replayed images of its own.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, TrainerCallback

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.digests import digest
from sleepkit.utils.files import replacing
from sleepkit.utils.phases import digest_of
from sleepkit.utils.ram import require_memory
from sleepkit.utils.ranks import of_rows, own_draws
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import require_finite, settings_digest
from sleepkit.vision.data.augmentation import augmentation
from sleepkit.vision.data.streams import ImageExperience, ImageSet
from sleepkit.vision.incremental.classifier import IncrementalClassifier, masked_cross_entropy
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.output_units import REAL, OutputUnits
from sleepkit.vision.incremental.replay_buffer import ReplayBuffer
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows, trained_once

__all__ = ["Accuracy", "ImageLearner", "Replayed", "Snapshots", "share_right"]

FILE_NAME = "learner.safetensors"
PROBE_RIDGE = 1.0


@dataclass
class Accuracy:
    """Accuracies on ``n`` test images of an experience, 0 to 1: among all classes met, within the task, and of a probe.

    Before the classes are met the first two are NaN, and ``n`` is 0 if there is no probe either.
    """

    class_il: float
    task_il: float
    n: int
    probe: float | None = None


@dataclass
class Replayed:
    """Rows of the replay buffer: pixels ``(n, channels, height, width)`` uint8, units ``(n,)``, and what was stored with them."""

    pixels: Tensor
    units: Tensor
    extras: dict[str, Tensor]

    def rows(self, chosen: Tensor) -> Replayed:
        """Return some of the rows."""
        return Replayed(self.pixels[chosen], self.units[chosen], {name: values[chosen] for name, values in self.extras.items()})


class Snapshots(ABC):
    """A learner whose snapshot is all that it keeps for later nights, so that its state is one safetensors file."""

    @abstractmethod
    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of all that a night changes."""

    @abstractmethod
    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo everything since the snapshot, bit for bit."""

    def save(self, folder: Path) -> None:
        """Write the snapshot; the main process writes, all take part."""
        state = self.snapshot()
        if PartialState().is_main_process:
            with replacing(folder / FILE_NAME) as draft:
                save_file(state, draft)

    def load(self, folder: Path) -> None:
        """Restore what `save` has written.  Raises `SleepkitError` if it cannot be read."""
        path = folder / FILE_NAME
        try:
            self.restore(load_file(path))
        except Exception as error:  # safetensors' own, or a missing name
            raise SleepkitError(f"{path} cannot be read ({first_line(error)}); start anew with --overwrite true") from None


class ImageLearner(Snapshots):
    """Growing image classifier that meets one experience a night, by plain fine-tuning; base of all vision methods.

    It is a learner for `SleepCycle`, and the base of those that `ImageTrainer` sends through its nights.  A method is a subclass
    that overrides `loss` and what it needs of `before_training`, `after_training` and `training_rows`.

    Args:
        model (`IncrementalClassifier`): a classifier without classes.
        config (`IncrementalTrainingConfig`): how a night is trained.
        stream (sequence of `ImageExperience`): all experiences, of the scenario that ``config`` names; the rows of the replay
            buffer point into it.

    Raises:
        SleepkitError: an augmentation of features, a ``buffer_size`` above the number of images, or a batch that does not fit
            into RAM.

    Example:

        >>> stream = build_stream(load_images("digits/"), experiences=5)
        >>> learner = ImageLearner(model, IncrementalTrainingConfig(output_dir="runs/digits"), stream)
        >>> learner.wake(stream[0])
        >>> log = learner.sleep(1, Path("runs/digits"))
        >>> learner.evaluate(stream)[0].class_il
    """

    replays = False  # whether the method has a replay buffer
    replays_today = False  # whether today's images enter it before the night's training, or after

    def __init__(
        self,
        model: IncrementalClassifier,
        config: IncrementalTrainingConfig,
        stream: Sequence[ImageExperience],
    ) -> None:
        self.model, self.config, self.stream, self.scenario = model, config, list(stream), config.scenario
        self.model.to(config.device)  # type: ignore[arg-type]
        self.probe_images, self.probe_draws, self.probe_scope = config.probe_images, config.probe_draws, config.probe_scope
        images = stream[0].train.source.pixels
        if images.dim() == 2 and config.augmentation != "none":
            raise SleepkitError(f"augmentation is {config.augmentation!r} and the data are features, not images; use 'none'")
        self.augment = augmentation(config.augmentation, *images.shape[-2:])
        self.buffer: ReplayBuffer | None = None
        if self.replays:
            rows = sum(len(experience.train) for experience in stream)
            if config.buffer_size > rows:
                raise SleepkitError(
                    f"buffer_size is {config.buffer_size}, the stream has {rows} training images; give at most that"
                )
            size = images[0].numel() * images.element_size()
            require_memory(config.replay_batch_size * size, f"replay_batch_size {config.replay_batch_size:,}", "lower it")
            self.buffer = ReplayBuffer(config.buffer_size, self.buffer_policy, config.seed)
        self.extras: dict[str, Tensor] = {}
        self.today: ImageExperience = self.stream[0]
        if self.scenario == "domain":
            self._grow()  # all experiences have the same classes, and the first can be tested before it is met
        self.night = 0
        self.replayed: Replayed | None = None
        self.images_passed = 0
        self.cpu_before = 0.0  # of tonight's phases that an earlier, killed process has done
        self.tonight: dict[str, Any] = {}  # what decides the phases of the night

    @property
    def buffer_policy(self) -> str:
        """How the replay buffer chooses its rows."""
        return self.config.buffer_policy

    # -- awake ------------------------------------------------------------------------------------------------------
    def wake(self, experience: ImageExperience) -> None:
        """Take an experience into view."""
        self.today = experience

    def evaluate(self, experiences: Sequence[ImageExperience], in_context: bool = False) -> list[Accuracy]:
        """Accuracy on the test images of each experience; images have no context to be shown in."""
        probes = self._probes(experiences) if self.probe_images else [None] * len(experiences)
        return [self._accuracy(one, probe) for one, probe in zip(experiences, probes, strict=True)]

    def _accuracy(self, experience: ImageExperience, probe: float | None = None) -> Accuracy:
        known = set(self.model.slots.labels_of(REAL))
        if not known.issuperset(experience.labels):
            return Accuracy(float("nan"), float("nan"), 0 if probe is None else len(experience.test), probe)
        units = self.model.units_of(experience.test.labels)
        logits = self.in_batches(self.logits, experience.test)
        own = torch.zeros(logits.shape[1], dtype=torch.bool)
        own[self.model.units_of(torch.tensor(experience.labels))] = True
        every = self.model.mask(REAL).cpu()
        return Accuracy(share_right(logits, units, every), share_right(logits, units, own), len(units), probe)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits ``(batch, units)``, in evaluation."""
        return self.model(pixel_values=pixels).logits

    @torch.no_grad()
    def in_batches(self, function: Callable[[Tensor], Tensor], images: ImageSet | Tensor) -> Tensor:
        """A function of pixels on all images, without gradient, in evaluation mode; the result is on the CPU.

        Each process takes its share of the images, and all get all results; call it on all.
        """
        pixels = images if isinstance(images, Tensor) else images.pixels()
        training = self.model.training
        self.model.eval()
        size = self.config.per_device_eval_batch_size
        found = of_rows(lambda batch: function(batch.to(self.model.device)).cpu(), pixels, size)
        self.model.train(training)
        return found

    def _probes(self, experiences: Sequence[ImageExperience]) -> list[float]:
        """Accuracy on each experience of linear classifiers on the features, by ridge regression in closed form."""
        if self.probe_scope == "stream":
            fitted = [self._fitted(self.stream)] * len(experiences)
        else:
            fitted = [self._fitted([one]) for one in experiences]
        return [self._linear_accuracy(one, weights) for one, weights in zip(experiences, fitted, strict=True)]

    def _fitted(self, experiences: Sequence[ImageExperience]) -> list[Tensor]:
        """Weights ``(hidden + 1, classes)`` of ``probe_draws`` classifiers of all classes of the experiences."""
        rows: list[list[tuple[Tensor, Tensor]]] = []
        for images in (one.train for one in experiences):
            chosen = np.random.default_rng(0).permutation(len(images))[: self.probe_images * self.probe_draws]
            places = torch.from_numpy(chosen)
            features = self.in_batches(self.model.features, images.pixels(places))
            draws = zip(features.split(self.probe_images), images.labels[places].split(self.probe_images), strict=True)
            rows.append(list(draws))
        classes = max(max(one.labels) for one in experiences) + 1
        draws_of_all = zip(*rows, strict=False)  # as many as the experience with the fewest images has
        together = [[torch.cat(part) for part in zip(*draw, strict=True)] for draw in draws_of_all]
        return [ridge_regression(*normal_equations(x, labels, classes), PROBE_RIDGE) for x, labels in together]

    def _linear_accuracy(self, experience: ImageExperience, fitted: Sequence[Tensor]) -> float:
        features, labels = self.in_batches(self.model.features, experience.test), experience.test.labels
        return float(np.mean([(predict_linear(features, one).argmax(1) == labels).double().mean().item() for one in fitted]))

    # -- asleep -----------------------------------------------------------------------------------------------------
    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Learn today's experience; returns history and costs."""
        start = time.process_time()
        self.night, self.images_passed, self.cpu_before = night, 0, 0.0
        self.tonight = self.identity()
        self._grow()
        placed = self._accuracy(self.today)
        self.before_training()
        log = self.train(Path(output_dir) / f"night_{night:02d}")
        self.after_training()
        require_finite(dict(self.model.named_parameters()), f"night {night}", self.config.learning_rate)
        self.replayed = None
        images = self.images_passed * PartialState().num_processes
        log |= {"assigned": placed.task_il if self.scenario == "task" else placed.class_il, "assigned_task_il": placed.task_il}
        log |= {"bytes": self.bytes(), "train_flops": 3 * self.flops_per_image() * images}
        return log | {"cpu_seconds": time.process_time() - start + self.cpu_before}

    def identity(self) -> dict[str, Any]:
        """Digests of all that decides what a night makes: phases of another night, stream, model or state are not taken over."""
        return {
            "seed": self.config.seed,
            "night": self.night,
            "experience": digest_of(self.today.to_dict()),
            "settings": settings_digest(self.config),
            "scenario": self.scenario,
            "state": digest(self.snapshot())[:16],
        }

    def once(self, folder: Path, model: PreTrainedModel, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """`trained_once` for a phase of tonight; what it cost counts too where a killed process has paid it."""

        def counted() -> dict[str, Any]:
            before = self.images_passed
            return {**work(), "images_passed": self.images_passed - before}

        log = trained_once(folder, {**self.tonight, "phase": folder.name}, model, counted)
        passed, seconds = log.pop("images_passed"), log.pop("cpu_seconds")
        if log.pop("taken_over"):
            self.images_passed += passed
            self.cpu_before += seconds
        return log

    def _grow(self) -> None:
        known = set(self.model.slots.labels_of(REAL))
        new = [place for place, label in enumerate(self.today.labels) if label not in known]
        if new:
            labels, names = ([values[place] for place in new] for values in (self.today.labels, self.today.label_names))
            self.model.grow(labels, self.today.number, names)  # type: ignore[arg-type]
            self.model.to(self.config.device)  # type: ignore[arg-type]

    def before_training(self) -> None:
        """Prepare the night; the units of today's classes are there already."""
        if self.replays_today:
            self.remember()
        if self.buffer is not None and len(self.buffer):
            self.replayed = self.remembered()

    def train(self, folder: Path) -> dict[str, Any]:
        """Train on `training_rows` and return the log."""
        self.model.train()
        trainer = IncrementalTrainer(
            self.model,
            self.loss,
            self.config,
            self.training_rows(),
            self.night_seed,
            folder,
            self.callbacks(),
            f"night {self.night}",
        )
        log = trainer.run()
        self.model.eval()
        return log

    def training_rows(self) -> TensorRows:
        """Return today's images; labels are units."""
        return TensorRows(self.today.train.pixels(), self.model.units_of(self.today.train.labels))

    def callbacks(self) -> list[TrainerCallback]:
        """Return callbacks for the night's trainer."""
        return []

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Return the loss of a batch of the training; methods override it.  Here: the cross-entropy on new images.

        Args:
            model: as the trainer has wrapped it.
            pixels: ``(batch, channels, height, width)`` uint8, or rows of features.
            units: ``(batch,)``, output units of their classes.
            step: of the optimizer, from 0.
        """
        return masked_cross_entropy(self.forward(model, pixels), units, self.allowed(units))

    def after_training(self) -> None:
        """Finish the night: offer today's images to the replay buffer, where that comes after training."""
        if self.replays and not self.replays_today:
            self.remember()

    def remember(self) -> None:
        """Offer today's images to the replay buffer."""
        assert self.buffer is not None
        features = self.in_batches(self.model.features, self.today.train) if self.buffer.policy == "herding" else None
        self.buffer.add(self.today.number, self.today.train.labels, features)

    # -- parts of a loss --------------------------------------------------------------------------------------------
    @property
    def night_seed(self) -> int:
        """Seed of everything that a night draws."""
        return derive_seed(self.config.seed, "night", self.night)

    def augmented(self, pixels: Tensor) -> Tensor:
        """Images as a forward pass takes them, which is counted."""
        self.images_passed += len(pixels)
        return pixels if self.augment is None else self.augment(pixels)

    def forward(self, model: nn.Module, pixels: Tensor) -> Tensor:
        """Return the logits of augmented images."""
        return model(pixel_values=self.augmented(pixels)).logits

    def allowed(self, units: Tensor) -> Tensor:
        """Units of the softmax of each label: ``(units,)`` for all alike, or ``(batch, units)`` bool."""
        if self.scenario != "task":
            return self.model.mask(REAL)
        tasks = torch.tensor(self.model.slots.tasks, device=units.device)
        return tasks[units][:, None] == tasks

    def remembered(self) -> Replayed:
        """All rows of the replay buffer, with their pixels."""
        assert self.buffer is not None
        numbers, rows = self.buffer.places.T
        source = self.today.train.source.pixels
        pixels = torch.empty(len(rows), *source.shape[1:], dtype=source.dtype)
        for number in numbers.unique().tolist():
            pixels[numbers == number] = self.stream[number].train.pixels(rows[numbers == number])
        units = self.model.units_of(self.buffer.labels)
        device = self.model.device
        extras = {name: values.to(device) for name, values in self.buffer.extras.items()}
        return Replayed(pixels.to(device), units.to(device), extras)

    def draw(self, step: int, call: int = 0) -> Replayed:
        """A batch of the replay buffer, with replacement; of each step and ``call`` another one, and each rank has a slice."""
        assert self.replayed is not None
        rows = len(self.replayed.units)
        generator = np.random.default_rng([self.config.seed, self.night, step, 0, call])
        chosen = own_draws(lambda count: generator.integers(rows, size=count), self.config.replay_batch_size)
        return self.replayed.rows(torch.from_numpy(chosen).to(self.replayed.units.device))

    # -- costs ------------------------------------------------------------------------------------------------------
    def bytes(self) -> int:
        """Number of bytes kept for later nights besides the classifier: replayed images and tensors of the method."""
        image = self.stream[0].train.source.pixels[0]
        kept = sum(values.numel() * values.element_size() for values in self.extras.values())
        return kept + (self.buffer.bytes(image.numel() * image.element_size()) if self.buffer is not None else 0)

    def flops_per_image(self) -> int:
        """Floating point operations of one image, forward; training takes three times as many."""
        with FlopCounterMode(display=False) as counter:
            self.in_batches(self.model.features, self.stream[0].train.pixels(torch.zeros(1, dtype=torch.int64)))
        return int(counter.get_total_flops())

    # -- tensors of a method that are named "<number>.<name>", of a unit or an experience -----------------------------
    def numbered(self) -> list[int]:
        """Return the numbers, in ascending order."""
        return sorted({int(name.split(".")[0]) for name in self.extras})

    def extras_of(self, number: int) -> dict[str, Tensor]:
        """Those of a number, without it in their names."""
        prefix = f"{number}."
        return {name.removeprefix(prefix): values for name, values in self.extras.items() if name.startswith(prefix)}

    # -- keeping ----------------------------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that a night changes."""
        state = {f"model.{name}": values for name, values in self.model.state_dict().items()}
        state |= {f"extras.{name}": values for name, values in self.extras.items()}
        if self.buffer is not None:
            state |= {f"memory.{name}": values for name, values in self.buffer.state_dict().items()}
        state["slots"] = self.model.slots.to_tensor()
        return {name: values.detach().cpu().clone() for name, values in state.items()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo everything since the snapshot, bit for bit."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "extras": {}, "memory": {}, "slots": {}}
        for name, values in snapshot.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = values.clone()
        slots = OutputUnits.from_tensor(snapshot["slots"])
        self.model.set_slots(slots)
        names = {label: name for one in self.stream for label, name in zip(one.labels, one.label_names, strict=True)}
        self.model.name_units({unit: names[slots.labels[unit]] for unit in slots.where(REAL)})
        self.model.load_state_dict(parts["model"])
        device = self.model.device
        self.extras = {name: values.to(device) for name, values in parts["extras"].items()}
        if self.buffer is not None:
            self.buffer.load_state_dict(parts["memory"])


def share_right(logits: Tensor, units: Tensor, allowed: Tensor) -> float:
    """Share of images, of logits ``(n, all units)``, whose greatest logit among the ``allowed`` (all units,) is their unit's."""
    return (logits.masked_fill(~allowed, float("-inf")).argmax(1) == units).double().mean().item()


# Linear classifiers in closed form


def normal_equations(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """``X^T X`` (hidden + 1, hidden + 1) and ``X^T Y`` (hidden + 1, classes) in float64; a column of ones makes the bias."""
    x = torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    y = torch.nn.functional.one_hot(labels, classes).double()
    return x.T @ x, x.T @ y


def ridge_regression(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """``(X^T X + ridge I)^-1 X^T Y``: weights ``(hidden + 1, classes)``, the last row is the bias."""
    return torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), cross)


def predict_linear(features: Tensor, weights: Tensor) -> Tensor:
    """Return the scores ``(n, classes)`` of a linear classifier."""
    return features.double() @ weights[:-1] + weights[-1]
