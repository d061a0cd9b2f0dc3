"""`SleepTrainer`: let a language model read, sleep and answer, from Python; the recipe and `sleepkit sleep` call it too.

    <output_dir>/results.json   metrics and settings     answers.json   every question with every answer
                 report.md      with its pictures        model/         experts and model card: what is published
                 state/         to resume from           night_<NN>/    examples and phases of each night
                 dreams/        accepted dreams          base.json      where the base is, if it is a folder

`model/` holds no text that the model has read or written, and no folder of this machine; `state/` and `night_<NN>/` do, and
are never uploaded, nor is anything else that nobody asked for (publish.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig, part_of
from sleepkit.language.data.experience import Experience, together
from sleepkit.language.data.given import described
from sleepkit.language.data.tasks import asked, read_texts
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.models.decoder import find_decoder
from sleepkit.language.plan.plan import Material
from sleepkit.language.plan.run import beside, libraries_bytes, plan_inside
from sleepkit.language.retention import RetentionSet, read_prompts
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.reporting.live import progress
from sleepkit.reporting.live.meter import Seen, metering
from sleepkit.reporting.live.watch import watched
from sleepkit.reporting.results import RunRecord, device_memory_bytes, peak_memory_bytes
from sleepkit.trainers.config import SleepConfig
from sleepkit.trainers.forms import chosen_form, rehearsal_folder
from sleepkit.trainers.hub import Target
from sleepkit.trainers.inputs import published_dreams, ready_model, ready_passages, rows_as_questions
from sleepkit.trainers.life import live_on
from sleepkit.trainers.outputs import Night, nights_of, write_card, write_dreams
from sleepkit.trainers.publish import publish
from sleepkit.utils.phases import digest_of
from sleepkit.utils.ram import keep_few_kernels
from sleepkit.utils.ranks import main_finds, main_holds, main_only
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training_fields import settings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

    from sleepkit.cycle.cycle import SleepCycle
    from sleepkit.language.learner import Evaluation, LanguageLearner

__all__ = ["Night", "SleepTrainer", "use_all_cores"]

NAMED = ("model", "dataset", "dataset_split", "test_dataset", "nights", "order", "general_prompts", "anchors")  # by content
FIXED = (
    *("method", "dtype", "expansion", "expert_slots", "expert_width", "expert_layers", "expert_kind", "chain", "baseline"),
    *("label_column", "answer_column", "answer_score", "instruction", "list_labels", "max_new_tokens"),
)  # settings of a life of nights that no day may change: the experts' shape, and what is asked in which way


@dataclass(frozen=True)
class _Given:
    """What a trainer was given beside its options, by name, as results and cards tell it."""

    model: str
    dataset: str
    test_dataset: str | None
    general_prompts: str | None
    anchors: str | None
    baseline: str | None


class SleepTrainer:
    """Lets a causal language model read texts, sleep on them night by night, and answer from its weights.

    For each text the model writes questions and learns them into a new expert beside its frozen weights; then the gate judges the
    night, and one that forgets too much or gains nothing is undone, bit for bit.  A run that was stopped goes on where it was
    when the same is called again, and one that is finished goes on with what is new in ``train_dataset``.

    Args:
        model (`str`, `Path` or [`~transformers.PreTrainedModel`]):
            Hub id or folder of a chat model, a base model or a PEFT adapter, output folder or Hub id of a slept one, or a
            model that is loaded already, and grows experts in place.
        args ([`SleepConfig`], *optional*):
            Options of the nights; the defaults if it is left out.
        train_dataset (`str`, `Path`, [`~datasets.Dataset`] or `list`):
            What to read: a folder of documents, a file, a Hub id, a data set, or a list of texts (`str`), of chats (lists of
            ``{"role", "content"}``) or of rows (`dict`), such as ``{"title", "context", "questions": [{"question", "answer"}]}``.
            Documents without questions share a night; of passages with questions each has its own, or as
            ``args.passages_per_night`` says.
        eval_dataset (`str`, `Path`, [`~datasets.Dataset`] or `list`, *optional*):
            Rows ``{"question", "answer", "title"}`` that are asked before and after, and never learned; ``title`` is the name of
            the text that they are about, and may be left out where there is one text.  With ``args.label_column`` or
            ``args.answer_column``: rows of these columns to be tested on.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            Tokenizer of the model; the model's own if it is left out.
        general_prompts (`str`, `Path` or `list`, *optional*):
            Prompts that keep the model as it is elsewhere: a JSONL file of ``{"prompt"}``, or a list; shipped ones by default.
        anchors (`str`, `Path` or `list`, *optional*):
            The retention set: prompts that measure what was forgotten, never trained on: ``{"prompt", "answer"}``, in the same
            forms.
        callbacks (`list` of [`~transformers.TrainerCallback`], *optional*):
            Are called in the training of every night.

    Attributes:
        record (`RunRecord` or `None`):
            Results of the last `train`: ``record.metrics`` are numbers by name, from 0 to 1 where they are shares.

    Raises:
        SleepkitError: data, model or options that cannot be used, or not together; the message is one line with the remedy.

    Example:

        >>> from sleepkit import SleepConfig, SleepTrainer
        >>> trainer = SleepTrainer(
        ...     model="HuggingFaceTB/SmolLM2-135M-Instruct",
        ...     args=SleepConfig(output_dir="runs/notes"),
        ...     train_dataset=["The first keeper of Skarrowmere Light was Ada Finch.", "Its lamp was lit in 1871."],
        ... )
        >>> trainer.train()
        >>> trainer.ask("Who kept the light first?")
    """

    method = "knowledge_seeding"
    baseline: str | None = None  # name of the baseline that a subclass runs

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        args: SleepConfig | None = None,
        train_dataset: str | Path | Dataset | Sequence[Any] | None = None,
        eval_dataset: str | Path | Dataset | Sequence[Any] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        general_prompts: str | Path | Sequence[Any] | None = None,
        anchors: str | Path | Sequence[Any] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        from accelerate.utils import set_seed

        from sleepkit.language.models.fingerprint import model_identity

        self.args = args = SleepConfig() if args is None else args
        if args.output_dir is None:
            raise SleepkitError("output_dir is None; give a folder for the results")
        use_all_cores(args)
        keep_few_kernels()
        self._libraries = libraries_bytes()
        self.passages = self._read(train_dataset, eval_dataset)
        self.out_of_scope = args.out_of_scope and read_texts(args.out_of_scope, args.text_column, args.dataset_split)
        general = read_prompts(general_prompts, "general_prompts")
        retention = read_prompts(anchors, "anchors")
        self.dreams = [] if args.dream_set is None else published_dreams(args.dream_set, self.passages)
        set_seed(derive_seed(args.seed, "start"))
        self.model, self.processing_class = ready_model(model, processing_class, args)
        self.given = _Given(
            str(model) if isinstance(model, (str, Path)) else self.model.config._name_or_path or type(self.model).__name__,
            described(train_dataset),
            _optional(eval_dataset),
            _optional(general_prompts),
            _optional(anchors),
            self.baseline,
        )
        self.inputs = model_identity(self.model, self.processing_class)
        self.inputs |= {"general_prompts": digest_of(general), "anchors": digest_of(retention), "slept": _slept(self.model)}
        self.general_prompts, self.anchors = [row["prompt"] for row in general], RetentionSet(retention)
        self.callbacks = list(callbacks or ())
        self.learner = self._make_learner()
        inherits = self.baseline is None and isinstance(model, (str, Path))
        if inherits and (buffer := main_finds(lambda: rehearsal_folder(self.given.model, args.model_revision))):
            self.learner.rehearsal.inherit(buffer)
        self._start = self.learner.snapshot() if self.baseline is None else {}  # of a baseline, all its weights
        self.experiences: list[Experience] = []  # of all days; of today alone before `train`
        self.record: RunRecord | None = None

    # -- a method and its baselines -----------------------------------------------------------------------------------
    def _read(self, train_dataset: Any, eval_dataset: Any) -> list[Experience]:
        return ready_passages(train_dataset, eval_dataset, self.args)

    def _make_learner(self) -> LanguageLearner:
        from sleepkit.language.learner import LanguageLearner

        args = self.args
        return LanguageLearner(
            self.model,
            self.processing_class,
            part_of(args, KnowledgeSeedingConfig),
            part_of(args, LearnerConfig),
            self.general_prompts,
            part_of(args, DreamingConfig),
            self.dreams,
            self.callbacks,
        )

    def _cycle(self, **options: Any) -> SleepCycle[Experience]:
        from sleepkit.cycle.cycle import SleepCycle
        from sleepkit.cycle.gate import RetentionGate

        weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
        gate = RetentionGate(*self.args.limits) if self.args.gate else None
        return SleepCycle(self.learner, gate=gate, needed_bytes=weights, **options)

    # -- nights ---------------------------------------------------------------------------------------------------------
    def train(self) -> RunRecord:
        """Sleep all nights that are left, one for each experience, and write results, report and slept model.

        Nights that an earlier call has finished in ``args.output_dir`` are read back.  Call it on all processes.

        Returns:
            `RunRecord`: ``metrics`` by name, such as ``closed_book_after`` (share of the questions that are answered with nothing
            in the prompt), ``self_test_after`` (of the model's own questions, the only ones where none were given) and
            ``anchor_kl`` (nats per token that the model has moved elsewhere); ``nights``, ``history`` and settings beside them.

        Raises:
            SleepkitError: the folder belongs to another run, is damaged or in use, or the disk is full.

        Example:

            >>> record = trainer.train()
            >>> record.metrics["self_test_after"]
        """
        folder = Path(str(self.args.output_dir))
        chosen = settings(self.given, self.args)
        self._restart()
        with watched(self.args, chosen), main_holds(folder):
            day = live_on(folder, self.passages, self.args.together, self.args.overwrite)
            self.experiences = day.experiences
            crowded = self._crowded(day.experiences)
            for line in [*day.lines(), *crowded]:
                progress.say(line)
            if not any(experience.questions for experience in day.experiences):
                progress.say("no questions were given: the model's own, not trained on, are the only measure (self_test)")
            cycle = self._life(day.experiences, day.replaced)
            cycle.record.plan = self._plan(day.experiences, day.slept)
            with metering(find_decoder(self.model)) as seen:
                self.record = cycle.run()
            self._compare(self.record, seen)
            self._write(cycle)
            if self.out_of_scope and "out_of_scope_auroc" not in self.record.metrics:
                self._measure_out_of_scope(self.out_of_scope, self.record)
        return self.record

    def forget(self, *nights: int) -> list[Night]:
        """Take nights out of the model: their experts are masked, and what other experts hold of them is trained away.

        What only those experts held is gone exactly: where no others hold any of it, the model answers as the one with the
        experts of all other nights, bit for bit.  What later nights would rehearse of them goes too, and so do their documents in
        ``args.output_dir``; a document that was forgotten is not slept on again unless it is changed.  What is answered, and how
        likely the texts are, is measured before and after, and printed.  Call it on all processes.

        Args:
            nights (`int`): their numbers, from 1.

        Returns:
            list of `Night`: the nights that were forgotten, whose ``metrics`` have what was measured: ``forgotten_before``,
            ``forgotten_after``, ``forgotten_unslept`` (share of its questions that are answered), ``forgotten_loss_before`` and
            so on (nats per token of its text), the same of ``others``, ``membership_before`` and ``membership_after`` (AUC).

        Raises:
            SleepkitError: there is no such night, it was undone or forgotten already, or it shares its expert with others and has
                left no items by which it could be trained away.

        Example:

            >>> trainer.forget(3)
        """
        from sleepkit.trainers.forgetting import forget

        forgotten = forget(self, Path(str(self.args.output_dir)), nights)
        return [night for night in self.nights if night.number in forgotten]

    def rollback(self, to: int) -> list[Night]:
        """Forget all nights after one, so that the model is again as that one has left it.  Call it on all processes.

        Args:
            to (`int`): the last night that stays; 0 leaves none.

        Returns:
            list of `Night`: as `forget`.

        Raises:
            SleepkitError: as `forget`; or a later night has merged experts, which cannot be taken apart again.

        Example:

            >>> trainer.rollback(to=3)
        """
        from sleepkit.trainers.forgetting import forget

        forgotten = forget(self, Path(str(self.args.output_dir)), to=to)
        return [night for night in self.nights if night.number in forgotten]

    def _plan(self, experiences: Sequence[Experience], slept: int) -> dict[str, Any]:
        """What the nights that are left are going to cost; empty where there are none, and for a baseline."""
        if self.baseline is not None or slept == len(experiences):
            return {}
        material = Material(experiences, self.general_prompts, self.anchors.prompts, slept)
        return main_finds(lambda: plan_inside(self.model, self.processing_class, self.args, material, self._libraries))

    def _compare(self, record: RunRecord, seen: Seen) -> None:
        """Put what was seen of the nights of today beside their plan, in the results."""
        if not record.plan or "seen" in record.plan:
            return
        is_gpu = self.args.device.type != "cpu"
        peak = device_memory_bytes() if is_gpu else peak_memory_bytes()
        record.plan = beside(record.plan, seen.to_dict(), peak)
        record.save(Path(str(self.args.output_dir)), is_main=self.args.process_index == 0)

    def _restart(self) -> None:
        """Take the model back to its start; a night of an earlier call may have been stopped."""
        if self._start:
            self.learner.restore(self._start)
            self.learner.bank.train_only(None)

    def _life(self, experiences: Sequence[Experience], replaced: Mapping[int, int]) -> SleepCycle[Experience]:
        """The cycle of the run in ``args.output_dir``, with the settings of today."""
        chosen = settings(self.given, self.args)
        return self._cycle(
            experiences=experiences,
            measure_anchors=self._measure_anchors,
            output_dir=Path(str(self.args.output_dir)),
            method=self.method,
            seed=self.args.seed,
            config=chosen,
            inputs=self.inputs,
            named=NAMED,
            changeable=set(chosen) - set(FIXED),
            growing=True,
            replaced=replaced,
            resume=self.args.resume,
            overwrite=self.args.overwrite,
        )

    @property
    def nights(self) -> list[Night]:
        """The nights of the last `train`, in order: each with ``kept``, ``reason`` and ``metrics``."""
        return [] if self.record is None else nights_of(self.record)

    def _write(self, cycle: SleepCycle[Experience]) -> None:
        """Write what is published of a run that has ended."""
        self.save_model()
        if self.args.process_index == 0 and self.record is not None:
            write_dreams(Path(str(self.args.output_dir)), self.model, self.record)
            cycle.folder.note()

    # -- asking -----------------------------------------------------------------------------------------------------------
    @overload
    def ask(self, question: str, before: bool = False, max_new_tokens: int = 96) -> str: ...

    @overload
    def ask(self, question: list[str], before: bool = False, max_new_tokens: int = 96) -> list[str]: ...

    def ask(self, question: str | list[str], before: bool = False, max_new_tokens: int = 96) -> str | list[str]:
        """Ask the model as it is now, with nothing in its context.

        Args:
            question (`str` or list of `str`):
                Each is a chat of its own.
            before (`bool`, defaults to `False`):
                Let the model answer as it was before any night, which is the same weights without their experts.
            max_new_tokens (`int`, defaults to 96):
                Tokens of an answer at most.

        Returns:
            `str` or list of `str`: an answer, decoded greedily; a list for a list.

        Example:

            >>> trainer.ask("Who kept the light first?", before=True), trainer.ask("Who kept the light first?")
        """
        from sleepkit.language.generation.chat import reply_texts

        questions = [question] if isinstance(question, str) else question
        bank = self.learner.bank
        with bank.view(() if before else bank.active):
            answers = reply_texts(self.model, self.processing_class, questions, max_new_tokens=max_new_tokens)
        return answers[0] if isinstance(question, str) else answers

    def evaluate(self, eval_dataset: str | Path | Dataset | Sequence[Any] | None = None) -> dict[str, float]:
        """Measure the model as it is now.

        Args:
            eval_dataset (`str`, `Path`, [`~datasets.Dataset`] or `list`, *optional*):
                Rows ``{"question", "answer"}``; the questions of the run if it is left out.

        Returns:
            `dict[str, float]`: ``closed_book`` (share of answers that hold the right one), ``token_f1`` (mean) and ``questions``
            (their number), where there are any; on the retention set ``anchor_kl`` (nats per token) and ``anchor_accuracy``
            (share).

        Example:

            >>> trainer.evaluate([{"question": "Who kept the light first?", "answer": "Ada Finch"}])
        """
        if eval_dataset is None:
            groups = self.experiences or [together(self.passages)]
        else:
            questions = [question for _, question in rows_as_questions(eval_dataset, self.args.dataset_split)]
            groups = [Experience("asked", [""], questions)]
        evaluations: list[Evaluation] = [scores for scores in self.learner.evaluate(groups) if scores.n]
        count = sum(scores.n for scores in evaluations)
        measures = {name: value for name, value in self._measure_anchors().items() if name != "anchor_n"}
        if count:
            measures["closed_book"] = sum(scores.contained * scores.n for scores in evaluations) / count
            measures["token_f1"] = sum(scores.token_f1 * scores.n for scores in evaluations) / count
            measures["questions"] = count
        return measures

    def _measure_anchors(self) -> dict[str, float]:
        return self.anchors.measure(self.model, self.processing_class, self.learner.bank)

    def _measure_out_of_scope(self, texts: Sequence[str], record: RunRecord) -> None:
        """How well the confidence of an answer tells texts of known labels from others."""
        from sleepkit.language.generation.chat import confidences
        from sleepkit.reporting.metrics import auroc
        from sleepkit.reporting.report import write_report

        known = [question.question for experience in self.experiences for question in experience.questions]
        others = [asked(text, self.args.instruction) for text in texts]
        sure = confidences(self.model, self.processing_class, [*known, *others], self.args.max_new_tokens)
        record.metrics["out_of_scope_auroc"] = auroc(sure[: len(known)], sure[len(known) :])
        folder = Path(str(self.args.output_dir))
        record.save(folder, is_main=self.args.process_index == 0)
        main_only(lambda: write_report(folder))

    # -- keeping and publishing -------------------------------------------------------------------------------------------
    def save_model(self, folder: str | Path | None = None) -> None:
        """Write the experts of the model with its card, to be loaded by `load_model` or as ``model`` of another trainer.

        The base stays where it is; that of a model that was built in code, which nobody could find again, is written beside them.
        Call it on all processes.

        Args:
            folder (`str` or `Path`, *optional*):
                Where to; ``<output_dir>/model`` if it is left out, which `train` writes already.

        Raises:
            SleepkitError: the folder cannot be written.

        Example:

            >>> trainer.save_model("slept")
        """
        from sleepkit.language.model_io import save_model
        from sleepkit.language.models.base_model import base_of, keep_folder

        target = Path(str(self.args.output_dir)) / "model" if folder is None else Path(folder)
        if base_of(self.model) is not None:
            self.learner.bank.save(target, publish=folder is None)  # on all ranks: sharded experts are gathered
        elif self.args.process_index == 0:
            save_model(self.model, self.processing_class, target)
        if self.args.process_index == 0:
            if folder is None:
                keep_folder(self.model, target.parent)
            if self.record is not None:
                write_card(target, self.model, self.record, self.args.push_to_hub_repo)

    def push_to_hub(
        self,
        repo_id: str | None = None,
        *,
        form: str | None = None,
        dreams: str | None = None,
        rehearsal: bool = False,
        public: bool = False,
    ) -> list[str]:
        """Upload the slept model of the finished run, after what is uploaded is listed.  Call it on all processes.

        Args:
            repo_id (`str`, *optional*):
                ``owner/name``; ``args.push_to_hub_repo`` if it is left out.
            form (`str`, *optional*):
                ``"plain"``, a whole model for any program; ``"experts"``, a few megabytes for sleepkit; ``"lora"``, an adapter
                of PEFT that is distilled now; ``"auto"``, plain where the model has such a form, else experts.
                ``args.push_to_hub_form`` if it is left out.
            dreams (`str`, *optional*):
                Repository of the accepted dreams, which are text that the model wrote.
            rehearsal (`bool`, defaults to `False`):
                With the experts their rehearsal buffer, which holds text of the documents.
            public (`bool`, defaults to `False`):
                Let all read it; repositories are private otherwise.

        Returns:
            list of `str`: addresses of the commits; empty where no night was kept.

        Raises:
            SleepkitError: no run is finished, no repository is named, or it cannot be written to.

        Example:

            >>> trainer.push_to_hub("me/slept")
        """
        args, folder = self.args, Path(str(self.args.output_dir))
        target, token, form = repo_id or args.push_to_hub_repo, args.hub_token or None, form or args.push_to_hub_form
        chosen_form(form, rehearsal)  # where it is refused, it is on all processes
        if self.record is not None and target is not None:
            record = self.record
            main_only(lambda: write_card(folder / "model", self.model, record, target))  # which names the repository
        where = None if target is None else Target(target)
        options: Any = {"form": form, "rehearsal": rehearsal, "public": public, "trust_remote_code": args.trust_remote_code}
        return main_finds(lambda: publish(folder, where, dreams, token=token, **options))

    def _crowded(self, experiences: Sequence[Experience]) -> list[str]:
        """Say in a line what happens to a stream of more nights than experts; nothing where there are enough.

        Raises:
            SleepkitError: there are too few experts to merge any.
        """
        args, used = self.args, len(self.learner.bank.active)
        forgotten = sum(bool(experience.forgotten) for experience in experiences)
        nights = len(experiences) - forgotten
        if not args.expansion or len(args.chain) > 1 or used + nights <= args.expert_slots:
            return []
        if args.expert_slots < 2:
            raise SleepkitError(
                f"expert_slots is 1, which is too few for {used + nights} nights: give 2 at least, or one a night"
            )
        first = max(1, args.expert_slots - used + 1) + forgotten
        return [
            f"{nights} nights and {args.expert_slots} experts a layer, {used} of them in use before: from night {first} on, the "
            "two oldest are merged into one first, which keeps most of what they know; a life that begins with a higher "
            "--expert_slots need not"
        ]


def use_all_cores(config: TrainingArguments) -> None:
    """`accelerate launch` that was told nothing gives a process one thread, even where there is no GPU: take our share."""
    import torch

    if config.device.type == "cpu" and os.environ.get("ACCELERATE_USE_CPU") == "False" and torch.get_num_threads() == 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _optional(data: Any) -> str | None:
    return None if data is None else described(data)


def _slept(model: PreTrainedModel) -> str:
    """A digest of the experts that a model comes with."""
    from sleepkit.language.experts.bank import ExpertBank
    from sleepkit.language.experts.units import LayerExperts
    from sleepkit.utils.digests import digest

    grown = any(isinstance(module, LayerExperts) for module in model.modules())
    return digest(ExpertBank.of(model).state_dict())[:16] if grown else "never"
