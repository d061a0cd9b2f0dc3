"""Dream2Learn: a classifier dreams classes that do not exist, learns them, and gives their units to the real ones that come.

    wake     place     each new class takes over the dream's unit that most of its images fall on (assignment.py)
             learn     rehearsal (er, er_ace or der) on new and replayed images; with `wake_dream_weight` w above 0 the softmax
                       runs over dreams too, + w CE(dreamt images, their units)
    sleep    dream     pairs of seen classes (target, source): a prompt is optimised for the target on images of the source
                       (dreaming.py) until the oracle stops it; what has not collapsed gets a unit, up to `dreams` of them
             paint     images of every dream, from its prompt, replayed images of its source, and fresh noise
             learn     `sleep_steps` on replayed images and dreams, + `dream_weight` CE(..), so that the new units mean something
             settle    `memory_steps` on replayed images alone: what dreams have moved real classes by is put right

Kept between nights: the prompts (`extras`) and their units; dreamt images never.  A unit whose meaning changes (taken over,
released, given to a new dream) is forgotten in the logits that DER++ has stored.  Batch norm: dreams pass in a
forward of their own with the running statistics, so that these remain those of real images; while dreaming the classifier is
in evaluation.

A night that was killed goes on after its learning (folder `wake`), in the middle of its prompts (`dreams`), or paints again.

With `dreams` 0 it sleeps on replayed images alone.  Other images in the place of dreams are controls, in
benchmarks/dream_controls.py.

Source: arXiv 2603.01935, whose abstract, captions and reviews could be read, not its equations and tables; each module says
what is ours.  Left out: task- and domain-incremental streams.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn

from sleepkit.errors import SleepkitError
from sleepkit.utils.files import write_json
from sleepkit.utils.ranks import main_only, own_draws
from sleepkit.utils.seeds import derive_seed
from sleepkit.vision.data.grids import save_grid
from sleepkit.vision.data.streams import ImageExperience
from sleepkit.vision.dream2learn.audit import Judge, save_dreams, shown_of
from sleepkit.vision.dream2learn.config import Dream2LearnConfig
from sleepkit.vision.dream2learn.dream_bank import DreamBank
from sleepkit.vision.dream2learn.dream_images import DreamImages, Gallery, require_others
from sleepkit.vision.dream2learn.dreaming import (
    OptimisedPrompt,
    PromptRequest,
    new_pairs,
    optimise_prompts,
    seen_classes,
    summary,
)
from sleepkit.vision.dream2learn.oracle import NEARER_THAN, Oracle, stop_labels
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import Dream, initial_vectors, save_prompt
from sleepkit.vision.incremental.baselines import DarkExperienceReplay, ErAce, ExperienceReplay
from sleepkit.vision.incremental.classifier import IncrementalClassifier, masked_cross_entropy
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.learner import share_right
from sleepkit.vision.incremental.output_units import DREAM, REAL
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows

__all__ = ["DreamingDer", "DreamingEr", "DreamingErAce"]

PROMPTS, PAINT_SLEEP, PAINT_WAKE, SLEEP, LOOKED_AT, SETTLE = range(6)  # what a seed is for
LOOKED_AT_IMAGES = 16  # of each dream
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class Dreaming(DreamBank):
    """Mixin that adds dreams to a rehearsal method: Dream2Learn's night."""

    def __init__(
        self, model: IncrementalClassifier, config: IncrementalTrainingConfig, stream: Sequence[ImageExperience]
    ) -> None:
        if not isinstance(config, Dream2LearnConfig):
            raise SleepkitError(
                "the d2l methods have a configuration of their own; run recipes/dream2learn.py instead, in Python give a "
                "Dream2LearnConfig"
            )
        if config.scenario != "class":
            raise SleepkitError(f"scenario is {config.scenario!r}; dreams are classes that share one head, use 'class'")
        if stream[0].train.source.pixels.dim() != 4:
            raise SleepkitError("dreams are images and the data are features; use recipes/mygo.py, which dreams features too")
        super().__init__(model, config, stream)
        if config.others_dataset is not None and config.judge_epochs:
            require_others(config.others_dataset, self.today.train.source.pixels.shape[1:])
        self.painter = self._new_painter() if config.dreams else None
        self.images = self._new_images()
        self.empty = copy.deepcopy(model)  # for the judge
        self.judge: Judge | None = None
        self.generator_hash = self.painter.digest() if self.painter else ""
        self.dreamt: TensorRows | None = None  # images and units of tonight's dreams
        self.folder = Path()
        self.dream_log: dict[str, Any] = {}
        self.paths: dict[int, Tensor] = {}  # of tonight's prompts, for pictures
        self.stops: list[int] = []
        self.flops_before = 0  # of tonight's prompts that an earlier, killed process has optimised

    def _new_images(self) -> DreamImages:
        return DreamImages(self.painter, self.config.probes * self.config.prompts_per_batch)

    def _new_painter(self) -> DreamPainter | None:
        config = self.config
        painter = DreamPainter(
            config.generator,
            sampler_steps=config.sampler_steps,
            strength=config.strength,
            shared_noise=config.shared_noise,
            grad_steps=config.grad_steps,
            checkpointing=config.checkpointing,
            template=config.prompt_template,
            lcm_lora=config.lcm_lora,
            dtype=config.generator_dtype,
            device=config.device,
        )
        channels, height, width = self.today.train.source.pixels.shape[1:]
        painter.require_images(channels, height, width)
        with torch.no_grad():
            painter.embed(painter.table[None, :1].expand(1, config.prompt_vectors, -1))  # refuses more than fit into a prompt
        return painter

    # -- wake -------------------------------------------------------------------------------------------------------
    def before_training(self) -> None:
        """Paint the dreams that are left, if they are learned awake."""
        super().before_training()
        self.dreamt = self.paint(PAINT_WAKE) if self.config.wake_dream_weight else None

    def train(self, folder: Path) -> dict[str, Any]:
        """Rehearse, with dreams, unless an earlier process has done it."""
        self.folder = folder
        log = self.once(folder / "wake", self.model, lambda: super(Dreaming, self).train(folder))
        self.model.eval()
        return log

    def after_training(self) -> None:
        """Add today's images to the replay buffer, then sleep."""
        super().after_training()
        assert self.buffer is not None
        if not len(self.buffer):
            raise SleepkitError("the replay buffer is empty, so there is nothing to dream of; set buffer_size to 1 or more")
        self.replayed = self.remembered()
        set_seed(self._seed(PROMPTS))  # not where learning left off, which a resumed night does not do again
        self.dream_log = self._dream() if self.config.dreams else {}
        self.dreamt = self.paint(PAINT_SLEEP)
        self._sleep()

    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """The night, what it says of its dreams, and what is only looked at."""
        flops, self.flops_before = self.painter.flops if self.painter else 0, 0
        log = super().sleep(night, output_dir) | self.dream_log | {"faa_all_units": self._among_all_units()}
        if self.painter is not None:
            log["dream_flops"] = sum(gather_object([self.painter.flops - flops + self.flops_before]))
        if self.painter is not None and self.painter.digest() != self.generator_hash:
            raise RuntimeError("the generator's weights have changed")
        return log | self._looked_at(Path(output_dir) / "dreams")

    def _among_all_units(self) -> float:
        """Accuracy on all classes so far where dreams may be answered too, the mean over the experiences."""
        known, slots = self._real_and_dreamt().cpu(), self.model.slots
        shares = []
        for one in self.stream:
            if set(one.labels) <= set(slots.labels_of(REAL)):
                logits = self.in_batches(self.logits, one.test)
                shares.append(share_right(logits, self.model.units_of(one.test.labels), known))
        return float(np.mean(shares))

    def _looked_at(self, folder: Path) -> dict[str, float]:
        """Pictures of the dreams, the path of those that are new, and what the judge takes them for."""
        dreams, gallery, seed = self.dreams(), self.gallery(), self._seed(LOOKED_AT)
        if not dreams:
            return {}
        seeds = [derive_seed(seed, dream.number) for dream in dreams]
        dreamt = self.images(dreams, gallery, LOOKED_AT_IMAGES, seeds)
        sources = [gallery.some(dream.source, LOOKED_AT_IMAGES, one) for dream, one in zip(dreams, seeds, strict=True)]
        name = f"night_{self.night:02d}"
        of = {dream.number: dream for dream in dreams}
        walks = [self._walk(of[number], path, gallery, seed) for number, path in self.paths.items() if number in of]

        def draw() -> None:
            save_dreams(sources, dreamt, folder / f"{name}.png")
            if walks:
                save_grid(walks, folder / f"{name}_trajectories.png")
            about = [{"number": d.number, "target": d.target, "source": d.source, "stop": d.stop} for d in dreams]
            write_json(folder / f"{name}.json", {"generator": self.generator_hash, "dreams": about, "stops": self.stops})

        main_only(draw)
        self.paths, self.stops = {}, []
        found = {"dreams_recognised": self._recognised(torch.cat(dreamt), dreams)}
        if not self.config.judge_epochs:
            return found
        if self.judge is None:
            empty, config = copy.deepcopy(self.empty), self.config
            seen = self.images.regenerated if self.painter is not None else torch.clone
            others, epochs = str(config.others_dataset), config.judge_epochs
            looks = {"generator": self.generator_hash}
            self.judge = Judge(empty, self.stream, others, config, epochs, folder / "judge", seen, looks)
        return found | self.judge.leaks(torch.cat(dreamt), self.today.number) | {"judge_accuracy": self.judge.accuracy}

    def _walk(self, dream: Dream, path: Tensor, gallery: Gallery, seed: int) -> Tensor:
        """One image of a dream after some of the updates of its prompt, always from the same noise."""
        vectors = shown_of(path)
        start = gallery.some(dream.source, 1, seed).expand(len(vectors), -1, -1, -1)
        noise = [derive_seed(seed, "noise", 0)] * len(vectors)
        return self.images.painted(start, vectors, noise, [dream.number] * len(vectors))

    def _recognised(self, dreamt: Tensor, dreams: list[Dream]) -> float:
        """Share of new images of dreams that the classifier gives to their unit, among all of real classes and dreams."""
        units = torch.tensor([self._unit(dream) for dream in dreams]).repeat_interleave(LOOKED_AT_IMAGES)
        return share_right(self.in_batches(self.logits, dreamt), units, self._real_and_dreamt().cpu())

    def _real_and_dreamt(self) -> Tensor:
        return self.model.mask(REAL) | self.model.mask(DREAM)

    def allowed(self, units: Tensor) -> Tensor:
        """Real classes, and dreams where they are learned too."""
        return self.model.mask(REAL) if self.dreamt is None else self._real_and_dreamt()

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Return the loss of the rehearsal method plus that of dreams."""
        return super().loss(model, pixels, units, step) + self._dream_loss(model, step, self.config.wake_dream_weight)

    def _dream_loss(self, model: nn.Module, step: int, weight: float) -> Tensor | float:
        if self.dreamt is None or not weight:
            return 0.0
        source, dreams = np.random.default_rng([self.config.seed, self.night, step, 0, 7]), len(self.dreamt)
        rows = torch.from_numpy(own_draws(lambda count: source.integers(dreams, size=count), self.config.dream_batch_size))
        images, units = self.dreamt.pixel_values[rows], self.dreamt.labels[rows].to(self.model.device)
        with running_statistics(model):
            logits = self.forward(model, images.to(self.model.device))
        return weight * masked_cross_entropy(logits, units, self.allowed(units))

    # -- sleep ------------------------------------------------------------------------------------------------------
    def _dream(self) -> dict[str, Any]:
        """Make the dreams that are missing, and optimise those that are kept again if that is asked for."""
        assert self.replayed is not None
        kept = self.dreams()
        taken = {(dream.target, dream.source) for dream in kept}
        classes, wanted = self.model.slots.labels_of(REAL), self.config.dreams - len(kept)
        pairs = new_pairs(classes, taken, wanted, [self.config.seed, self.night, PROMPTS])
        if self.painter is None:  # a control: nothing to optimise
            self.keep([Dream(number, *pair, self.night, 0, torch.zeros(0, 0)) for number, pair in self._numbered(pairs)])
            return {"dreams": len(self.dreams())}
        features = self.in_batches(self.model.features, self.replayed.pixels)
        seen = seen_classes(self.model, features, self.replayed.units.cpu(), NEARER_THAN)
        requests, dreams = self._requests(kept if self.config.refresh else [], pairs)
        self.model.requires_grad_(False)
        folder, identity = self.folder / "dreams", self.tonight | {"generator": self.generator_hash}
        optimised, cost = optimise_prompts(self.painter, self.model, requests, seen, self.oracle(), self.config, folder, identity)
        self.flops_before = cost.flops_before
        self.model.requires_grad_(True)
        log = self._judge_and_keep(dreams, optimised)
        self._write_prompts()
        return log | {"unet_calls": sum(gather_object([cost.calls]))}

    def _numbered(self, pairs: list[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
        return [(1000 * self.night + place, pair) for place, pair in enumerate(pairs)]

    def _requests(self, kept: list[Dream], pairs: list[tuple[int, int]]) -> tuple[list[PromptRequest], list[Dream]]:
        assert self.painter is not None
        table, config = self.painter.table, self.config
        dreams = [copy.copy(dream) for dream in kept]
        for number, (target, source) in self._numbered(pairs):
            vectors = initial_vectors(table, config.prompt_vectors, derive_seed(self._seed(PROMPTS), number), config.prompt_start)
            dreams.append(Dream(number, target, source, self.night, 0, vectors))
        classes = self.model.slots.labels_of(REAL)
        requests, gallery = [], self.gallery()
        for place, dream in enumerate(dreams):
            seed = derive_seed(self._seed(PROMPTS), "noise", place)
            images = gallery.some(dream.source, config.probes, seed)
            of = classes.index(dream.target), classes.index(dream.source)
            requests.append(PromptRequest(*of, images, dream.vectors.cpu(), seed, dream.number))
        return requests, dreams

    def _judge_and_keep(self, dreams: list[Dream], optimised: list[OptimisedPrompt]) -> dict[str, Any]:
        """Train the oracle if there is none, choose where to stop, keep what has not collapsed."""
        learned, first = self.config.oracle == "learned", self.config.least_updates
        ends = [prompt.updates for prompt in optimised]
        stops = [prompt.stop(first) for prompt in optimised] if learned else ends
        if learned and self.oracle() is None and optimised:
            labels = [stop_labels(prompt.scores, min(first, prompt.updates)) for prompt in optimised]
            oracle = Oracle.trained(torch.cat([prompt.described for prompt in optimised]), torch.cat(labels), self._seed(PROMPTS))
            self.keep_oracle(oracle)
            ends = stops = [int((label == 0).sum()) for label in labels]
        accepted, self.stops = [], stops
        for dream, prompt, stop in zip(dreams, optimised, stops, strict=True):
            dream.stop, dream.vectors = stop, prompt.path[stop]
            if not prompt.collapsed[stop].any():
                accepted.append(dream)
                self.paths[dream.number] = prompt.path[: stop + 1]
        self.retire([dream for dream in self.dreams() if dream.number in {one.number for one in dreams if one not in accepted}])
        self.keep(accepted)
        return {"dreams": len(self.dreams()), "led": len(optimised)} | summary(optimised, stops, ends, self.config.dream_updates)

    def _sleep(self) -> None:
        """Train on replayed images and dreams, then on replayed images alone."""
        self._rehearse(self.config.sleep_steps, self._seed(SLEEP))
        self.dreamt = None
        self._rehearse(self.config.memory_steps, self._seed(SETTLE))

    def _rehearse(self, steps: int, seed: int) -> None:
        if not steps:
            return
        assert self.replayed is not None
        config = copy.copy(self.config)
        config.max_steps, config.learning_rate = steps, self.config.sleep_learning_rate
        length = steps * self.config.train_batch_size * PartialState().num_processes
        rows = TensorRows(self.replayed.pixels.cpu(), self.replayed.units.cpu(), length)

        def loss(model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
            own = masked_cross_entropy(self.forward(model, pixels), units, self.allowed(units))
            return own + self._dream_loss(model, step + 1_000_000, self.config.dream_weight)  # other rows than while awake

        self.model.train()
        IncrementalTrainer(self.model, loss, config, rows, seed, self.folder, what=f"night {self.night}, its sleep,").run()
        self.model.eval()

    # -- dreams -----------------------------------------------------------------------------------------------------
    def gallery(self) -> Gallery:
        """Images of the replay buffer by class."""
        replayed = self.replayed if self.replayed is not None else self.remembered()
        return Gallery(replayed.pixels, torch.tensor(self.model.slots.labels)[replayed.units.cpu()])

    def paint(self, purpose: int) -> TensorRows | None:
        """``dream_images`` of every dream, uint8, and their units; None without dreams.  Each rank paints its share.

        With ``repaint``, the replayed images come too as the generator's autoencoder regenerates them, with their own units: its
        hand must not tell a dream from a real class.
        """
        dreams = self.dreams()
        if not dreams:
            return None
        seeds = [derive_seed(self._seed(purpose), dream.number) for dream in dreams]
        parts = self.images(dreams, self.gallery(), self.config.dream_images, seeds)
        rows = torch.tensor(list(map(self._unit, dreams))).repeat_interleave(self.config.dream_images)
        if self.config.repaint and self.painter is not None:
            replayed = self.replayed if self.replayed is not None else self.remembered()
            parts.append(self.images.regenerated(replayed.pixels.cpu()))
            rows = torch.cat([rows, replayed.units.cpu()])
        return TensorRows(torch.cat(parts), rows)

    def _unit(self, dream: Dream) -> int:
        return self.model.slots.unit(dream.number, DREAM)

    def _write_prompts(self) -> None:
        def write() -> None:
            for dream in self.dreams():
                name = f"dream-{dream.number}"
                save_prompt(self.folder.parent / "dreams" / f"{name}.safetensors", f"<{name}>", dream.vectors)

        main_only(write)

    def _seed(self, purpose: int) -> int:
        return derive_seed(self.night_seed, purpose)


class DreamingEr(Dreaming, ExperienceReplay):
    """Dream2Learn on top of experience replay."""


class DreamingErAce(Dreaming, ErAce):
    """Dream2Learn on top of ER-ACE, asymmetric cross-entropy."""


class DreamingDer(Dreaming, DarkExperienceReplay):
    """Dream2Learn on top of DER++, which replays logits too."""


@contextmanager
def running_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm layers use their running statistics, and leave them as they are."""
    layers = [module for module in model.modules() if isinstance(module, BATCH_NORMS) and module.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
