"""Dreaming: sample dreams, choose by gradient, try them, learn to dream what helped.

    for round r = 1..rounds, for each context c:
        dream     m texts from the dreamer with c in view, one random expert of each layer forced open          dreams.py
        choose    top k by gradient, b at random                                                         scores.py
        try       LoRA SFT on an isolated view; reward = gain of tau on questions held out,              trials.py
                  less what the style's worked dream gains, which is about something else
        learn     the dreamer's LoRA: SFT on what was rewarded (ReST-EM), or policy gradient             policy.py

Dreams are kept in ``round_<r>/`` after sampling and after each batch of trials, so a run that was killed does none of them
twice.  On several processes each rank tries its share, and all know all rewards.

Source: "Language Models Need Sleep" (arXiv 2606.03979), SEAL (arXiv 2506.10943).  Ours: the worked dream as the zero of the
reward (``trial_control``), as any text in the form of a reply makes other replies likelier, by .3 nats on SmolLM2; dreaming and
trials do without tonight's expert, with which SmolLM2 recites one sentence of the passage again and again, and learns
nothing from a dream that it does not know by then; from the second round on it dreams more in the styles that have
helped (``dream_learn_styles``).

Left out: what is done with the accepted dreams, which is the learner's; ZeRO-3, whose split weights cannot carry many LoRAs
at once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from sleepkit.errors import SleepkitError
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.dreaming.dreams import Context, Dream, control_rows, dream, load_dreams, save_dreams
from sleepkit.language.dreaming.policy import (
    DreamPolicyTrainer,
    dreaming_with,
    new_dreamer,
    policy_items,
    policy_settings,
)
from sleepkit.language.dreaming.scores import GradientScorer, select
from sleepkit.language.dreaming.trials import Trials, prepare_rows
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import is_zero3
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.lora import save_adapter
from sleepkit.language.seeding.packing import Backbone
from sleepkit.reporting.live.meter import timed
from sleepkit.utils.files import read_json, write_json
from sleepkit.utils.phases import PhaseFile, PhaseFolder, digest_of
from sleepkit.utils.ram import free_memory, returning_blocks
from sleepkit.utils.ranks import main_finds, main_only
from sleepkit.utils.sealed import file_digest
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import conclude

STYLES_NAME = "styles.json"  # of a dreamer: {style: (dreams that helped, dreams that were tried)}
TRIALS_AT_ONCE = 4  # of one process: so many LoRAs, with their rows, are in memory together
logger = logging.get_logger(__name__)


@dataclass
class RoundLog:
    """Counts of one round of dreaming; ``share_positive`` is of the dreams that were tried and did not fail."""

    round: int
    sampled: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    tried: int = 0
    failed: int = 0
    accepted: int = 0
    share_positive: float | None = None
    mean_reward: float | None = None

    @classmethod
    def of(cls, number: int, dreams: Sequence[Dream], dropped: Counter[str]) -> RoundLog:
        """Count how many dreams of a round were dropped, tried and accepted.

        Args:
            number: of the round, from 1.
            dreams: those that were kept of what the dreamer wrote.
            dropped: how many were not, by reason.
        """
        tried = [one for one in dreams if one.chosen]
        rewards = [one.reward for one in tried if one.reward is not None]
        accepted = sum(reward > 0 for reward in rewards)
        log = cls(number, len(dreams) + sum(dropped.values()), dict(dropped), len(tried), len(tried) - len(rewards), accepted)
        if rewards:
            log.share_positive, log.mean_reward = accepted / len(rewards), sum(rewards) / len(rewards)
        return log


class DreamingTrainer:
    """Dreams about contexts and learns to dream better.

    Args:
        model: grown model with at least one expert in use, on which dreams are scored.
        config: what is dreamed and how it is judged.
        seeding: the run's settings; the dreamer trains with their devices, precision and logging.
        slot: the expert whose gradient scores dreams.
        folder: where rounds and dreamers are kept.
        night: that it dreams in.
        identity: what decides its dreams besides contexts and round; what was dreamed with another one is not taken over.

    Raises:
        SleepkitError: under ZeRO-3, or without an expert in use.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        config: DreamingConfig,
        seeding: KnowledgeSeedingConfig,
        slot: int,
        folder: Path,
        night: int = 1,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if is_zero3():
            raise SleepkitError("dreaming tries many LoRAs on weights that ZeRO-3 splits; use ZeRO-2 or less, or dream_rounds 0")
        self.model, self.tokenizer, self.config, self.seeding = model, tokenizer, config, seeding
        self.slot, self.folder, self.night, self.identity = slot, Path(folder), night, dict(identity or {})
        if config.dreamer_path:
            self.identity["dreamer"] = digest_of(
                [file_digest(path) for path in sorted(Path(config.dreamer_path).glob("adapter*"))]
            )
        self.bank = ExpertBank.of(model)
        if slot not in self.bank.active:
            raise SleepkitError(f"expert {slot} is not in use; consolidate before dreaming")
        self.backbone = Backbone(model, self.bank)
        self.ranks = PartialState()

    def run(self, contexts: Sequence[Context]) -> tuple[list[Dream], list[RoundLog]]:
        """All rounds; returns the accepted dreams of all of them, best first, and a log of each."""
        accepted: list[Dream] = []
        logs = []
        for number in range(1, self.config.dream_rounds + 1):
            dreams, log = self.round(contexts, number)
            logs.append(log)
            accepted += [one for one in dreams if one.reward is not None and one.reward > 0]
            if number < self.config.dream_rounds:
                self.learn(dreams, contexts, number)
        return sorted(accepted, key=lambda one: -(one.reward or 0.0)), logs

    @returning_blocks()
    def round(self, contexts: Sequence[Context], number: int, name: str = "round") -> tuple[list[Dream], RoundLog]:
        """Dream, choose and try with the dreamer of the round before; what a killed run has done already is read back.

        Args:
            name: of the folder, ``<name>_<number>``: contexts that are only measured get another.
        """
        dreams: list[Dream] = []
        dropped: Counter[str] = Counter()
        folder = self.folder / f"{name}_{number}"
        for k, context in enumerate(contexts):
            phase = PhaseFile(folder / f"context_{k:03d}.jsonl", self._identity(context, number, name))
            noted = main_finds(phase.read)
            if noted is None:
                seed = derive_seed(self.seeding.seed, "dreams", self.night, name, number, k)
                noted = self._dream(context, number, seed, phase)
            found = load_dreams(phase.path)
            dropped.update(noted["dropped"])
            free_memory()
            control = PhaseFile(self.folder / f"{name}_control_{k:03d}.json", self._identity(context, 0, name))
            with self._before_tonight():
                self._try(context, found, phase, noted, control)
            free_memory()
            dreams += found
        log = RoundLog.of(number, dreams, dropped)
        main_only(lambda: write_json(folder / "log.json", asdict(log)))
        return dreams, log

    # -- dream and choose ---------------------------------------------------------------------------------------------
    def _identity(self, context: Context, number: int, name: str) -> dict[str, Any]:
        """Return what decides the dreams of one context in one round, by name."""
        return {
            **self.identity,
            "context": digest_of([context.name, context.chunk, context.questions]),
            "round": f"{name} {number}",
        }

    @timed("dreaming")
    def _dream(self, context: Context, number: int, seed: int, phase: PhaseFile) -> dict[str, Any]:
        """Dream of one context, and keep the dreams with how many were dropped, which is returned."""
        config = self.config
        dreamer = self._dreamer(number - 1)
        with (
            self._before_tonight(),
            dreaming_with(self.model, dreamer) if dreamer else nullcontext(),
            self.bank.one_forced_open(seed, config.dream_expert_gate) if config.dream_random_expert else nullcontext(),
        ):
            made = dream(
                self.model,
                self.tokenizer,
                context,
                self._styles(dreamer),
                config.dream_max_tokens,
                config.dream_temperature,
                config.dream_top_p,
                seed,
            )
        for one in made.dreams:
            one.night, one.round = self.night, number
        if made.dropped:
            logger.warning(f"dropped dreams of {context.name}: {dict(made.dropped)}")
        self._choose(made.dreams, seed)
        log = {"dropped": dict(made.dropped)}
        main_only(lambda: phase.write(lambda draft: save_dreams(made.dreams, draft), log))
        return log

    def _before_tonight(self) -> AbstractContextManager[None]:
        """Show the model as it was before tonight's training: it knows the contexts only by what stands in its prompt."""
        return self.bank.view([slot for slot in self.bank.active if slot != self.slot])

    def _dreamer(self, number: int) -> Path | None:
        """The folder of a round's dreamer; before the first round that of `dreamer_path`, or none."""
        if number == 0:
            return Path(self.config.dreamer_path) if self.config.dreamer_path else None
        folder = self.folder / f"dreamer_{number}"
        return folder if folder.is_dir() else None

    def _styles(self, dreamer: Path | None) -> list[str]:
        """A style for each dream of a context: all alike, or by what the dreamer's own dreams have been worth."""
        config = self.config
        found = style_counts(dreamer) if config.dream_learn_styles else {}
        worth = [(found.get(style, (0, 0))[0] + 1) / (found.get(style, (0, 0))[1] + 2) for style in config.dream_styles]
        return shared_out(config.dream_styles, worth, config.dreams_per_context)

    @timed("dream scores")
    def _choose(self, dreams: list[Dream], seed: int) -> None:
        config = self.config
        if config.dream_gradient_selection:
            scorer = GradientScorer(self.model, self.slot, self.tokenizer.pad_token_id or 0)
            for one in dreams:
                one.score = scorer.score(prepare_rows(self.backbone, self.tokenizer, one.rows))
            chosen = select([one.score or 0.0 for one in dreams], config.dream_keep_top, config.dream_keep_random, seed)
        else:
            chosen = select([0.0] * len(dreams), 0, config.dream_keep_top + config.dream_keep_random, seed)
        for place in chosen:
            dreams[place].chosen = True

    # -- try ----------------------------------------------------------------------------------------------------------
    @timed("trials")
    def _try(
        self, context: Context, dreams: list[Dream], phase: PhaseFile, log: Mapping[str, Any], control_phase: PhaseFile
    ) -> None:
        waiting = [one for one in dreams if one.chosen and one.reward is None and not one.failed]
        waiting.sort(key=lambda one: (sorted(one.settings.items()), len(one.rows)))  # short ones may have to repeat their rows
        if not waiting:
            return
        config = self.config
        trials = Trials(
            self.model, self.tokenizer, context.questions, config.trial_steps, config.trial_learning_rate, config.trial_rank
        )
        control = self._control(trials, control_phase)
        at_once = TRIALS_AT_ONCE * self.ranks.num_processes
        alike = [list(group) for _, group in itertools.groupby(waiting, key=lambda one: one.settings)]
        for batch in (group[start : start + at_once] for group in alike for start in range(0, len(group), at_once)):
            mine = batch[self.ranks.process_index :: self.ranks.num_processes]
            rows = [prepare_rows(self.backbone, self.tokenizer, one.rows) for one in mine]
            results: list[list[Any]] = [trials.run(rows, range(config.trial_seeds), **batch[0].settings) if rows else []]
            if self.ranks.num_processes > 1:
                results = gather_object(results)
            for rank, part in enumerate(results):
                for one, result in zip(batch[rank :: self.ranks.num_processes], part, strict=True):
                    one.reward, one.solved, one.failed = result.reward, result.solved, result.failed
                    if one.reward is not None:
                        one.reward -= control[one.style]
            main_only(lambda: phase.write(lambda draft: save_dreams(dreams, draft), log))

    def _control(self, trials: Trials, phase: PhaseFile) -> dict[str, float]:
        """What each style's worked dream gains on these questions; the same in all rounds, so it is tried once."""
        if not self.config.trial_control:
            return dict.fromkeys(self.config.dream_styles, 0.0)
        if main_finds(phase.read) is None:
            rows = [prepare_rows(self.backbone, self.tokenizer, control_rows(style)) for style in self.config.dream_styles]
            gains = [result.reward or 0.0 for result in trials.run(rows, range(self.config.trial_seeds))]
            found = dict(zip(self.config.dream_styles, gains, strict=True))
            main_only(lambda: phase.write(lambda draft: write_json(draft, found)))
        return dict(read_json(phase.path))

    # -- learn --------------------------------------------------------------------------------------------------------
    @timed("learning to dream")
    @returning_blocks()
    def learn(self, dreams: Sequence[Dream], contexts: Sequence[Context], number: int) -> None:
        """Train the dreamer of a round; where nothing was rewarded it stays as it is.

        ReST-EM trains it from the beginning, policy gradient from the one that dreamed.

        Args:
            dreams: of the round, with their rewards.
            contexts: that they are about.
            number: of the round, from 1.
        """
        before = self._dreamer(number - 1)
        about = digest_of([[context.name, context.chunk, context.questions] for context in contexts])
        phase = PhaseFolder(self.folder / f"dreamer_{number}", {**self.identity, "contexts": about, "round": number})
        if main_finds(phase.read) is not None:  # trained before the run was killed
            return
        items = policy_items(dreams, contexts, self.tokenizer, self.config.dreamer)
        seed = derive_seed(self.seeding.seed, "dreamer", self.night, number)
        main_only(phase.begin)
        with (
            self._before_tonight(),
            dreaming_with(self.model, before, trainable=True)
            if before and (self.config.dreamer == "grpo" or not items)
            else new_dreamer(self.model, self.config.dreamer_rank, seed) as adapted,
        ):
            if items:
                args = policy_settings(self.seeding, self.config, self.folder / f"learn_{number}", seed)
                trainer = DreamPolicyTrainer(adapted, args, items, self.tokenizer)
                trainer.train()
                conclude(trainer, f"dreamer {number}")
            main_only(lambda: save_adapter(adapted, phase.draft))
        counts = style_counts(before)
        for one in dreams:
            if one.reward is not None:
                helped, tried = counts.get(one.style, (0, 0))
                counts[one.style] = (helped + (one.reward > 0), tried + 1)
        main_only(lambda: write_json(phase.draft / STYLES_NAME, counts))
        main_only(phase.commit)


def style_counts(dreamer: Path | None) -> dict[str, tuple[int, int]]:
    """Count for each style how many dreams of a dreamer and of those before it helped, and how many were tried."""
    path = dreamer / STYLES_NAME if dreamer else None
    return dict(read_json(path)) if path and path.is_file() else {}


def shared_out(names: Sequence[str], worth: Sequence[float], count: int) -> list[str]:
    """``count`` names in turn, each as often as its share of ``worth`` says, and at least once if there is room.

    Largest remainders; equal worth gives each the same number.
    """
    least = int(count >= len(names))
    shares = [(count - least * len(names)) * value / sum(worth) for value in worth]
    numbers = [least + int(share) for share in shares]
    by_rest = sorted(range(len(names)), key=lambda k: int(shares[k]) - shares[k])
    for k in by_rest[: count - sum(numbers)]:
        numbers[k] += 1
    turns = [(turn, k) for k, number in enumerate(numbers) for turn in range(number)]
    return [names[k] for _, k in sorted(turns)]
