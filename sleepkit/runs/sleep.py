"""One call for a whole run: read the data, build model, learner, anchors and gate, sleep, publish, print the table.

    run_sleep(args, config)    what `sleepkit sleep` and recipes/sleep.py do after they have parsed their arguments

    <output_dir>/results.json   metrics and settings     answers.json   every question with every answer
                 report.md      with its pictures        model/         experts and model card: what is published
                 state/         to resume from           night_<NN>/    material and phases of each night
                 dreams/        accepted dreams          base.json      where the base is, if it is a folder

`model/` holds no text that the model has read or written, and no folder of this machine; `state/` and `night_<NN>/` do, and
are never uploaded, nor is anything else that nobody asked for (publish.py).
With `seeds`, each seed has its folder `seed_<n>`, and `comparison.md` beside them has mean and spread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.documents import load_experiences
from sleepkit.language.data.experience import Experience
from sleepkit.language.data.tasks import LABEL, LabelledColumns, asked, load_tasks, read_texts
from sleepkit.reporting.live import progress
from sleepkit.reporting.results import RunRecord
from sleepkit.runs.arguments.language import SleepArguments, cycle_options
from sleepkit.runs.life import Day, live_on
from sleepkit.runs.publish import check_publishing, publish_if_asked, rehearsal_folder
from sleepkit.runs.seeds import run_seeds
from sleepkit.utils.phases import digest_of
from sleepkit.utils.ranks import main_finds, main_holds, main_only
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sleepkit.language.dreaming.dreams import Dream
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

__all__ = ["run_sleep"]

METHOD = "knowledge_seeding"
NAMED = ("model", "dataset", "dataset_split", "test_dataset", "nights", "order", "general_prompts", "anchors")  # by content
FIXED = (
    *("method", "dtype", "expansion", "expert_slots", "expert_width", "expert_layers", "expert_gate", "chain", "baseline"),
    *("label_column", "answer_column", "answer_score", "instruction", "list_labels", "max_new_tokens"),
)  # settings of a life of nights that no day may change: the experts' shape, and what is asked in which way


def run_sleep(args: SleepArguments, config: KnowledgeSeedingConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, most of it
    before the model is loaded; and if the upload at the end fails, after everything is written.
    """
    use_all_cores(config)
    check_publishing(args, config, f"baseline {args.baseline} makes no experts to publish" if args.baseline else "")
    records = run_seeds(args, config, lambda one: _run_seed(args, one))
    publish_if_asked(args, config)
    return records


def use_all_cores(config: KnowledgeSeedingConfig) -> None:
    """`accelerate launch` that was told nothing gives a process one thread, even where there is no GPU: take our share."""
    import torch

    if config.device.type == "cpu" and os.environ.get("ACCELERATE_USE_CPU") == "False" and torch.get_num_threads() == 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _run_seed(args: SleepArguments, config: KnowledgeSeedingConfig) -> RunRecord:
    from accelerate.utils import set_seed
    from transformers.integrations import is_deepspeed_zero3_enabled  # type: ignore[attr-defined]

    from sleepkit.language.model_io import load_model, move
    from sleepkit.language.retention import read_prompts

    passages = _passages(args, config.seed)
    out_of_scope = None if args.out_of_scope is None else read_texts(args.out_of_scope, args.text_column, args.dataset_split)
    general = read_prompts(args.general_prompts or shipped("general_prompts.jsonl"))
    anchors = read_prompts(args.anchors or shipped("anchors.jsonl"))
    if args.sender == "adapter" and is_deepspeed_zero3_enabled():
        raise SleepkitError("sender 'adapter' adds a LoRA to weights that ZeRO-3 splits; use ZeRO-2 or less, or sender 'context'")
    dreams = _dream_set(args, passages)
    set_seed(derive_seed(config.seed, "start"))
    device = config.device  # starts the process group, which a model that ZeRO-3 splits needs before it is loaded
    model, tokenizer = load_model(args.model, **args.loading())
    _require_window(model, args)
    if not is_deepspeed_zero3_enabled():
        move(model, device)
    with main_holds(Path(_folder(config))):
        day = live_on(Path(_folder(config)), passages, args.passages_per_night, args.overwrite)
        for line in day.lines():
            progress.say(line)
        record = _live(args, config, model, tokenizer, day, general, anchors, dreams)
        if out_of_scope is not None and "out_of_scope_auroc" not in record.metrics:
            _measure_out_of_scope(args, config, model, tokenizer, day.experiences, out_of_scope, record)
    return record


def _passages(args: SleepArguments, seed: int) -> list[Experience]:
    """Passages, chats or notes, each an experience; or, with a column of labels or answers, tasks that are learned from rows."""
    column = args.label_column or args.answer_column
    most = args.nights and args.nights * args.passages_per_night
    if column is None:
        return load_experiences(args.dataset, args.dataset_split, most, args.order, seed, text_column=args.text_column)
    return load_tasks(
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
    )[:most]


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
    from sleepkit.language.generation.chat import confidences
    from sleepkit.reporting.metrics import auroc
    from sleepkit.reporting.report import write_report

    known = [question.question for experience in experiences for question in experience.questions]
    others = [asked(text, args.instruction) for text in texts]
    found = confidences(model, tokenizer, [*known, *others], args.max_new_tokens)
    record.metrics["out_of_scope_auroc"] = auroc(found[: len(known)], found[len(known) :])
    record.save(_folder(config), is_main=config.process_index == 0)
    main_only(lambda: write_report(_folder(config)))


def _live(
    args: SleepArguments,
    config: KnowledgeSeedingConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    day: Day,
    general: Sequence[dict[str, Any]],
    anchors: Sequence[dict[str, Any]],
    dreams: Sequence[Dream] = (),
) -> RunRecord:
    """Knowledge seeding or a baseline, from the loaded model to the published folder."""
    from sleepkit.language.models.fingerprint import model_identity

    prompts = [row["prompt"] for row in general]
    options = cycle_options(args, config)
    options |= {"growing": True, "replaced": day.replaced, "named": NAMED, "changeable": set(options["config"]) - set(FIXED)}
    options["inputs"] = model_identity(model, tokenizer)
    options["inputs"] |= {"general_prompts": digest_of(general), "anchors": digest_of(anchors), "slept": _slept_before(model)}
    if args.baseline is None:
        return _sleep(args, config, model, tokenizer, day, prompts, anchors, dreams, options)
    from sleepkit.runs.baseline import run_baseline

    return run_baseline(
        args.baseline,
        args=args,
        config=config,
        model=model,
        tokenizer=tokenizer,
        experiences=day.experiences,
        general_prompts=prompts,
        anchors=anchors,
        options=options,
    )


def _slept_before(model: PreTrainedModel) -> str:
    """A digest of the experts that a model comes with."""
    from sleepkit.language.experts.bank import ExpertBank
    from sleepkit.language.experts.units import LayerExperts
    from sleepkit.utils.digests import digest

    grown = any(isinstance(module, LayerExperts) for module in model.modules())
    return digest(ExpertBank.of(model).state_dict())[:16] if grown else "never"


def _sleep(
    args: SleepArguments,
    config: KnowledgeSeedingConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    day: Day,
    general_prompts: Sequence[str],
    anchor_prompts: Sequence[dict[str, Any]],
    dreams: Sequence[Dream],
    options: Mapping[str, Any],
) -> RunRecord:
    """Knowledge seeding, and what it publishes."""
    from sleepkit.cycle.cycle import SleepCycle
    from sleepkit.cycle.gate import RetentionGate
    from sleepkit.language.learner import LanguageLearner
    from sleepkit.language.models.base_model import keep_folder
    from sleepkit.language.retention import Anchors

    learner = LanguageLearner(model, tokenizer, config, args, list(general_prompts), dreams)
    if buffer := main_finds(lambda: rehearsal_folder(args.model, args.model_revision)):
        learner.rehearsal.inherit(buffer)
    if crowded := _crowded(args, len(learner.bank.active), len(day.experiences)):
        progress.say(crowded)
    anchors = Anchors(anchor_prompts)
    limits = (args.gate_anchor_kl, args.gate_anchor_drop, args.gate_min_gain, args.gate_retention_drop)
    cycle = SleepCycle(
        learner,
        day.experiences,
        measure_anchors=lambda: anchors.measure(model, tokenizer, learner.bank),
        gate=RetentionGate(*limits) if args.gate else None,
        method=METHOD,
        needed_bytes=sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        **options,
    )
    record = cycle.run()
    folder = Path(_folder(config)) / "model"
    learner.bank.save(folder, publish=True)  # on all ranks: sharded experts are gathered
    if config.process_index == 0:
        keep_folder(model, folder.parent)
        _write_card(folder, args, model, record)
        _write_dreams(args, config, model, record)
        cycle.folder.note()
    return record


def _crowded(args: SleepArguments, used: int, nights: int) -> str:
    """What happens to a stream of more nights than experts; empty where there are enough.

    Args:
        used: experts that the model came with.
        nights: of the whole stream.

    Raises:
        SleepkitError: there are too few experts to merge any.
    """
    if not args.expansion or len(args.chain) > 1 or used + nights <= args.expert_slots:
        return ""
    if args.expert_slots < 2:
        raise SleepkitError(f"expert_slots is 1, which is too few for {used + nights} nights: give 2 at least, or one a night")
    first = max(1, args.expert_slots - used + 1)
    return (
        f"{nights} nights and {args.expert_slots} experts a layer, {used} of them in use before: from night {first} on, the two "
        "oldest are merged into one first, which keeps most of what they know; a life that begins with a higher "
        "--expert_slots need not"
    )


def _write_card(folder: Path, args: SleepArguments, model: PreTrainedModel, record: RunRecord) -> None:
    from sleepkit.reporting.cards import model_card, model_name, published_name

    base = _base_name(model)
    dataset = published_name(args.dataset)
    name = model_name(args.push_to_hub_repo, f"{base}-slept")
    model_card(record.to_dict(), model_name=name, base_model=base, dataset=dataset).save(folder / "README.md")


def _base_name(model: PreTrainedModel) -> str:
    """Of the base, as others may know it: its Hub id, or the last part of its folder."""
    from sleepkit.language.model_io import SMOLLM2_ID
    from sleepkit.language.models.base_model import SMOLLM2, base_of

    base = base_of(model)
    if base is None:
        return type(model).__name__
    return SMOLLM2_ID if base.name == SMOLLM2 else base.public_name


def _dream_set(args: SleepArguments, experiences: Sequence[Experience]) -> list[Dream]:
    if args.dream_set is None:
        return []
    from sleepkit.language.dreaming.dataset import load_dream_set

    dreams = load_dream_set(args.dream_set)
    titles = {title for experience in experiences for title in experience.titles or [experience.name]}
    if not any(one.context in titles for one in dreams):
        contexts = sorted({one.context for one in dreams})[:3]
        raise SleepkitError(
            f"dream_set {args.dream_set} has dreams of {', '.join(contexts)}, none of this data set; give another"
        )
    return dreams


def _write_dreams(args: SleepArguments, config: KnowledgeSeedingConfig, model: PreTrainedModel, record: RunRecord) -> None:
    """The accepted dreams of the nights that were kept, as a data set beside the model."""
    from sleepkit.language.dreaming.dataset import add_night, write_card
    from sleepkit.language.learner import ACCEPTED_NAME, accepted_dreams
    from sleepkit.reporting.cards import published_name

    out = Path(_folder(config))
    kept = {}
    for row in record.nights:
        path = out / f"night_{row['night']:02d}" / "dreams" / ACCEPTED_NAME
        if row["committed"] and path.is_file():
            kept[row["night"]] = accepted_dreams(path)
    if not any(kept.values()):
        return
    base = _base_name(model)
    for night, dreams in kept.items():
        add_night(out / "dreams", f"night_{night:02d}", dreams, base)
    source = published_name(args.dataset)
    write_card(out / "dreams", name=f"{Path(base).name}-dreams", model=base, source=source)


def _require_window(model: PreTrainedModel, args: SleepArguments) -> None:
    from sleepkit.language.generation.chat import require_window

    length = args.memory_max_tokens + args.max_new_tokens
    require_window(model, length, f"a chunk of {args.memory_max_tokens} tokens with an answer of {args.max_new_tokens}")


def shipped(name: str) -> str:
    """Path of a file that comes with the package."""
    return str(files("sleepkit") / "data" / name)


def _folder(config: KnowledgeSeedingConfig) -> str:
    assert config.output_dir is not None  # checked when parsed
    return config.output_dir
