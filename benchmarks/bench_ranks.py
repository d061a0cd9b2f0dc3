"""What each process of a night does, by phase: tokens through the model's layers and CPU seconds, with 1, 2 and 4 processes.

    python benchmarks/bench_ranks.py [--processes 1 2 4] [--hidden 128] [--layers 4] [--documents 8]

One night with rollouts and dreams on a small random model, as each process would live it on a machine of its own; the batch of
all processes together stays the same.  Work is what the dearest process does, against an equal share of what one process does
alone; 1 is ideal.  A token counts once for each layer that it passes, whether it is read or generated, padding included.
Seconds have Python's own work too (tokens, files, the steps of the optimizer), which a small model has much of.

Writes benchmarks/results/ranks.json.  Each process is a fork that calls `live`: ``bench_ranks.py --live FOLDER ...``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cost import chronicle
from make_tables import ROOT, render

from sleepkit.reporting.results import hardware, versions
from sleepkit.utils.files import read_json, read_jsonl, write_json

sys.path.insert(0, str(ROOT / "tests"))

BATCH = 16  # items of a step, on all processes together
SENTENCES = 6  # of a document


def phases() -> dict[str, list[tuple[Any, str]]]:
    """The phases of a night: functions whose work counts as theirs, unless another phase begins inside."""
    from sleepkit.language import learner, retention
    from sleepkit.language.dreaming import trainer as dreaming
    from sleepkit.language.seeding import preparation, rollouts, trainer
    from sleepkit.language.self_test import SelfTest

    return {
        "writing questions": [(learner, "about_day")],
        "replies to general prompts": [(learner, "general_items")],
        "the teacher's targets": [(preparation.Preparation, "run_teacher")],
        "frozen layers": [(preparation.Preparation, "keep_lower")],
        "checking shortcuts": [(preparation.Preparation, "check_shortcuts")],
        "training": [(trainer.KnowledgeSeedingTrainer, "run")],
        "rollouts": [(trainer, "sample_rollouts"), (preparation.Preparation, "note_log_probs")],
        "rewards and judge": [(rollouts, "_rewards")],
        "dreams": [(dreaming, "dream")],
        "scores of dreams": [(dreaming.DreamingTrainer, "_choose")],
        "trials of dreams": [(dreaming.DreamingTrainer, "_try")],
        "training the dreamer": [(dreaming.DreamingTrainer, "learn")],
        "self-test": [(SelfTest, "answered")],
        "questions, closed book": [(learner.LanguageLearner, "evaluate")],
        "questions in context": [(learner.LanguageLearner, "evaluate")],
        "retention set": [(retention.RetentionSet, "measure")],
    }


class Meter:
    """Counts tokens through layers and CPU seconds of this process, by the innermost phase."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.tokens: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.open, self.since = ["other"], time.process_time()
        for layer in layers:
            layer.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]  # (rows, time, d)
        self.tokens[self.open[-1]] += hidden.shape[0] * hidden.shape[1]

    def _settle(self) -> None:
        now = time.process_time()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done inside the block as a phase's."""
        self._settle()
        self.open.append(name)
        try:
            yield
        finally:
            self._settle()
            self.open.pop()

    def wrap(self, owner: Any, name: str, phase: Callable[..., str]) -> None:
        """Count what a function does as a phase's; ``phase`` names it from the arguments."""
        plain = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            with self.phase(phase(*args, **options)):
                return plain(*args, **options)

        setattr(owner, name, counted)


def live(folder: Path, hidden: int, layers: int, documents: int) -> None:
    """One night on this process and those beside it; writes ``work_<rank>.json``, and the main one ``result.json``."""
    from dataclasses import asdict

    from accelerate import PartialState
    from accelerate.utils import set_seed
    from tiny import tiny_model, tiny_tokenizer

    from sleepkit.language.config import LearnerConfig
    from sleepkit.language.data.experience import Experience
    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.dreaming.dreams import Context, Dream
    from sleepkit.language.learner import LanguageLearner
    from sleepkit.language.models.decoder import find_decoder_layers
    from sleepkit.language.retention import RetentionSet
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

    Context.read = lambda self, style, text, ended: (  # type: ignore[method-assign]  # a random model writes no sentences
        Dream(style, text, [(f"tell me about {self.name}.", text)], self.name) if text else "empty"
    )
    state = PartialState(cpu=True)
    world = state.num_processes
    size = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 2 * hidden, "head_dim": hidden // 4}
    model = tiny_model("llama", num_key_value_heads=2, max_position_embeddings=4096, **size)
    meter = Meter(find_decoder_layers(model))
    for name, functions in phases().items():
        for owner, function in functions:
            if function == "evaluate":
                continue
            meter.wrap(owner, function, lambda *_, name=name, **__: name)
    evaluations = {False: "questions, closed book", True: "questions in context"}
    meter.wrap(LanguageLearner, "evaluate", lambda *_, in_context=False, **__: evaluations[in_context])
    set_seed(0)
    seeding = KnowledgeSeedingConfig(
        output_dir=str(folder / "run"),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_steps=4,
        max_steps=24,
        per_device_train_batch_size=BATCH // world,
        styles=["wh", "cloze", "keywords", "paraphrase"],
        question_writer="rules",
        general_items=16,
        general_tokens=16,
        lmbda=0.5,
        lmbda_start=0.5,
        rollout_every=12,
        rollout_prompts=4,
        max_completion_length=24,
        judge="model",
    )
    dreaming = DreamingConfig(
        dream_rounds=2,
        dreams_per_context=8,
        dream_max_tokens=48,
        dream_keep_top=4,
        dream_keep_random=2,
        dream_rehearsal_steps=4,
        trial_steps=4,
        trial_rank=4,
        dreamer_rank=4,
    )
    config = LearnerConfig(expert_slots=2, expert_width=16, context_max_tokens=1024, max_new_tokens=24)
    general = [f"say {k} and name {k + 1} things." for k in range(16)]
    experiences = read_experiences(documents)
    learner = LanguageLearner(model, tiny_tokenizer(), seeding, config, general, dreaming)
    retention = RetentionSet([{"prompt": f"what is {k}?", "answer": "e"} for k in range(16)], reply_tokens=16, batch_size=4)
    result: dict[str, Any] = {"in_context": [asdict(one) for one in learner.evaluate(experiences, in_context=True)]}
    retention.measure(model, learner.tokenizer, learner.bank)
    merged = Experience("all", [d for e in experiences for d in e.documents], [], [e.name for e in experiences])
    learner.wake(merged)
    result["night"] = learner.sleep(1, folder / "run")
    result["after"] = [asdict(one) for one in learner.evaluate(experiences)]
    result["retention"] = retention.measure(model, learner.tokenizer, learner.bank)
    meter._settle()
    write_json(folder / f"work_{state.process_index}.json", {"tokens": meter.tokens, "seconds": meter.seconds})
    if state.is_main_process:
        rounds = sorted((folder / "run").rglob("context_*.jsonl"))
        result["dreams"] = {"/".join(path.parts[-2:]): list(read_jsonl(path)) for path in rounds}
        write_json(folder / "result.json", result)


def read_experiences(documents: int) -> list[Any]:
    """Documents of invented facts, two questions about each."""
    from sleepkit.language.data.experience import Experience, Question

    lines = [line for part in chronicle(13 * SENTENCES * documents).split("\n\n") for line in part.split(". ")]
    found = []
    for k in range(documents):
        text = ". ".join(line.rstrip(".\n") for line in lines[k * SENTENCES : (k + 1) * SENTENCES]) + "."
        asked = [Question(f"what is said in {year}?", text[:20], document=0) for year in ("1700", "1800")]
        found.append(Experience(f"part {k}", [text], asked))
    return found


def measured(processes: int, hidden: int, layers: int, documents: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Work of each process, and the results of the night."""
    from launch import command, together

    with tempfile.TemporaryDirectory() as scratch:
        words = ["--live", scratch, "--hidden", hidden, "--layers", layers, "--documents", documents]
        together(command(Path(__file__), *words), processes, seconds=3600)
        folder = Path(scratch)
        return [read_json(folder / f"work_{rank}.json") for rank in range(processes)], read_json(folder / "result.json")


def shares_of_work(works: dict[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each phase: work of one process alone, and of the dearest of several against an equal share of that."""
    alone = works[1][0]
    rows = []
    for name in [*phases(), "other"]:
        row: dict[str, Any] = {"phase": name}
        for unit in ("tokens", "seconds"):
            whole = row[unit] = alone[unit].get(name, 0)
            for count, ranks in works.items():
                if count > 1 and whole:
                    row[f"{unit}_{count}"] = max(rank[unit].get(name, 0) for rank in ranks) * count / whole
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "ranks.json")
    parser.add_argument("--live", type=Path, help="of a process of the night: where it writes")
    options = parser.parse_args(argv)
    size = options.hidden, options.layers, options.documents
    if options.live:
        live(options.live, *size)
        return 0
    found = {count: measured(count, *size)[0] for count in options.processes}
    rows = shares_of_work(found)
    document = {"shares": rows, "processes": options.processes, "model": {"hidden": size[0], "layers": size[1]}}
    write_json(options.results, {**document, "documents": size[2], "hardware": hardware(), "versions": versions()})
    print(render(read_json(options.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
