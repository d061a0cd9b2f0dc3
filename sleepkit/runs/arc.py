"""One call for few-shot abstraction: does a dreamer learn which augmentations and settings teach a rule of ARC-AGI?

    for each round: dream settings for the held-out tasks, try them; dream for the others, try, learn          dream.py

    <output_dir>/results.json   share_positive[_held_out]_round_<r>, and solved[_held_out]_round_<r>: the share of tried dreams
                                after which greedy decoding gives all test grids; solved_in_context without any training
                 report.md, rewards.png, dreams/

Test outputs of the tasks that are learned from are the reward; those of held-out tasks are only measured.  The model is not
consolidated before: a task is a prompt, and what it teaches is forgotten after its trial.  Source: SEAL (arXiv 2506.10943,
section 4.2), where the reward is a solved test grid; ours is graded (language/dreaming/arc.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sleepkit.errors import SleepkitError
from sleepkit.language.config import expert_layers
from sleepkit.language.data.arc import SIDE, ArcTask, load_arc
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.reporting.live.watch import watched
from sleepkit.reporting.results import RunRecord
from sleepkit.runs.arguments.command_line import read
from sleepkit.runs.arguments.language import ModelArguments
from sleepkit.runs.arguments.seeds import SeedArguments
from sleepkit.runs.dream import Clock, dream_rounds, folder_for_dreams, open_folder, round_metrics, save_rounds
from sleepkit.utils.options import RunConfig, check_numbers, option, require
from sleepkit.utils.phases import digest_of
from sleepkit.utils.ranks import main_holds, main_only
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training_fields import own_fields, settings

if TYPE_CHECKING:
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

METHOD = "arc_dreaming"


@dataclass
class ArcArguments(ModelArguments, SeedArguments, RunConfig):
    """Options that choose the tasks to dream of.  Raises `SleepkitError` for a value out of range."""

    dataset: str = option("", "ARC tasks: .json[.gz] of {name: {train, test}}, or a folder of <name>.json. Required.")
    tasks: list[str] | None = option(None, "Names of the tasks to use; None: drawn by the seed.")
    arc_tasks: int = option(4, "Tasks that the dreamer learns from; as many as --dream_held_out are held out.")
    largest_grid: int = option(SIDE * SIDE, "Cells of the largest grid of a task.")
    trial_rows: int = option(16, "Training rows of a dream at most; each step of its trial takes all.")
    trial_layers: list[str] = option(("all",), "Layers that a trial trains: 'all', 'last_half', 'last_quarter', or indices.")
    dreaming: DreamingConfig = field(
        default_factory=DreamingConfig, init=False, metadata={"help": "How it dreams; its fields are parsed beside these."}
    )

    def __post_init__(self) -> None:
        ModelArguments.__post_init__(self)
        SeedArguments.__post_init__(self)
        if self.seeds is not None:
            raise SleepkitError(f"seeds is {self.seeds} and recipes/arc.py runs one; give --seed, and each its own output_dir")
        check_numbers(self)
        if not self.dataset.strip():
            raise SleepkitError("dataset is missing; give --dataset with ARC tasks, a .json file or a folder")
        require(self, ("arc_tasks", "largest_grid", "trial_rows"), lambda value: value >= 1, "at least 1")
        self.trial_layers = cast(Any, expert_layers(self.trial_layers, "trial_layers"))


def parse_arc(argv: Sequence[str]) -> tuple[ArcArguments, KnowledgeSeedingConfig]:
    """Read `--config recipe.yaml` and the command line; errors as in `sleepkit.runs.arguments.language.parse`."""
    from sleepkit.language.dreaming.arc import STYLE
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

    args, dreaming, config = read(
        argv,
        (ArcArguments, DreamingConfig, KnowledgeSeedingConfig),
        prog="recipes/arc.py",
        description="Let a model dream how to learn ARC tasks, and see whether it learns to.",
        ignored=dict.fromkeys(
            _not_used(KnowledgeSeedingConfig), "recipes/arc.py has no night, only dreams and their trials; leave it out"
        ),
    )
    args.dreaming = dreaming
    dreaming.dream_styles, dreaming.trial_control = [STYLE], False  # there is one style, and no worked task to compare with
    return args, config


def _not_used(config: type[KnowledgeSeedingConfig]) -> set[str]:
    """Fields of a night, of its examples and of dreams that are replayed."""
    nights = {"num_train_epochs", "gradient_accumulation_steps", "dream_styles", "dream_learn_styles", "trial_control"}
    nights |= {"dream_rehearsal_steps", "dream_replay_share", "dream_pool"}
    return nights | (
        own_fields(config) - {"output_dir", "lr_scheduler_type", "adam_beta2", "logging_steps", "remove_unused_columns"}
    )


def run_arc(args: ArcArguments, config: KnowledgeSeedingConfig) -> RunRecord:
    """Run the experiment; a run that was killed goes on where it was.

    Raises:
        SleepkitError: no rounds, too few tasks, or a folder that belongs to another run or is in use.
    """
    out = folder_for_dreams(args.dreaming, config)
    with watched(config, settings(args, config)), main_holds(out):
        return _run_arc(args, config, out)


def _run_arc(args: ArcArguments, config: KnowledgeSeedingConfig, out: Path) -> RunRecord:
    from accelerate.utils import set_seed

    from sleepkit.language.dreaming.arc import ArcContext
    from sleepkit.language.dreaming.trainer import DreamingTrainer
    from sleepkit.language.dreaming.trials import Trials
    from sleepkit.language.experts.bank import ExpertBank
    from sleepkit.language.experts.units import ExpertBankConfig
    from sleepkit.language.model_io import load_model, move
    from sleepkit.language.models.fingerprint import model_identity
    from sleepkit.trainers.language import use_all_cores

    own, held_out = ([ArcContext.of(task, args.trial_rows) for task in part] for part in chosen_tasks(args, config.seed))
    use_all_cores(config)
    set_seed(derive_seed(config.seed, "start"))
    model, tokenizer = load_model(args.model, **args.loading())
    move(model, config.device)
    tasks = {"tasks": digest_of([[one.chunk, one.questions] for one in (*own, *held_out)])}
    run, folder = open_folder(out, METHOD, args, config, args, tasks | model_identity(model, tokenizer))
    clock = Clock(out / "seconds.json", run, folder)
    layers: Any = args.trial_layers
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, layers=layers))
    slot = bank.activate(seed=config.seed)  # silent: its gradient scores dreams, and it says where trials train
    bank.train_only(None)
    trainer = DreamingTrainer(model, tokenizer, args.dreaming, config, slot, out / "dreams", identity={"run": digest_of(run)})
    logs, dreams = dream_rounds(trainer, own, held_out, clock)
    metrics = round_metrics(logs)
    for kind, name in (("own", "solved_round"), ("held_out", "solved_held_out_round")):
        for number, found in enumerate(dreams[kind], 1):
            tried = [one.solved == 1 for one in found if one.solved is not None]
            metrics[f"{name}_{number}"] = sum(tried) / len(tried) if tried else None
    asked = [Trials(model, tokenizer, context.questions).solved_before == 1 for context in held_out]
    metrics["solved_in_context"] = sum(asked) / len(asked)
    record = RunRecord(METHOD, config.seed, settings(args, config), clock.seconds, metrics=metrics)
    save_rounds(out, record, logs, dreams, config.process_index == 0)
    main_only(folder.note)
    return record


def chosen_tasks(args: ArcArguments, seed: int) -> tuple[list[ArcTask], list[ArcTask]]:
    """Tasks to learn from, and held-out ones.  Raises `SleepkitError` if there are too few."""
    tasks = load_arc(args.dataset, args.tasks, args.largest_grid)
    wanted = args.arc_tasks + args.dreaming.dream_held_out
    if len(tasks) < wanted:
        raise SleepkitError(
            f"{args.dataset} has {len(tasks)} tasks with grids of at most {args.largest_grid} cells, {wanted} are wanted; "
            "raise largest_grid, or lower arc_tasks or dream_held_out"
        )
    if args.tasks is None:
        tasks = random.Random(seed).sample(tasks, wanted)
    return tasks[: args.arc_tasks], tasks[args.arc_tasks : wanted]
