"""One call for the dreaming experiment: does a dreamer that learns from its rewards dream better of what it never saw?

    consolidate the first ``nights`` passages in one night, then for each round r = 1..dream_rounds
        dream of these passages, try, learn                                            -> dreamer r
        dream of the held-out passages with the same dreamer, try, learn nothing       -> share with positive reward
    and once more with the last dreamer

    <output_dir>/results.json   share_positive_round_<r> and share_positive_held_out_round_<r>, costs
                 report.md      the table                 report.html    a page to look at
                 rewards.png    the same as a picture
                 dreams/        every dream with its score and reward, the dreamers
                 run.json       what the run was started with: a folder that has another one belongs to another run
                 state/         the consolidated learner

Each passage of each round, each dreamer and the night are phases (utils/phases.py): a run that was killed and is started again
ends with the bits of one that was not.

The questions that judge a dream are self-written with the passage in view; those of the data set are never seen.  Source of
the method: "Language Models Need Sleep" (arXiv 2606.03979), section on dreaming; held-out passages are ours.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.cycle.state import CycleState
from sleepkit.errors import SleepkitError
from sleepkit.language.config import part_of
from sleepkit.language.data.documents import load_experiences
from sleepkit.language.data.experience import Experience, together
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.reporting.live import progress, tracking
from sleepkit.reporting.live.watch import watched
from sleepkit.reporting.report import write_report
from sleepkit.reporting.results import FILE_NAME, RunRecord
from sleepkit.reporting.tables import format_duration, format_value, markdown_table
from sleepkit.runs.arguments.language import SleepArguments
from sleepkit.utils.files import read_json, save_figure, write_json, write_text
from sleepkit.utils.phases import PhaseFile, PhaseFolder, digest_of
from sleepkit.utils.ram import keep_few_kernels
from sleepkit.utils.ranks import main_finds, main_holds, main_only
from sleepkit.utils.run_folder import RunFolder
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training_fields import refuse_zero3, settings

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sleepkit.language.dreaming.dreams import Context, Dream
    from sleepkit.language.dreaming.trainer import DreamingTrainer, RoundLog
    from sleepkit.language.learner import LanguageLearner
    from sleepkit.trainers.config import SleepConfig
    from sleepkit.utils.options import RunConfig

__all__ = ["run_dream"]

METHOD = "dreaming"
RUN_NAME = "run.json"
WRITTEN = ("dreams", "night_[0-9]*", "state", "held_out_*", "seconds.json*", FILE_NAME, RUN_NAME, "report.md", "rewards.png")
QUESTIONS = 12  # self-written ones that judge the dreams of a passage


def run_dream(args: SleepArguments, config: SleepConfig) -> RunRecord:
    """Run the experiment; a run that was killed goes on where it was.

    Raises:
        SleepkitError: no rounds, too few passages, or a folder that belongs to another run or is in use.
    """
    out = folder_for_dreams(config, config)
    with watched(config, settings(args, config)), main_holds(out):
        return _run_dream(args, config, out)


def _run_dream(args: SleepArguments, config: SleepConfig, out: Path) -> RunRecord:
    from accelerate.utils import set_seed

    from sleepkit.language.config import LearnerConfig
    from sleepkit.language.dreaming.trainer import DreamingTrainer
    from sleepkit.language.learner import LanguageLearner
    from sleepkit.language.model_io import load_model, move
    from sleepkit.language.models.fingerprint import model_identity
    from sleepkit.language.retention import read_prompts
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig
    from sleepkit.trainers.language import use_all_cores

    use_all_cores(config)
    keep_few_kernels()
    awake = config.nights or 1
    experiences = load_experiences(
        args.dataset, config.dataset_split, awake + config.dream_held_out, config.order, config.seed, 1
    )
    if len(experiences) <= awake:
        raise SleepkitError(f"dataset has {len(experiences)} passages; give more than {awake}, so that some are held out")
    general = read_prompts(args.general_prompts, "general_prompts")
    set_seed(derive_seed(config.seed, "start"))
    model, tokenizer = load_model(args.model, **config.loading())
    move(model, config.device)
    read = {"passages": digest_of([one.to_dict() for one in experiences]), "general_prompts": digest_of(general)}
    run, folder = open_folder(out, METHOD, args, config, config, read | model_identity(model, tokenizer))
    seeding, dreaming = part_of(config, KnowledgeSeedingConfig), part_of(config, DreamingConfig)
    clock = Clock(out / "seconds.json", run, folder)
    dreamless = dataclasses.replace(dreaming, dream_rounds=0)  # the dreams are this experiment's
    prompts = [row["prompt"] for row in general]
    learner = LanguageLearner(model, tokenizer, seeding, part_of(config, LearnerConfig), prompts, dreamless)
    own = _consolidated(learner, experiences[:awake], out)
    clock.save()
    held_out = [
        context for k, one in enumerate(experiences[awake:]) for context in _questioned(learner, one, out / f"held_out_{k}.jsonl")
    ]
    slot = learner.bank.active[-1]
    trainer = DreamingTrainer(model, tokenizer, dreaming, seeding, slot, out / "dreams", identity={"run": digest_of(run)})
    logs, dreams = dream_rounds(trainer, own, held_out, clock)
    record = RunRecord(METHOD, config.seed, settings(args, config), clock.seconds, metrics=round_metrics(logs))
    save_rounds(out, record, logs, dreams, config.process_index == 0)
    main_only(folder.note)
    return record


def open_folder(
    out: Path, method: str, args: Any, config: TrainingArguments, existing: RunConfig, inputs: Mapping[str, str]
) -> tuple[dict[str, Any], RunFolder]:
    """Claim ``out`` for a run, or find that it is the same run's; returns what the run was started with, and its folder.

    Args:
        args: of the command.
        existing: what is done with a run that is there already.
        inputs: digests of what the settings only name.

    Raises:
        SleepkitError: another run's, somebody else's files, or a run that is not to be resumed.
    """
    plain = RunRecord(method, config.seed, settings(args, config)).to_dict()
    run = {name: plain[name] for name in ("method", "seed", "config")} | {"inputs": dict(inputs)}
    folder = RunFolder(out, WRITTEN)

    def claim() -> None:
        path = out / RUN_NAME
        if existing.overwrite and (path.is_file() or folder.is_claimed):
            folder.clear()
        if not path.is_file():
            folder.claim()
            write_json(path, run)
            folder.note()
        elif not existing.resume:
            raise SleepkitError(f"{out} holds a run; use --resume true or --overwrite true")
        else:
            CycleState(read_json(path)).require_run(run, out)

    main_only(claim)
    return run, folder


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

    def __init__(self, path: Path, run: Mapping[str, Any], folder: RunFolder) -> None:
        self.phase, self.folder, self.started = PhaseFile(path, {"run": digest_of(run)}), folder, time.perf_counter()
        log = main_finds(self.phase.read)
        self.before: float = log["seconds"] if log else 0.0

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def save(self) -> None:
        """Note the time, and which files there are by now."""
        log = {"seconds": self.seconds}
        main_only(lambda: self.phase.write(lambda draft: write_json(draft, log["seconds"]), log))
        main_only(self.folder.note)


def folder_for_dreams(dreaming: DreamingConfig, config: TrainingArguments) -> Path:
    """The output folder.  Raises `SleepkitError` without a round of dreaming, and under ZeRO-3."""
    refuse_zero3("dreaming tries many LoRAs")
    if dreaming.dream_rounds < 1:
        raise SleepkitError("dream_rounds is 0; give the number of rounds, such as 2")
    return Path(config.output_dir or "")


def _consolidated(learner: LanguageLearner, experiences: Sequence[Experience], out: Path) -> list[Context]:
    """Sleep one night on all passages; what it keeps back from training judges the dreams of them."""
    learner.wake(together(experiences))
    state = PhaseFolder(out / "state", learner.identity(1))
    if main_finds(state.read) is None:
        learner.sleep(1, out)
        main_only(state.begin)
        learner.save(state.draft)
        main_only(state.commit)
    else:
        learner.load(state.path)
    return learner.contexts(learner.rehearsal.quiz)


def _questioned(learner: LanguageLearner, experience: Experience, path: Path) -> list[Context]:
    """A passage that is never learned, with questions that the model writes about it."""
    from sleepkit.language.self_test import QUIZ_STYLES

    learner.wake(experience)
    items = learner.written(path, learner.identity(0), lambda: learner.write_items(0))
    asked = [item for item in items if item.style in QUIZ_STYLES]
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
    """Write results, table and picture of the rounds of dreaming."""
    from sleepkit.reporting.plots import rewards_figure

    record.save(out, is_main=is_main)
    if not is_main:
        return
    names = {"own": "what it learns from", "held_out": "held out"}
    rewards = {
        names[kind]: {r: [one.reward for one in found if one.reward is not None] for r, found in enumerate(rounds, 1)}
        for kind, rounds in dreams.items()
    }
    if figure := rewards_figure(rewards):
        save_figure(figure, out / "rewards.png")
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
    write_text(out / "report.md", text)
    print(f"\n{text}\nwritten to {out}")
