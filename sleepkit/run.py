"""One call for a whole run: read the data, build model, learner, anchors and gate, sleep, publish, print the table.

    run_sleep(args, config)    what `sleepkit sleep` and recipes/sleep.py do after they have parsed their arguments

    <output_dir>/results.json   metrics and settings     answers.json   every question with every answer
                 report.md      with its pictures        model/         experts and model card: what is published
                 state/         to resume from           night_<NN>/    material and phases of each night

`model/` holds no text that the model has read or written; `state/` and `night_<NN>/` do, and are never uploaded.
With `seeds`, each seed has its folder `seed_<n>`, and `comparison.md` beside them has mean and spread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.arguments import SleepArguments, cycle_options
from sleepkit.errors import SleepkitError
from sleepkit.hub import push_if_asked
from sleepkit.labelled_stream import LABEL, LabelledColumns, asked, load_tasks, read_texts
from sleepkit.ranks import main_only
from sleepkit.results import RunRecord
from sleepkit.seeds import run_seeds
from sleepkit.stream import Experience, load_experiences, together
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sleepkit.language.dreams import Dream
    from sleepkit.language.knowledge_seeding_config import KnowledgeSeedingConfig

__all__ = ["run_sleep"]

METHOD = "knowledge_seeding"


def run_sleep(args: SleepArguments, config: KnowledgeSeedingConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, most of it
    before the model is loaded.
    """
    use_all_cores(config)
    return run_seeds(args.seeds, config, lambda one: _run_seed(args, one))


def use_all_cores(config: KnowledgeSeedingConfig) -> None:
    """`accelerate launch` that was told nothing gives a process one thread, even where there is no GPU: take our share."""
    import torch

    if config.device.type == "cpu" and os.environ.get("ACCELERATE_USE_CPU") == "False" and torch.get_num_threads() == 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _run_seed(args: SleepArguments, config: KnowledgeSeedingConfig) -> RunRecord:
    from accelerate.utils import set_seed
    from transformers.integrations import is_deepspeed_zero3_enabled  # type: ignore[attr-defined]

    from sleepkit.language.anchors import read_prompts
    from sleepkit.language.model_io import load_model

    experiences = _stream(args, config.seed)
    out_of_scope = None if args.out_of_scope is None else read_texts(args.out_of_scope, args.text_column, args.dataset_split)
    general = read_prompts(args.general_prompts or shipped("general_prompts.jsonl"))
    anchors = read_prompts(args.anchors or shipped("anchors.jsonl"))
    if args.sender == "adapter" and is_deepspeed_zero3_enabled():
        raise SleepkitError("sender 'adapter' adds a LoRA to weights that ZeRO-3 splits; use ZeRO-2 or less, or sender 'context'")
    dreams = _dream_set(args, experiences)
    set_seed(derive_seed(config.seed, "start"))
    device = config.device  # starts the process group, which a model that ZeRO-3 splits needs before it is loaded
    model, tokenizer = load_model(args.model, args.dtype)
    _require_window(model, args)
    if not is_deepspeed_zero3_enabled():
        model.to(device)  # type: ignore[arg-type]
    if args.baseline is not None:
        from sleepkit.language.baseline_run import run_baseline

        record: RunRecord = run_baseline(
            args.baseline,
            args=args,
            config=config,
            model=model,
            tokenizer=tokenizer,
            experiences=experiences,
            general_prompts=[row["prompt"] for row in general],
            anchors=anchors,
        )
    else:
        record = _sleep(args, config, model, tokenizer, experiences, [row["prompt"] for row in general], anchors, dreams)
    if out_of_scope is not None and "out_of_scope_auroc" not in record.metrics:
        _measure_out_of_scope(args, config, model, tokenizer, experiences, out_of_scope, record)
    return record


def _stream(args: SleepArguments, seed: int) -> list[Experience]:
    """Passages, chats or notes; or, with a column of labels or answers, tasks that are learned from rows."""
    column = args.label_column or args.answer_column
    if column is None:
        passages = args.nights and args.nights * args.passages_per_night
        return load_experiences(args.dataset, args.dataset_split, passages, args.order, seed, args.passages_per_night)
    tasks = load_tasks(
        args.dataset,
        LabelledColumns(args.text_column, column, args.task_column, LABEL if args.label_column else args.answer_score),
        args.test_dataset,
        args.dataset_split,
        args.labels_per_task,
        args.tasks,
        args.rows_per_label,
        args.test_rows_per_label,
        args.order,
        seed,
        args.instruction,
        args.list_labels,
    )[: args.nights and args.nights * args.passages_per_night]
    n = args.passages_per_night
    return [together(tasks[k : k + n]) for k in range(0, len(tasks), n)]


def _measure_out_of_scope(
    args: SleepArguments,
    config: KnowledgeSeedingConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    experiences: Sequence[Experience],
    texts: Sequence[str],
    record: RunRecord,
) -> None:
    """How well the confidence of an answer tells texts of known labels from others."""
    from sleepkit.language.chat import confidences
    from sleepkit.metrics import auroc
    from sleepkit.report import write_report

    known = [question.question for experience in experiences for question in experience.questions]
    others = [asked(text, args.instruction) for text in texts]
    found = confidences(model, tokenizer, [*known, *others], args.max_new_tokens)
    record.metrics["out_of_scope_auroc"] = auroc(found[: len(known)], found[len(known) :])
    record.save(_folder(config), is_main=config.process_index == 0)
    main_only(lambda: write_report(_folder(config)))


def _sleep(
    args: SleepArguments,
    config: KnowledgeSeedingConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    experiences: Sequence[Experience],
    general_prompts: Sequence[str],
    anchor_prompts: Sequence[dict[str, Any]],
    dreams: Sequence[Dream] = (),
) -> RunRecord:
    """Knowledge seeding, from the loaded model to the published folder."""
    from sleepkit.cycle import SleepCycle
    from sleepkit.gate import RetentionGate
    from sleepkit.language.anchors import Anchors
    from sleepkit.language.learner import LanguageLearner

    learner = LanguageLearner(model, tokenizer, config, args, list(general_prompts), dreams)
    anchors = Anchors(anchor_prompts)
    limits = (args.gate_anchor_kl, args.gate_anchor_drop, args.gate_min_gain, args.gate_retention_drop)
    cycle = SleepCycle(
        learner,
        experiences,
        measure_anchors=lambda: anchors.measure(model, tokenizer, learner.bank),
        gate=RetentionGate(*limits) if args.gate else None,
        method=METHOD,
        needed_bytes=sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        **cycle_options(args, config),
    )
    record = cycle.run()
    folder = Path(_folder(config)) / "model"
    learner.bank.save(folder, base_model=args.model)  # on all ranks: sharded experts are gathered
    if config.process_index == 0:
        _write_card(folder, args, record)
        _publish_dreams(args, config, record)
        push_if_asked(folder, args.push_to_hub_repo, token=config.hub_token)
    return record


def _write_card(folder: Path, args: SleepArguments, record: RunRecord) -> None:
    from sleepkit.cards import model_card, model_name, published_name
    from sleepkit.language.model_io import SMOLLM2, SMOLLM2_ID

    base = SMOLLM2_ID if args.model == SMOLLM2 else args.model
    dataset = published_name(args.dataset)
    name = model_name(args.push_to_hub_repo, f"{base}-slept")
    card = model_card(record.to_dict(), model_name=name, base_model=base, dataset=dataset)
    card.save(folder / "README.md")


def _dream_set(args: SleepArguments, experiences: Sequence[Experience]) -> list[Dream]:
    if args.dream_set is None:
        return []
    from sleepkit.language.dream_dataset import load_dream_set

    dreams = load_dream_set(args.dream_set)
    titles = {title for experience in experiences for title in experience.titles or [experience.name]}
    if not any(one.context in titles for one in dreams):
        contexts = sorted({one.context for one in dreams})[:3]
        raise SleepkitError(
            f"dream_set {args.dream_set} has dreams of {', '.join(contexts)}, none of this data set; give another"
        )
    return dreams


def _publish_dreams(args: SleepArguments, config: KnowledgeSeedingConfig, record: RunRecord) -> None:
    """The accepted dreams of the nights that were kept, as a data set beside the model."""
    from sleepkit.cards import published_name
    from sleepkit.language.dream_dataset import add_night, write_card
    from sleepkit.language.learner import ACCEPTED_NAME, accepted_dreams

    out = Path(_folder(config))
    kept = {}
    for row in record.nights:
        path = out / f"night_{row['night']:02d}" / "dreams" / ACCEPTED_NAME
        if row["committed"] and path.is_file():
            kept[row["night"]] = accepted_dreams(path)
    if not any(kept.values()):
        return
    for night, dreams in kept.items():
        add_night(out / "dreams", f"night_{night:02d}", dreams, args.model)
    source = published_name(args.dataset)
    write_card(out / "dreams", name=f"{Path(args.model).name}-dreams", model=args.model, source=source)
    push_if_asked(out / "dreams", args.push_to_hub_dreams_repo, repo_type="dataset", token=config.hub_token)


def _require_window(model: PreTrainedModel, args: SleepArguments) -> None:
    from sleepkit.language.chat import require_window

    length = args.memory_max_tokens + args.max_new_tokens
    require_window(model, length, f"a chunk of {args.memory_max_tokens} tokens with an answer of {args.max_new_tokens}")


def shipped(name: str) -> str:
    """Path of a file that comes with the package."""
    return str(files("sleepkit") / "data" / name)


def _folder(config: KnowledgeSeedingConfig) -> str:
    assert config.output_dir is not None  # checked when parsed
    return config.output_dir
