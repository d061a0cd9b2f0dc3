"""Dreaming: sample dreams, choose by gradient, try them, learn to dream what helped.

    for round r = 1..rounds, for each context c:
        dream     m texts from the dreamer with c in view, one random expert of each layer forced open          dreams.py
        choose    top k by gradient, b at random                                                         scores.py
        try       LoRA SFT on an isolated view; reward = gain of tau on questions held out,              trials.py
                  less what the style's worked dream gains, which is about something else
        learn     the dreamer's LoRA: SFT on what was rewarded (ReST-EM), or policy gradient             policy.py

Dreams are kept in ``round_<r>/`` after sampling and after each batch of trials, so a run that was killed does none of them
twice.  Dreams, their scores and their trials are one queue over all contexts, dealt out to the processes; all know all rewards.

Source: "Language Models Need Sleep" (arXiv 2606.03979), SEAL (arXiv 2506.10943).  Ours: the worked dream as the zero of the
reward (``trial_control``), as any text in the form of a reply makes other replies likelier, by .3 nats on SmolLM2; dreaming and
trials do without tonight's expert, with which SmolLM2 recites one sentence of the passage again and again, and learns
nothing from a dream that it does not know by then; from the second round on it dreams more in the styles that have
helped (``dream_learn_styles``).

Left out: what is done with the accepted dreams, which is the learner's; ZeRO-3, whose split weights cannot carry many LoRAs
at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
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
from sleepkit.language.dreaming.trials import TrialResult, Trials, prepare_rows
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.lora import save_adapter
from sleepkit.language.seeding.packing import Backbone
from sleepkit.reporting.live.meter import timed
from sleepkit.utils.files import read_json, write_json
from sleepkit.utils.phases import PhaseFile, PhaseFolder, digest_of
from sleepkit.utils.ram import free_memory, returning_blocks
from sleepkit.utils.ranks import main_finds, main_only, shares, split
from sleepkit.utils.sealed import file_digest
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import conclude
from sleepkit.utils.training_fields import refuse_zero3

STYLES_NAME = "styles.json"  # of a dreamer: {style: (dreams that helped, dreams that were tried)}
CONTEXTS_AT_ONCE = 4  # for each process: after so many, dreams are kept
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
        refuse_zero3("dreaming tries many LoRAs", "or dream_rounds 0")
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
        folder = self.folder / f"{name}_{number}"
        identities = [self._identity(context, number, name) for context in contexts]
        phases = [PhaseFile(folder / f"context_{k:03d}.jsonl", one) for k, one in enumerate(identities)]
        noted: dict[int, dict[str, Any] | None] = dict(enumerate(main_finds(lambda: [phase.read() for phase in phases])))
        waiting = [k for k, log in noted.items() if log is None]
        seeds = [derive_seed(self.seeding.seed, "dreams", self.night, name, number, k) for k in range(len(contexts))]
        at_once = CONTEXTS_AT_ONCE * self.ranks.num_processes
        for some in (waiting[start : start + at_once] for start in range(0, len(waiting), at_once)):
            noted |= self._dream({k: contexts[k] for k in some}, number, seeds, phases)
        logs = [log or {} for log in noted.values()]
        dreams = [load_dreams(phase.path) for phase in phases]
        free_memory()
        controls = [
            PhaseFile(self.folder / f"{name}_control_{k:03d}.json", self._identity(context, 0, name))
            for k, context in enumerate(contexts)
        ]
        with self._before_tonight():
            self._try(contexts, dreams, phases, logs, controls)
        free_memory()
        every = [one for found in dreams for one in found]
        log = RoundLog.of(number, every, sum((Counter(log["dropped"]) for log in logs), Counter()))
        main_only(lambda: write_json(folder / "log.json", asdict(log)))
        return every, log

    # -- dream and choose ---------------------------------------------------------------------------------------------
    def _identity(self, context: Context, number: int, name: str) -> dict[str, Any]:
        """Return what decides the dreams of one context in one round, by name."""
        return {
            **self.identity,
            "context": digest_of([context.name, context.chunk, context.questions]),
            "round": f"{name} {number}",
        }

    @timed("dreaming")
    def _dream(
        self, contexts: Mapping[int, Context], number: int, seeds: Sequence[int], phases: Sequence[PhaseFile]
    ) -> dict[int, dict[str, Any]]:
        """Dream of some contexts, by their number, and keep the dreams with how many were dropped, which is returned."""
        config, dreamer = self.config, self._dreamer(number - 1)
        with self._before_tonight(), dreaming_with(self.model, dreamer) if dreamer else nullcontext():
            made = dream(
                self.model,
                self.tokenizer,
                list(contexts.values()),
                self._styles(dreamer),
                config.dream_max_tokens,
                config.dream_temperature,
                config.dream_top_p,
                [seeds[k] for k in contexts],
                self._with_random_experts,
            )
        for one in (one for found in made for one in found.dreams):
            one.night, one.round = self.night, number
        self._choose([found.dreams for found in made], [seeds[k] for k in contexts])
        logs = {}
        for (k, context), found in zip(contexts.items(), made, strict=True):
            if found.dropped:
                logger.warning(f"dropped dreams of {context.name}: {dict(found.dropped)}")
            logs[k] = {"dropped": dict(found.dropped)}
            main_only(lambda k=k, found=found: phases[k].write(lambda draft: save_dreams(found.dreams, draft), logs[k]))  # type: ignore[misc]
        return logs

    def _with_random_experts(self, seed: int) -> AbstractContextManager[None]:
        """Force one random expert of each layer open, if that is asked for."""
        config = self.config
        return self.bank.one_forced_open(seed, config.dream_expert_gate) if config.dream_random_expert else nullcontext()

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
    def _choose(self, dreams: Sequence[list[Dream]], seeds: Sequence[int]) -> None:
        """Choose dreams of each context for a trial; each dream is scored on one process."""
        config = self.config
        top, extra = config.dream_keep_top, config.dream_keep_random
        if config.dream_gradient_selection:
            scorer = GradientScorer(self.model, self.slot, self.tokenizer.pad_token_id or 0)
            every = [one for found in dreams for one in found]
            scores = split(
                shares([_length(one.rows) for one in every]),
                lambda mine: [scorer.score(prepare_rows(self.backbone, self.tokenizer, every[i].rows)) for i in mine],
            )
            for one, score in zip(every, scores, strict=True):
                one.score = score
        else:
            top, extra = 0, top + extra
        for found, seed in zip(dreams, seeds, strict=True):
            for place in select([one.score or 0.0 for one in found], top, extra, seed):
                found[place].chosen = True

    # -- try ----------------------------------------------------------------------------------------------------------
    @timed("trials")
    def _try(
        self,
        contexts: Sequence[Context],
        dreams: Sequence[list[Dream]],
        phases: Sequence[PhaseFile],
        logs: Sequence[Mapping[str, Any]],
        control_phases: Sequence[PhaseFile],
    ) -> None:
        """Try the chosen dreams of all contexts; after each batch of each process, what is known by then is kept."""
        waiting: list[tuple[int, Dream]] = []
        for k, found in enumerate(dreams):
            chosen = [one for one in found if one.chosen and one.reward is None and not one.failed]
            chosen.sort(key=lambda one: (sorted(one.settings.items()), len(one.rows)))
            waiting += [(k, one) for one in chosen]
        controls = self._controls(contexts, sorted({k for k, _ in waiting}), control_phases)
        trials = [Trial(k, one.rows, one.settings) for k, one in waiting]
        for results in self._results(contexts, trials):
            for place, result in results.items():
                k, one = waiting[place]
                one.reward, one.solved, one.failed = result.reward, result.solved, result.failed
                if one.reward is not None:
                    one.reward -= controls[k][one.style]
            for k in sorted({waiting[place][0] for place in results}):
                main_only(lambda k=k: phases[k].write(lambda draft: save_dreams(dreams[k], draft), logs[k]))  # type: ignore[misc]

    def _controls(
        self, contexts: Sequence[Context], chosen: Sequence[int], phases: Sequence[PhaseFile]
    ) -> dict[int, dict[str, float]]:
        """What each style's worked dream gains on the questions of some contexts; the same in all rounds, so it is tried once."""
        styles = self.config.dream_styles
        if not self.config.trial_control:
            return {k: dict.fromkeys(styles, 0.0) for k in chosen}
        known = main_finds(lambda: [phases[k].read() is not None for k in chosen])
        missing = [k for k, is_known in zip(chosen, known, strict=True) if not is_known]
        trials = [Trial(k, control_rows(style), {}) for k in missing for style in styles]
        gains: dict[int, float] = {}
        for results in self._results(contexts, trials):
            gains |= {place: result.reward or 0.0 for place, result in results.items()}
        for number, k in enumerate(missing):
            found = {style: gains[number * len(styles) + j] for j, style in enumerate(styles)}
            main_only(lambda k=k, found=found: phases[k].write(lambda draft: write_json(draft, found)))  # type: ignore[misc]
        return {k: dict(read_json(phases[k].path)) for k in chosen}

    def _results(self, contexts: Sequence[Context], trials: Sequence[Trial]) -> Iterator[dict[int, TrialResult]]:
        """Results by place, each time of one batch of every process: up to `TRIALS_AT_ONCE` of one context and one setting."""
        dealt = shares([_length(trial.rows) + _length(contexts[trial.context].questions) for trial in trials])
        of_rank = [_batches(share, trials) for share in dealt]
        tried: dict[int, Trials] = {}  # the last one's, on this process

        def work(mine: Sequence[int]) -> list[TrialResult]:
            if not mine:
                return []
            first = trials[mine[0]]
            if first.context not in tried:
                tried.clear()
                tried[first.context] = self._trials(contexts[first.context])
            rows = [prepare_rows(self.backbone, self.tokenizer, trials[i].rows) for i in mine]
            return tried[first.context].run(rows, range(self.config.trial_seeds), **first.settings)

        for number in range(max(map(len, of_rank))):
            now = [batches[number] if number < len(batches) else [] for batches in of_rank]
            yield dict(zip(sorted(i for batch in now for i in batch), split(now, work), strict=True))

    def _trials(self, context: Context) -> Trials:
        config = self.config
        given = (config.trial_steps, config.trial_learning_rate, config.trial_rank)
        return Trials(self.model, self.tokenizer, context.questions, *given)

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


class Trial(NamedTuple):
    """A trial to come: the number of the context, rows to train on, and settings of its own."""

    context: int
    rows: Sequence[tuple[str, str]]
    settings: Mapping[str, float]


def _batches(places: Sequence[int], trials: Sequence[Trial]) -> list[list[int]]:
    """Consecutive trials of one context and one setting, `TRIALS_AT_ONCE` at most."""
    batches: list[list[int]] = []
    for place in places:
        last = trials[batches[-1][0]] if batches else None
        alike = last is not None and (last.context, last.settings) == (trials[place].context, trials[place].settings)
        if alike and len(batches[-1]) < TRIALS_AT_ONCE:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _length(rows: Iterable[tuple[str, str]]) -> int:
    """Characters of rows, by which work is dealt out."""
    return sum(len(prompt) + len(reply) for prompt, reply in rows)


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
