"""One call for the dreaming experiment: does a dreamer that learns from its rewards dream better of what it never saw?

    consolidate the first ``nights`` passages in one night, then for each round r = 1..dream_rounds
        dream of these passages, try, learn                                            -> dreamer r
        dream of the held-out passages with the same dreamer, try, learn nothing       -> share with positive reward
    and once more with the last dreamer

    <output_dir>/results.json   share_positive_round_<r> and share_positive_held_out_round_<r>, costs
                 report.md      the table                 report.html    a page to look at
                 rewards.png    the same as a picture
                 dreams/        every dream with its score and reward, the dreamers

The questions that judge a dream are self-written with the passage in view; those of the data set are never seen.  Source of
the method: "Language Models Need Sleep" (arXiv 2606.03979), section on dreaming; held-out passages are ours.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.arguments import SleepArguments, settings
from sleepkit.errors import SleepkitError
from sleepkit.ranks import all_find, main_only
from sleepkit.report import format_duration, format_value, markdown_table, write_report
from sleepkit.reporting import progress, tracking
from sleepkit.reporting.watch import watched
from sleepkit.results import FILE_NAME, RunRecord, read_json, write_json
from sleepkit.stream import Experience, load_experiences, together

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from sleepkit.language.dreaming_config import DreamingConfig
    from sleepkit.language.dreaming_trainer import DreamingTrainer, RoundLog
    from sleepkit.language.dreams import Context, Dream
    from sleepkit.language.knowledge_seeding_config import KnowledgeSeedingConfig
    from sleepkit.language.learner import LanguageLearner

__all__ = ["run_dream"]

METHOD = "dreaming"
QUESTIONS = 12  # self-written ones that judge the dreams of a passage


def run_dream(args: SleepArguments, config: KnowledgeSeedingConfig) -> RunRecord:
    """Run the experiment; a run that was killed goes on where it was.

    Raises:
        SleepkitError: no rounds, too few passages, or a folder that holds a finished run.
    """
    with watched(config, settings(args, config)):
        return _run_dream(args, config)


def _run_dream(args: SleepArguments, config: KnowledgeSeedingConfig) -> RunRecord:
    from accelerate.utils import set_seed

    from sleepkit.language.anchors import read_prompts
    from sleepkit.language.dreaming_trainer import DreamingTrainer
    from sleepkit.language.model_io import load_model
    from sleepkit.run import shipped, use_all_cores

    out = folder_for_dreams(args.dreaming, config)
    use_all_cores(config)
    awake = args.nights or 1
    experiences = load_experiences(
        args.dataset, args.dataset_split, awake + args.dreaming.dream_held_out, args.order, config.seed, 1
    )
    if len(experiences) <= awake:
        raise SleepkitError(f"dataset has {len(experiences)} passages; give more than {awake}, so that some are held out")
    general = read_prompts(args.general_prompts or shipped("general_prompts.jsonl"))
    set_seed(config.seed)
    clock = Clock(out / "seconds.json")
    model, tokenizer = load_model(args.model, args.dtype)
    model.to(config.device)  # type: ignore[arg-type]
    learner = _learner(model, tokenizer, args, config, [row["prompt"] for row in general])
    own = _consolidated(learner, experiences[:awake], out)
    clock.save()
    held_out = [
        context for k, one in enumerate(experiences[awake:]) for context in _questioned(learner, one, out / f"held_out_{k}.jsonl")
    ]
    trainer = DreamingTrainer(model, tokenizer, args.dreaming, config, learner.bank.active[-1], out / "dreams")
    logs, dreams = dream_rounds(trainer, own, held_out, clock)
    record = RunRecord(METHOD, config.seed, settings(args, config), clock.seconds, metrics=round_metrics(logs))
    save_rounds(out, record, logs, dreams, config.process_index == 0)
    return record


def dream_rounds(
    trainer: DreamingTrainer, own: Sequence[Context], held_out: Sequence[Context], clock: Clock
) -> tuple[dict[str, list[RoundLog]], dict[str, list[list[Dream]]]]:
    """Rounds of dreaming and learning, held-out contexts first in each, and once more after the last; logs and dreams of each."""
    logs: dict[str, list[RoundLog]] = {"own": [], "held_out": []}
    dreams: dict[str, list[list[Dream]]] = {"own": [], "held_out": []}
    for number in range(1, trainer.config.dream_rounds + 2):
        for kind, contexts in (("held_out", held_out), ("own", own)):
            if kind == "own" and number > trainer.config.dream_rounds:
                continue
            found, log = trainer.round(contexts, number, "round" if kind == "own" else kind)
            logs[kind].append(log)
            dreams[kind].append(found)
            told = {"share_positive": log.share_positive, "mean_reward": log.mean_reward}
            worth = ", ".join(f"{name.replace('_', ' ')} {format_value(value)}" for name, value in told.items())
            progress.say(f"round {number}, {kind.replace('_', ' ')} passages: {log.tried} dreams tried, {worth}")
            tracking.log({f"round/{kind}_{name}": value for name, value in told.items()})
            if kind == "own":
                trainer.learn(found, own, number)
            clock.save()
    return logs, dreams


class Clock:
    """Seconds of a run, with those of the processes before this one that were killed."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.perf_counter()
        self.before: float = read_json(path) if all_find(path) else 0.0

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def save(self) -> None:
        main_only(lambda: write_json(self.path, self.seconds))


def folder_for_dreams(dreaming: DreamingConfig, config: KnowledgeSeedingConfig) -> Path:
    """The output folder.  Raises `SleepkitError` without a round of dreaming, or where a finished run is."""
    out = Path(config.output_dir or "")
    if dreaming.dream_rounds < 1:
        raise SleepkitError("dream_rounds is 0; give the number of rounds, such as 2")
    if (out / FILE_NAME).exists():
        raise SleepkitError(f"{out} holds the results of another run; choose another output_dir")
    return out


def _learner(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    args: SleepArguments,
    config: KnowledgeSeedingConfig,
    general_prompts: list[str],
) -> LanguageLearner:
    """One whose nights are dreamless: the dreams are this experiment's."""
    from sleepkit.language.learner import LanguageLearner

    args = copy.copy(args)
    args.dreaming = dataclasses.replace(args.dreaming, dream_rounds=0)
    return LanguageLearner(model, tokenizer, config, args, general_prompts)


def _consolidated(learner: LanguageLearner, experiences: Sequence[Experience], out: Path) -> list[Context]:
    """Sleep one night on all passages; what it keeps back from training judges the dreams of them."""
    learner.wake(together(experiences))
    state = out / "state"
    if all_find(state):
        learner.load(state)
    else:
        learner.sleep(1, out)
        learner.save(out / "state.draft")
        main_only(lambda: os.replace(out / "state.draft", state))
    return learner.contexts(learner.rehearsal.quiz)


def _questioned(learner: LanguageLearner, experience: Experience, path: Path) -> list[Context]:
    """A passage that is never learned, with questions that the model writes about it."""
    from sleepkit.language.learner import QUIZ_STYLES
    from sleepkit.language.material import load_items, save_items

    learner.wake(experience)
    if not all_find(path):
        items = learner.write_items(0)
        main_only(lambda: save_items(items, path))
    asked = [item for item in load_items(path) if item.style in QUIZ_STYLES]
    return learner.contexts(asked[:: max(1, len(asked) // QUESTIONS)][:QUESTIONS])


def round_metrics(logs: dict[str, list[RoundLog]]) -> dict[str, Any]:
    """Share of dreams with positive reward and mean reward, of each round and kind of context."""
    metrics: dict[str, Any] = {}
    for kind, name in (("own", "share_positive_round"), ("held_out", "share_positive_held_out_round")):
        for log in logs[kind]:
            metrics[f"{name}_{log.round}"] = log.share_positive
            metrics[f"{name.replace('share_positive', 'mean_reward')}_{log.round}"] = log.mean_reward
    return metrics


def save_rounds(
    out: Path, record: RunRecord, logs: dict[str, list[RoundLog]], dreams: dict[str, list[list[Dream]]], is_main: bool
) -> None:
    """Results, table and picture."""
    from sleepkit.plots import rewards_figure

    record.save(out, is_main=is_main)
    if not is_main:
        return
    names = {"own": "what it learns from", "held_out": "held out"}
    rewards = {
        names[kind]: {r: [one.reward for one in found if one.reward is not None] for r, found in enumerate(rounds, 1)}
        for kind, rounds in dreams.items()
    }
    if figure := rewards_figure(rewards):
        figure.savefig(out / "rewards.png")
    write_report(out)
    _report(out, record, logs)


def _report(out: Path, record: RunRecord, logs: dict[str, list[RoundLog]]) -> None:
    rows = [
        [kind.replace("_", " "), log.round, log.sampled, sum(log.dropped.values()), log.tried, log.failed]
        + [format_value(log.share_positive), format_value(log.mean_reward)]
        for kind, found in logs.items()
        for log in found
    ]
    heads = ["contexts", "round", "sampled", "dropped", "tried", "failed", "share positive", "mean reward"]
    text = f"# Dreaming, seed {record.seed}\n\n{markdown_table(heads, rows)}\n\n{format_duration(record.seconds)}\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {out}")
