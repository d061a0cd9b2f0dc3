"""MyGO: wake-sleep generative replay.  Each night keeps a generator instead of images, and learns from dreams alone.

    wake    fast learner    a copy of the cortex and new heads, trained on the images of today        CE over today's classes
            memory          a generator of today's images (generators.py); trained anew where its dreams are not recognised by
                            the fast learner, or are too alike
    sleep   cortex          on dreams x of all experiences so far, as many of each class, y = class, s = experience of x:

            label_weight CE(f(x), y) + logit_weight MSE(f(x), f_s(x)) + kl_weight T^2 KL(f_s(x) || f(x))
                                     + feature_weight MSE(features, features_s)

            teachers f_s: the cortex before tonight where s < today, for the classes it knows; else the fast learner, for
            today's.  All of the cortex trains.

Every `validation_steps` steps the cortex is tested on dreams of earlier experiences that it does not train on and on today's
validation images, and where the last checkpoint is worse than the best one by more than `max_drop`, the best one is taken.

Phases leave the folders `fast` and `generator` in the night's folder; a night that was killed goes on after them.  Later nights
keep what dreams need of each generator (`extras`, float16); `bytes` counts it.  The first night's cortex starts from the fast
learner, as there is nothing to protect.

Replay of features (`replay_space`): the backbone learns in the first night and is frozen from its sleep on; generators learn
and dream what it makes of images (codes, see classifier.py), and only the layers above it learn, from dreamt codes.

The published code has one hidden layer for the GAN, frozen features, and MSE on logits alone.  There the teachers are copies of
the cortex, so that the loss is 0 and sleep changes nothing; recipes/configs/mygo/split_mnist_as_published.yaml does the same.

Source: Cotix-AI/MyGO and arXiv 2508.21296 (withdrawn), whose README says "two teachers" and "acceptance".  Ours: labels and
softmax over all classes in sleep, dreams of today too instead of its images (a dream and an image do not compete in one softmax),
augmentation, the choice of generators.  Replay of features is that of van de Ven et al. 2020 ("brain-inspired replay").  Left
out: FLOPs of generators.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import TrainerCallback

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.ram import require_memory
from sleepkit.utils.ranks import main_only
from sleepkit.utils.seeds import derive_seed
from sleepkit.vision.data.grids import save_grid
from sleepkit.vision.data.streams import ImageExperience, ImageSet
from sleepkit.vision.incremental.baselines import distillation
from sleepkit.vision.incremental.classifier import IncrementalClassifier, masked_cross_entropy
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.dream_quality import diversity, fidelity, trained_judge
from sleepkit.vision.incremental.learner import ImageLearner
from sleepkit.vision.incremental.output_units import REAL
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows
from sleepkit.vision.mygo.config import GenerativeReplayConfig
from sleepkit.vision.mygo.generators import DreamGenerator, DreamGeneratorConfig

__all__ = ["GenerativeReplay"]

QUALITY_DREAMS = 200  # of each class, when a generator is judged
SHOWN = 10  # of each class, in the picture of a night
VALIDATION_DREAMS = 2000  # of all classes, when a checkpoint of the cortex is; of one at most a twentieth
FAST, MEMORY, SLEEP, TRAINED_ON, VALIDATED_ON, LOOKED_AT = range(6)  # what a seed is for


class Dreams(NamedTuple):
    """``pixels`` (n, channels, height, width) uint8 or codes (n, size), ``units`` (n,) and ``experiences`` (n,)."""

    pixels: Tensor
    units: Tensor
    experiences: Tensor


class GenerativeReplay(ImageLearner):
    """MyGO: each night keeps a generator instead of images, and sleep learns from what all generators dream."""

    config: GenerativeReplayConfig

    def __init__(
        self, model: IncrementalClassifier, config: IncrementalTrainingConfig, stream: Sequence[ImageExperience]
    ) -> None:
        if not isinstance(config, GenerativeReplayConfig):
            raise SleepkitError(
                "method 'mygo' has a configuration of its own; run recipes/mygo.py instead, in Python give args a "
                "GenerativeReplayConfig"
            )
        self.empty = copy.deepcopy(model)  # for the judge
        self.dreams_features = config.replay_space == "features"
        super().__init__(model, config, stream)
        if self.today.train.source.pixels.dim() == 2 and not self.dreams_features:
            raise SleepkitError("the data are features, not images; set replay_space to features")
        self._try_generator()
        self.fast: IncrementalClassifier | None = None
        self.cortex: IncrementalClassifier | None = None
        self.judge: tuple[IncrementalClassifier, float] | None = None  # with its accuracy; the same for all nights

    # -- the phases of a night --------------------------------------------------------------------------------------
    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """The night, and then what is only measured: a picture of today's dreams and the judge's opinion of all.

        A dreamt code is shown as the training image of today that is nearest to it.
        """
        log = super().sleep(night, output_dir)
        folder = Path(output_dir) / "dreams"
        if self.today.train.source.pixels.dim() > 2:
            shown = self.dreams(QUALITY_DREAMS, LOOKED_AT, [self.today.number])
            images = self._images_like(shown.pixels) if self.dreams_features else shown.pixels
            rows = [images[shown.units == unit][:SHOWN] for unit in shown.units.unique()]
            main_only(lambda: save_grid(rows, folder / f"night_{night:02d}.png"))
        return log | (self._judged(folder / "judge") if self.config.judged_dreams else {})

    def train(self, folder: Path) -> dict[str, Any]:
        """Train the fast learner, then the generator, then the cortex; returns their log."""
        fast = copy.deepcopy(self.model)
        self._freeze(fast, backbone=self.dreams_features and self.night > 1)
        logs = {"wake": self.once(folder / "fast", fast, lambda: self._wake(fast, folder))}
        self.fast = fast.eval().requires_grad_(False)
        generator = self._new_generator(self.today.number)
        logs["memory"] = self.once(folder / "generator", generator, lambda: self._remember(generator, folder))
        self.extras |= {f"{self.today.number}.{name}": values for name, values in generator.kept().items()}
        logs["sleep"] = self._consolidate(folder)
        self.fast = self.cortex = None
        history = [
            {"step": line["step"], "phase": phase, f"{phase}_loss": line["loss"]}
            for phase, log in logs.items()
            for line in log["history"]
        ]
        found = {name: value for log in logs.values() for name, value in log.items() if name not in ("history", "steps")}
        return found | {
            "history": history,
            "steps": sum(log["steps"] for log in logs.values()),
            "train_seconds": sum(log["train_seconds"] for log in logs.values()),
        }

    def _wake(self, fast: IncrementalClassifier, folder: Path) -> dict[str, Any]:
        """Train the fast learner on today's images, and return its log."""
        today = self._today_units()

        def loss(model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
            return masked_cross_entropy(self.forward(model, pixels), units, today)

        what = f"night {self.night}, its fast learner,"
        rows = self.training_rows()
        return IncrementalTrainer(fast.train(), loss, self.config, rows, self._seed(FAST), folder, what=what).run()

    def _remember(self, generator: DreamGenerator, folder: Path) -> dict[str, Any]:
        """Train a generator until its dreams will do; leaves the best one in ``generator``."""
        pixels = self._seen(self.today.train)
        units = self.model.units_of(self.today.train.labels)
        places = self._places(self.today.train.labels)
        config = self._config(num_train_epochs=self.config.generator_epochs)
        best: tuple[float, float] = (-1.0, -1.0)
        log: dict[str, Any] = {}
        for attempt in range(self.config.generator_retries + 1):
            seed = derive_seed(self._seed(MEMORY), "attempt", attempt)
            set_seed(seed)
            trial = DreamGenerator(generator.config).to(self.model.device).train()  # type: ignore[arg-type]
            trial.prepare(pixels)
            found = {"history": [], "steps": 0, "train_seconds": 0.0}
            if trial.is_trained:
                rows, what = TensorRows(pixels, places), f"night {self.night}, its generator,"
                found = IncrementalTrainer(trial, _own_loss, config, rows, seed, folder, what=what).run()
            trial.eval().settle(pixels, places)
            dreamt = torch.arange(len(self.today.labels)).repeat_interleave(QUALITY_DREAMS)
            dreams = trial.dream(dreamt, torch.Generator().manual_seed(seed))
            classes = self.model.units_of(torch.tensor(self.today.labels))[dreamt]
            recognised = min(fidelity(self._answers(dreams, self._today_units(), self.fast), classes).values())
            differing = min(diversity(dreams, classes, pixels, units).values())
            enough = (recognised >= self.config.min_fidelity) + (differing >= self.config.min_diversity)
            if (enough, recognised) > best:
                best = (enough, recognised)
                generator.load_state_dict(trial.state_dict())
                log = found | {"generator_fidelity": recognised, "generator_diversity": differing}
            if enough == 2:
                break
        return log | {"generator_attempts": attempt + 1}

    def _consolidate(self, folder: Path) -> dict[str, Any]:
        """Train the cortex on dreams."""
        assert self.fast is not None
        first = self.night == 1
        units = self.model.units_of(torch.tensor(self.today.labels))
        if first:
            self.model.load_state_dict(self.fast.state_dict())
        elif self.scenario != "domain":
            for mine, theirs in zip(self.model.head.parameters(), self.fast.head.parameters(), strict=True):
                mine.data[units] = theirs.data[units]
        self.cortex = copy.deepcopy(self.model).eval().requires_grad_(False)
        self._freeze(self.model, backbone=self.dreams_features)
        before = {name: values.detach().clone() for name, values in self.model.named_parameters()}
        each = max(1, self.config.dreams // sum(len(self.stream[number].labels) for number in self.numbered()))
        dreams = self.dreams(each, TRAINED_ON)
        rows = TensorRows(dreams.pixels, torch.stack([dreams.units, dreams.experiences], dim=1))
        config = self._config(max_steps=self.config.sleep_steps, learning_rate=self.config.sleep_learning_rate)
        checkpoints = Checkpoints(self.model, self._validation(), self.config.validation_steps)
        self.model.train()
        what = f"night {self.night}"
        log = IncrementalTrainer(self.model, self.loss, config, rows, self._seed(SLEEP), folder, [checkpoints], what).run()
        self.model.eval()
        log |= checkpoints.choose(self.config.max_drop)
        self.model.requires_grad_(True)
        changes = {name: (values - before[name]).abs().max().item() for name, values in self.model.named_parameters()}
        extractor = [change for name, change in changes.items() if not name.startswith("head.")]
        return log | {"sleep_change": max(changes.values()), "extractor_change": max(extractor, default=0.0)}

    # -- the loss of sleep ------------------------------------------------------------------------------------------
    def loss(self, model: nn.Module, pixels: Tensor, rows: Tensor, step: int) -> Tensor:
        """Return the loss of dreams; ``rows`` (batch, 2) has units and experiences."""
        units, experiences = rows.T
        config = self.config
        if not self.dreams_features:
            pixels = self.augmented(pixels)
        found = model(pixel_values=pixels)
        loss = config.label_weight * masked_cross_entropy(found.logits, units, self.allowed(units))
        if not (config.logit_weight or config.kl_weight or config.feature_weight):
            return loss
        logits, known, features = self._taught(pixels, experiences)
        if config.logit_weight:
            loss = loss + config.logit_weight * ((found.logits - logits)[known] ** 2).mean()
        if config.kl_weight:
            student, teacher = (values.masked_fill(~known, -1e9) for values in (found.logits, logits))
            loss = loss + config.kl_weight * distillation(student, teacher, config.kl_temperature)
        if config.feature_weight:
            loss = loss + config.feature_weight * ((found.features - features) ** 2).mean()
        return loss

    @torch.no_grad()
    def _taught(self, pixels: Tensor, experiences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each dream's teacher: logits ``(batch, units)``, which of them it knows, features ``(batch, hidden)``.

        Both teachers see all dreams: kernels differ by the size of a batch in the last bit, and Adam would walk on that.
        """
        assert self.fast is not None and self.cortex is not None
        today, new = self._today_units(), (experiences == self.today.number)[:, None]
        old = self.model.mask(REAL) if self.scenario == "domain" else self.model.mask(REAL) & ~today
        fast, cortex = self.fast(pixel_values=pixels), self.cortex(pixel_values=pixels)
        logits, features = (torch.where(new, fast[name], cortex[name]) for name in ("logits", "features"))
        return logits, torch.where(new, today, old), features

    # -- dreams -----------------------------------------------------------------------------------------------------
    def dreams(self, each: int, purpose: int, numbers: list[int] | None = None) -> Dreams:
        """``each`` dreams of each class of each experience (or of some); other ones each night and for each purpose."""
        source = torch.Generator().manual_seed(self._seed(purpose))
        parts = []
        for number in self.numbered() if numbers is None else numbers:
            labels = torch.tensor(self.stream[number].labels)
            places = torch.arange(len(labels)).repeat_interleave(each)
            generator = self.generator(number)
            units = self.model.units_of(labels)[places]
            parts.append(Dreams(generator.dream(places, source), units, torch.full((len(places),), number)))
        return Dreams(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def generator(self, number: int) -> DreamGenerator:
        """Return the generator of an experience, as it is kept."""
        generator = self._new_generator(number).eval()
        generator.load_kept(self.extras_of(number))
        return generator

    def _new_generator(self, number: int) -> DreamGenerator:
        channels, *size = self.today.train.source.pixels.shape[1:]
        form: dict[str, Any] = {"num_channels": channels, "image_size": size}
        if self.dreams_features:
            form = {"features": self.model.code_size}
        config = DreamGeneratorConfig(
            kind=self.config.generator,
            labels=list(self.stream[number].labels),
            hidden=self.config.generator_hidden,
            latent=self.config.generator_latent,
            components=self.config.generator_components,
            **form,
        )
        return DreamGenerator(config).to(self.model.device)  # type: ignore[arg-type]

    def _try_generator(self) -> None:
        """Dream once and learn one image.  Raises `SleepkitError` if there is no memory for it, or images do not fit."""
        pixels = torch.zeros(2, self.model.code_size) if self.dreams_features else self.today.train.pixels(torch.tensor([0, 0]))
        require_memory(
            self.config.dreams * pixels[0].numel() * pixels.element_size(), f"{self.config.dreams:,} dreams", "lower dreams"
        )
        with torch.random.fork_rng(), torch.no_grad():
            try:
                trial = self._new_generator(0).eval()
                places = torch.zeros(2, dtype=torch.int64)
                if trial.is_trained:
                    trial(pixels.to(self.model.device), places.to(self.model.device))
                trial.dream(places, torch.Generator())
            except (RuntimeError, ValueError) as error:
                shape = " x ".join(map(str, pixels.shape[1:]))
                raise SleepkitError(
                    f"generator {self.config.generator!r} cannot learn images of {shape} ({first_line(error)}); "
                    "lower generator_hidden, set image_size, or use another one"
                ) from None

    # -- measuring --------------------------------------------------------------------------------------------------
    def _validation(self) -> Callable[[], float]:
        """Mean over the experiences of the cortex' accuracy: on dreams of earlier ones, on validation images of today."""
        earlier = [number for number in self.numbered() if number != self.today.number]
        images = self.today.validation
        parts = [(self._seen(images), self.model.units_of(images.labels))]
        each = max(1, VALIDATION_DREAMS // max(20, sum(len(self.stream[number].labels) for number in earlier)))
        for number in earlier:
            dreams = self.dreams(each, VALIDATED_ON, [number])
            parts.append((dreams.pixels, dreams.units))

        def accuracy() -> float:
            known = self.model.mask(REAL)
            return sum((self._answers(pixels, known) == units).double().mean().item() for pixels, units in parts) / len(parts)

        return accuracy

    def _judged(self, folder: Path) -> dict[str, Any]:
        """Label fidelity under a judge of all classes, and diversity, means over all classes that are dreamt."""
        judge, accuracy = self.judge = self.judge or self._new_judge(folder)
        every = _every_unit(judge)
        found: dict[str, list[float]] = {"dream_fidelity": [], "dream_diversity": []}
        for number in self.numbered():
            dreams = self.dreams(self.config.judged_dreams, LOOKED_AT, [number])
            slots = self.model.slots
            classes = torch.tensor(slots.labels)[dreams.units]
            found["dream_fidelity"] += fidelity(self._answers(dreams.pixels, every, judge), classes).values()
            images = self.stream[number].train
            found["dream_diversity"] += diversity(dreams.pixels, classes, self._seen(images), images.labels).values()
        means = {name: sum(values) / len(values) for name, values in found.items()}
        return means | {"judge_accuracy": accuracy}

    def _new_judge(self, folder: Path) -> tuple[IncrementalClassifier, float]:
        """The judge, and its accuracy on test images, the mean over the experiences."""
        config = self._config(num_train_epochs=self.config.judge_epochs, max_steps=-1)
        empty = copy.deepcopy(self.empty)
        if self.dreams_features:
            empty.backbone = copy.deepcopy(self.model.backbone).requires_grad_(False)
        judge = trained_judge(empty, self.stream, config, folder, self._seen)
        every = _every_unit(judge)
        right = [(self._answers(one.test.pixels(), every, judge) == one.test.labels).double().mean() for one in self.stream]
        return judge, torch.stack(right).mean().item()

    def _answers(self, pixels: Tensor, allowed: Tensor, model: IncrementalClassifier | None = None) -> Tensor:
        """``(n,)`` units, the likeliest of the allowed ones."""
        model = model or self.model

        def answer(batch: Tensor) -> Tensor:
            return model(pixel_values=batch).logits.masked_fill(~allowed, float("-inf")).argmax(1)

        return self.in_batches(answer, pixels)

    # -- small parts ------------------------------------------------------------------------------------------------
    def _seed(self, purpose: int) -> int:
        return derive_seed(self.night_seed, purpose)

    def _config(self, **changes: Any) -> GenerativeReplayConfig:
        """Return a copy of the configuration with the changes of a phase."""
        config = copy.copy(self.config)
        for name, value in changes.items():
            setattr(config, name, value)
        return config

    def _freeze(self, model: IncrementalClassifier, backbone: bool) -> None:
        """Let train what a phase may change: all of the model, or not its backbone."""
        model.requires_grad_(not self.config.freeze_features)
        model.head.requires_grad_(True)
        if backbone:
            model.backbone.requires_grad_(False)

    def _seen(self, images: ImageSet) -> Tensor:
        """What generators learn: images as they are, or codes."""
        pixels = images.pixels()
        if not self.dreams_features or pixels.dim() == 2:
            return pixels
        return self.in_batches((self.fast or self.model).encode, pixels)

    def _images_like(self, codes: Tensor) -> Tensor:
        """Today's training image whose code is nearest, for each of the codes."""
        return self.today.train.pixels()[torch.cdist(codes, self._seen(self.today.train)).argmin(1)]

    def _today_units(self) -> Tensor:
        """``(units,)`` bool: those of today's classes."""
        found = torch.zeros(len(self.model.slots), dtype=torch.bool, device=self.model.device)
        found[self.model.units_of(torch.tensor(self.today.labels))] = True
        return found

    def _places(self, labels: Tensor) -> Tensor:
        """Return the places of labels among today's."""
        return (labels[:, None] == torch.tensor(self.today.labels)).int().argmax(1)


class Checkpoints(TrainerCallback):
    """Tests the cortex on the way and keeps the weights that did best."""

    def __init__(self, model: nn.Module, score: Callable[[], float], steps: int) -> None:
        self.model, self.score, self.steps = model, score, steps
        self.scores: list[float] = []
        self.best: dict[str, Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0 and state.global_step < state.max_steps:
            self.look()

    def look(self) -> None:
        """Test the weights as they are."""
        self.scores.append(self.score())
        if self.scores[-1] >= max(self.scores):
            self.best = {name: values.detach().clone() for name, values in self.model.state_dict().items()}

    def choose(self, max_drop: float) -> dict[str, Any]:
        """Test the last weights, and go back to the best ones if those are better by more than ``max_drop``."""
        self.look()
        back = self.scores[-1] < max(self.scores) - max_drop
        if back:
            self.model.load_state_dict(self.best)
        self.best = {}
        return {"replay_validation": max(self.scores) if back else self.scores[-1], "rolled_back": int(back)}


def _every_unit(model: IncrementalClassifier) -> Tensor:
    """Return a mask ``(units,)`` bool, all True."""
    return torch.ones(len(model.slots), dtype=torch.bool, device=model.device)


def _own_loss(model: nn.Module, pixels: Tensor, places: Tensor, step: int) -> Tensor:
    """Return a generator's own loss."""
    return cast(Tensor, model(pixels, places))
