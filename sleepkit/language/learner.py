"""A language learner: reads while awake, consolidates while asleep, answers questions with nothing in its context.

    wake      documents go into the context store
    sleep     write examples -> take a new expert -> teach it -> dream (optional) -> (gate, elsewhere) ; each phase leaves
              a file and is skipped when the file is there, so a night that was killed goes on where it was
    evaluate  closed book, or with the documents in the prompt (the ceiling)

Knowledge moves along a chain of levels, fast to slow (schedule.py): every night the context, or a fast adapter that has
learned it (fast_adapter.py), passes on to a new expert; in a longer chain, every C(l) nights one new expert of level l takes over
what all faster ones know, and those are reset.  Ours: when several levels are due on
one night, only the slowest is trained, directly from the fastest; and the new expert starts from a fit to the outputs of
the old ones (merge.py), so that a quarter of the epochs is enough.

What a night leaves behind for later nights are its expert, and a few of its own items and questions (rehearsal.py): asked
again after each night, these tell the gate what was learned and what was lost.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import LEARNED, Experience, Question, render_note, size_of, word_count
from sleepkit.language.data.tasks import LABEL
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.dreaming.dreams import Context, Dream, context_name, load_dreams, save_dreams
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.merge import capture_ffn_inputs, fit_slot, merge_slots
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.generation.chat import chat_ids, decode, generate, text_ids, window_of
from sleepkit.language.models.fingerprint import model_identity
from sleepkit.language.models.zero3 import unsplit
from sleepkit.language.questions.context import Chunk, ContextStore
from sleepkit.language.questions.document_view import DocumentView, notes_that_fit
from sleepkit.language.questions.examples import (
    OWN,
    ROLES,
    NothingToAskError,
    SyntheticExample,
    coverage,
    load_items,
    save_items,
    write_examples,
)
from sleepkit.language.questions.gaps import GAP
from sleepkit.language.questions.languages import ENGLISH, language_of
from sleepkit.language.questions.lines import read_lines
from sleepkit.language.questions.words import matching_words
from sleepkit.language.questions.writer import paraphrases
from sleepkit.language.rehearsal import SNAPSHOT, Rehearsal
from sleepkit.language.schedule import SleepSchedule
from sleepkit.language.seeding.batch_plan import BatchPlan
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.fast_adapter import AdapterSeedingTrainer, learn_awake
from sleepkit.language.seeding.packing import PreparedItem
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer
from sleepkit.reporting.live import progress
from sleepkit.reporting.live.plan import plan_text
from sleepkit.reporting.scores import CONTAINED, score, token_f1
from sleepkit.utils.digests import digest
from sleepkit.utils.files import read_json, write_json
from sleepkit.utils.phases import PhaseFile, digest_of
from sleepkit.utils.ranks import main_finds, main_only
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import require_finite, settings_digest

if TYPE_CHECKING:
    from transformers import TrainerCallback

QUIZ_ITEMS, LEAST_QUIZ = 16, 6  # an eighth of all questions, of few up to a half
SHORT_ANSWER = 12  # words; an answer that is longer is not looked for as it stands
LONGEST_ANSWER = 256  # tokens that are written where a long answer is expected
QUIZ_STYLES = ("question", "wh", "paraphrase", "note", "written")  # whole questions
NOTE_STYLES = {LABEL: "note", LEARNED: OWN}  # by the kind of a note
REWORDED = 300  # characters of a question that is put in other words
MERGE_ITEMS = 256
LEVELS_NAME, ACCEPTED_NAME = "levels.json", "accepted.jsonl"

logger = logging.get_logger(__name__)


@dataclass
class Evaluation:
    """Scores on one experience, shares from 0 to 1, and the answers in the order of the questions."""

    contained: float
    token_f1: float
    answers: list[str]
    n: int


class LanguageLearner:
    """A causal language model that reads while awake, learns while asleep, and answers with nothing in its context.

    It is the learner that `SleepTrainer` sends through its nights; use it where those are not what you want.

    Args:
        model (`PreTrainedModel`): causal LM; it grows experts here unless it has some.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer, with a chat template.
        seeding (`KnowledgeSeedingConfig`): how a night is trained.
        config (`LearnerConfig`): experts, levels, the context while awake, and how answers are generated and judged.
        general_prompts (list of `str`): prompts for retention, answered by the unslept model.
        dreaming (`DreamingConfig`, *optional*): what is dreamed; the defaults are no dreams.
        dream_set (list of `Dream`): published dreams, which nights on their documents rehearse in place of own ones.
        callbacks (list of `TrainerCallback`): of `transformers`, called in the training of every night.

    Raises:
        SleepkitError: layers that the model does not have, or a dreamer that does not fit it.

    Example:

        >>> learner = LanguageLearner(model, tokenizer, KnowledgeSeedingConfig(), LearnerConfig(), ["Name a colour."])
        >>> learner.wake(Experience("light", ["The first keeper was Orla Finch."], [Question("Who was first?", "Orla Finch")]))
        >>> log = learner.sleep(1, Path("runs/light"))
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        seeding: KnowledgeSeedingConfig,
        config: LearnerConfig,
        general_prompts: Sequence[str],
        dreaming: DreamingConfig | None = None,
        dream_set: Sequence[Dream] = (),
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.model, self.tokenizer, self.seeding, self.config = model, tokenizer, seeding, config
        self.dreaming, self.dream_set = dreaming or DreamingConfig(), list(dream_set)
        self.callbacks = list(callbacks)
        self.general_prompts = list(general_prompts)
        unsplit(model)
        try:
            self.bank = ExpertBank.of(model)
        except SleepkitError:
            layers: Any = config.expert_layers
            shape = ExpertBankConfig(slots=config.expert_slots, width=config.expert_width, layers=layers, kind=config.expert_kind)
            self.bank = ExpertBank.grow(model, shape)
        if self.dreaming.dreamer_path:
            from sleepkit.language.dreaming.policy import dreaming_with

            with dreaming_with(model, Path(self.dreaming.dreamer_path)):  # refused now, not at the end of the first night
                pass
        self.schedule = SleepSchedule(config.chain)
        slowest = len(self.schedule.chunk_sizes) - 1
        self.level_of = dict.fromkeys(self.bank.active, slowest)  # of each expert in use; 0 is the fastest
        self.context = ContextStore(tokenizer, config.context_max_tokens, config.context_overlap)
        self.notes: list[SyntheticExample] = []  # today's
        self.replaces: list[str] = []  # documents of earlier nights, of which today's are newer versions
        self.view = DocumentView(tokenizer, config.context_max_tokens, config.context_overlap)
        self.rehearsal = Rehearsal(seeding, self.dreaming)
        self.prepared_general: dict[SyntheticExample, PreparedItem] = {}  # of this process
        self.train_tokens = 0  # of all that is trained in a night
        self.seconds_writing = self.seconds_before = 0.0  # the latter of a night's sessions that were killed
        self.base = model_identity(model, tokenizer)  # before any night, as some methods change the base itself
        self.tonight: dict[str, Any] = {}  # what decides the phases of the night
        self.is_main = PartialState().is_main_process

    # -- awake ------------------------------------------------------------------------------------------------------
    def wake(self, experience: Experience) -> None:
        """Take the experience's documents into the context store, which holds one day, and its notes beside it."""
        self.context.clear()
        self.replaces, self.size = list(experience.replaces), size_of([experience])
        self.notes = [
            SyntheticExample(
                note.question,
                note.answer,
                render_note(note.question, note.answer),
                NOTE_STYLES.get(note.kind, "written"),
                experience.name,
                note.answer,
            )
            for note in experience.notes
        ]
        for k, (title, document) in enumerate(zip(experience.titled(), experience.documents, strict=True)):
            self.context.add_document(document, title, reference=not experience.is_read(k))

    def evaluate(self, experiences: Sequence[Experience], in_context: bool = False) -> list[Evaluation]:
        """Ask all questions together, in context those of one document after those of another: generation computes once what all
        its prompts begin with.  The answers are decoded greedily."""
        asked = [(e, q) for e in experiences for q in e.questions]
        groups = groupby(asked, key=lambda pair: (pair[0].name, pair[1].document) if in_context else "all")
        prompts = ([chat_ids(self.tokenizer, self.asked(e, q, in_context)) for e, q in group] for _, group in groups)
        rows = (row for group in prompts for row in generate(self.model, self.tokenizer, group, self.config.max_new_tokens))
        return [_graded(e.questions, [decode(self.tokenizer, next(rows)) for _ in e.questions]) for e in experiences]

    def asked(self, experience: Experience, question: Question, in_context: bool) -> str | list[dict[str, str]]:
        """The prompt of an evaluation question; in context, with its document, or after those examples of its task that fit."""
        if not in_context:
            return question.question
        room = window_of(self.model) - self.config.max_new_tokens
        if experience.examples and experience.examples[question.document]:
            last = {"role": "user", "content": question.question}
            turns = [
                {"role": role, "content": text}
                for shown in experience.examples[question.document]
                for role, text in (("user", shown.question), ("assistant", shown.answer))
            ]
            while turns and len(chat_ids(self.tokenizer, [*turns, last])) > room:
                del turns[-2:]
            return [*turns, last]
        return self.view.prompt(experience.documents[question.document], question, room)

    # -- asleep -----------------------------------------------------------------------------------------------------
    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Sleep one night on what the context holds; returns history, counts and seconds of each phase."""
        folder = Path(output_dir) / f"night_{night:02d}"
        start = time.perf_counter()
        self._begin(night)
        self.rehearsal.outdate(self.replaces, night)
        main_only(PhaseFile(folder / "dreams" / ACCEPTED_NAME, self.tonight).forget)  # another run's, or to be written again
        items, held_out = self._night_items(night, folder)
        earlier = self.rehearsal.questions(night, items, 2 * QUIZ_ITEMS)
        dreams = bool(self.dreaming.dream_rounds or self.dream_set)
        if dreams:  # the gate asks others than those that judge dreams
            held_out, judges = held_out[::2], held_out[1::2] or held_out
        covered = coverage(items, read_lines(self.context.chunks()))
        progress.say(f"night {night}: {self._plan(items, held_out, covered)}")
        before, said_before = self._self_test(held_out, earlier)
        outcome = self._consolidate(items, night, folder)
        if dreams:
            outcome |= self._dream(items, judges, night, folder)
        self.rehearsal.remember(items, held_out, night)
        if slowest := self.schedule.due(night)[-1]:
            self._pass_on(slowest, night, folder)
        after, said_after = self._self_test(held_out, earlier)
        outcome |= {"train_tokens": self.train_tokens, "before": before, "after": after}
        outcome["self_test"] = [
            {"question": item.prompt, "gold": item.span, "before": first, "after": last}
            | {"right_before": right_first, "right_after": right_last}
            for item, (first, right_first), (last, right_last) in zip(held_out, said_before, said_after, strict=True)
        ]
        outcome |= {"items": len(items), "coverage": covered}
        outcome["items_by_style"] = {style: sum(i.style == style for i in items) for style in sorted({i.style for i in items})}
        outcome["seconds_writing"] = self.seconds_writing
        outcome["seconds"] = time.perf_counter() - start + self.seconds_before
        require_finite(self.bank.state_dict(), f"night {night}", self.seeding.learning_rate)
        return outcome

    def _plan(self, items: Sequence[SyntheticExample], held_out: Sequence[SyntheticExample], covered: float) -> str:
        """Say in a few words what lies ahead tonight: numbers of items, steps and tokens."""
        args, of_role = self.seeding, {role: [item for item in items if item.role == role] for role in ROLES}
        new, *others = of_role.values()
        numbers = [range(len(group)) for group in others]
        size, share = args.per_device_train_batch_size, args.general_share
        batches = BatchPlan(range(len(new)), numbers, size, share, 1, 0, 0, args.world_size)
        accumulated = args.gradient_accumulation_steps
        steps = args.max_steps if args.max_steps > 0 else batches.steps_of(args.num_train_epochs, accumulated, args.min_steps)
        return plan_text(
            documents=self.size.documents,
            words=self.size.words,
            items=Counter(item.style for item in new),
            steps=steps,
            seen=steps * accumulated * batches.n_new,
            kept_back=len(held_out),
            beside=sum(map(len, others)),
            coverage=covered,
        )

    def _begin(self, night: int) -> None:
        """Note what decides tonight's phases, before anything changes."""
        self.train_tokens, self.seconds_writing, self.seconds_before = 0, 0.0, 0.0
        self.tonight = self.identity(night)

    def identity(self, night: int) -> dict[str, Any]:
        """Digests of all that decides what a night makes: phases of another night, day, model or state are not taken over."""
        read = {
            "chunks": [(chunk.title, chunk.text) for chunk in self.context.chunks()],
            "notes": self.notes,
            "replaces": self.replaces,
        }
        names = {context_name(chunk) for chunk in self.context.chunks()}
        lists = (self.rehearsal.replay, self.rehearsal.quiz, self.rehearsal.general, self.general_prompts)
        return {
            "seed": self.seeding.seed,
            "night": night,
            "experience": digest_of(read),
            "settings": digest_of([asdict(self.config), asdict(self.dreaming), settings_digest(self.seeding)]),
            "dreams": digest_of([dream for dream in self.dream_set if dream.context in names]),
            "rehearsal": digest_of(lists),
            "state": digest(self.snapshot())[:16],
            **{f"model_{name}": value for name, value in self.base.items()},
        }

    def _consolidate(self, items: Sequence[SyntheticExample], night: int, folder: Path) -> dict[str, Any]:
        """Move the context, or a LoRA that has learned it while awake, into an expert."""
        if self.config.sender == "context":
            slot = self._expert(night)
            return self._teach(self._trainer, items, night, folder / "checkpoints", slot=slot)
        with learn_awake(
            self.model, self.tokenizer, self.bank.layers, self._chunks(), items, self.seeding, night, folder / "awake"
        ) as adapted:
            slot = self._expert(night)
            teach = partial(AdapterSeedingTrainer, adapted)
            return self._teach(teach, items, night, folder / "checkpoints", slot=slot)

    def _dream(
        self, items: Sequence[SyntheticExample], judges: Sequence[SyntheticExample], night: int, folder: Path
    ) -> dict[str, Any]:
        """Dream about the context, or take published dreams of it, and rehearse them with tonight's examples."""
        texts = {context_name(chunk): chunk.text for chunk in self._chunks()}
        accepted = [dream for dream in self.dream_set if dream.context in texts]
        outcome: dict[str, Any] = {}
        slot = self.bank.active[-1]
        if not accepted and self.dreaming.dream_rounds:
            accepted, outcome = self._own_dreams(judges, slot, night, folder / "dreams")
        rehearsed = [
            SyntheticExample(prompt, reply, texts[dream.context], "dream", dream.context)
            for dream in accepted
            for prompt, reply in dream.rows
        ]
        if rehearsed:
            self.bank.train_only(slot)
            steps = self.dreaming.dream_rehearsal_steps
            self._teach(self._trainer, [*items, *rehearsed], night, folder / "rehearsal", slot=slot, max_steps=steps)
            self.rehearsal.remember_dreams(rehearsed, night)
        return outcome | {"dreams_accepted": len(accepted)}

    def contexts(self, questions: Sequence[SyntheticExample]) -> list[Context]:
        """Each chunk of the context with the questions that it answers; a chunk without any is left out."""
        contexts = []
        for chunk in self._chunks():
            asked = [(item.prompt, item.reply) for item in questions if item.context and item.context in chunk.text]
            if asked:
                contexts.append(Context(chunk, asked))
        return contexts

    def _own_dreams(
        self, judges: Sequence[SyntheticExample], slot: int, night: int, folder: Path
    ) -> tuple[list[Dream], dict[str, Any]]:
        from sleepkit.language.dreaming.trainer import DreamingTrainer

        contexts = self.contexts(judges)
        if not contexts:
            logger.warning(f"night {night} has no held-out question to judge dreams by; it does not dream")
            return [], {}
        trainer = DreamingTrainer(self.model, self.tokenizer, self.dreaming, self.seeding, slot, folder, night, self.tonight)
        accepted, logs = trainer.run(contexts)
        phase = PhaseFile(folder / ACCEPTED_NAME, self.tonight)
        main_only(lambda: phase.write(lambda draft: save_dreams(accepted, draft)))
        return accepted, {"dreams": [asdict(log) for log in logs]}

    def _pass_on(self, level: int, night: int, folder: Path) -> None:
        """Let one new expert of ``level`` take over what those of faster levels know, and reset those."""
        senders = [slot for slot in self.bank.active if self.level_of[slot] < level]
        since = night - self.schedule.chunk_sizes[level]
        replay = self.rehearsal.current(self.rehearsal.replay)
        items = [replace(item, style="recall") for item in replay if item.night > since]
        before = [item for item in replay if item.night <= since]
        slot = self._expert(night, level)
        fit_slot(self.bank, slot, senders, self._ffn_inputs(night), seed=derive_seed(self.seeding.seed, "fit", night))
        items += self._general_items() + self.rehearsal.at_risk(before, night, self._words(), self.seeding.replay_items)
        epochs = self.config.chain_epochs
        self._teach(self._trainer, items, night, folder / f"level_{level}", epochs=epochs, slot=slot, senders=senders)
        for sender in senders:
            self.bank.deactivate(sender)
            del self.level_of[sender]

    @property
    def _trainer(self) -> Callable[..., KnowledgeSeedingTrainer]:
        return partial(KnowledgeSeedingTrainer, kept=self.prepared_general)

    def _teach(
        self,
        trainer: Callable[..., KnowledgeSeedingTrainer],
        items: Sequence[SyntheticExample],
        night: int,
        folder: Path,
        max_steps: int | None = None,
        epochs: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        args = replace(  # made anew, as DeepSpeed takes the plugin of a configuration once only
            self.seeding,
            hub_token=None,  # nights upload nothing
            output_dir=str(folder),
            seed=derive_seed(self.seeding.seed, "train", night, folder.name),
            max_steps=max_steps or self.seeding.max_steps,
            num_train_epochs=epochs or self.seeding.num_train_epochs,
        )
        training = trainer(self.model, args, items, self.tokenizer, callbacks=self.callbacks, **options)
        outcome = training.run(f"night {night}")
        self.bank.train_only(None)
        self.train_tokens += outcome["train_tokens"]
        self.seconds_before += training.seconds_before
        return outcome

    def _self_test(
        self, held_out: Sequence[SyntheticExample], earlier: Sequence[SyntheticExample]
    ) -> tuple[dict[str, float], list[tuple[str, float]]]:
        """Ask self-written questions that were not trained on, tonight's (``held_out``) and those of earlier nights.

        Returns:
            Shares of right answers and numbers of questions, ``held_out`` and ``retention`` (of earlier nights); and tonight's
            answers, each with its score from 0 to 1.
        """
        asked = [*held_out, *earlier]
        kinds = [self._score_of(item) for item in asked]
        long = [len(text_ids(self.tokenizer, item.span)) for item, kind in zip(asked, kinds, strict=True) if kind == "chrf"]
        limit = max(self.config.max_new_tokens, min(max(long, default=0), LONGEST_ANSWER))
        rows = generate(self.model, self.tokenizer, [chat_ids(self.tokenizer, i.prompt) for i in asked], limit)
        answers = [decode(self.tokenizer, row) for row in rows]
        scores = [self._score(item, answer) for item, answer in zip(asked, answers, strict=True)]
        parts = {"held_out": scores[: len(held_out)], "retention": scores[len(held_out) :]}
        shares = {name: sum(right) / len(right) for name, right in parts.items() if right}
        shares |= {f"{name}_n": len(right) for name, right in parts.items()}
        return shares, list(zip(answers, scores, strict=True))[: len(held_out)]

    def _score_of(self, item: SyntheticExample) -> str:
        """How answers to an item are scored: what nobody repeats word for word, such as a reply of a chat, by ChrF."""
        if item.style == "written":
            return self.config.answer_score
        return "chrf" if max(len(item.span.split()), word_count(item.span)) > SHORT_ANSWER else CONTAINED

    def _score(self, item: SyntheticExample, answer: str) -> float:
        """The score of an answer to an item of the model's own, from 0 to 1."""
        return score(self._score_of(item), answer, item.span, language_of(f"{item.prompt} {item.reply}", ENGLISH))

    def _can_be_asked(self, item: SyntheticExample) -> bool:
        """Whether an item is a question of tonight with an answer, to which the reply that is taught is right."""
        is_question = item.style in QUIZ_STYLES or (item.style == "cloze" and GAP in item.prompt)
        return item.role == "new" and is_question and self._score(item, item.reply) == 1

    def _night_items(self, night: int, folder: Path) -> tuple[list[SyntheticExample], list[SyntheticExample]]:
        """Items to train on, and self-written questions that are kept back."""
        items = self.written(folder / "examples.jsonl", self.tonight, lambda: self._all_items(night))
        self.rehearsal.general = self.rehearsal.general or [item for item in items if item.style == "general"]
        held_out = self._kept_back(list(filter(self._can_be_asked, items)))
        return [item for item in items if item not in held_out], held_out

    def _kept_back(self, askable: Sequence[SyntheticExample]) -> list[SyntheticExample]:
        """Questions for the gate, spread evenly: first about what a newer version of a document says for the first time."""
        told = {item.reply for item in self.rehearsal.replay if item.source in self.replaces}
        fresh = [item for item in askable if item.reply not in told] or list(askable)
        number = min(QUIZ_ITEMS, max(len(fresh) // 8, min((len(fresh) + 1) // 2, LEAST_QUIZ)))
        return [fresh[k * len(fresh) // number] for k in range(number)]

    def _all_items(self, night: int) -> list[SyntheticExample]:
        written = self.write_items(night)
        items = [*written, *self._general_items()]
        if self.config.expansion:  # without it there is no teacher that knows earlier nights
            items += self.rehearsal.draw(night, written, self._words())
        return items

    def written(
        self, path: Path, identity: Mapping[str, Any], write: Callable[[], list[SyntheticExample]]
    ) -> list[SyntheticExample]:
        """Items that ``write`` makes, once: a run that was killed reads them back."""
        phase = PhaseFile(path, identity)
        log = main_finds(phase.read)
        if log is None:
            start = time.perf_counter()
            items = write()
            self.seconds_writing = time.perf_counter() - start
            main_only(lambda: phase.write(lambda draft: save_items(items, draft), {"seconds": self.seconds_writing}))
        else:
            self.seconds_writing = log["seconds"]
            self.seconds_before += log["seconds"]
        return load_items(path)

    def write_items(self, night: int) -> list[SyntheticExample]:
        """Notes, which are learned as they are, and what the model writes about the rest of its context.

        It also puts questions that the user gave in other words: those can be kept back for the gate.
        """
        args, seed = self.seeding, derive_seed(self.seeding.seed, "material", night)
        items = notes_that_fit(self.notes, self.model, self.tokenizer)
        given = [note for note in items if note.style == OWN and len(note.prompt) <= REWORDED]
        if given and "paraphrase" in args.styles:
            items += paraphrases(self.model, self.tokenizer, given, seed)
        chunks = self._chunks()
        if items and all(chunk.reference for chunk in chunks):
            return items
        try:
            made = (args.styles, args.questions_per_span, seed, args.question_writer)
            return items + write_examples(self.model, self.tokenizer, chunks, *made)
        except NothingToAskError:
            if not items:
                raise
            return items

    def _chunks(self) -> list[Chunk]:
        chunks = list(self.context.chunks())
        if not chunks:
            raise SleepkitError("the context is empty; call wake() with an experience before sleep()")
        return chunks

    def _general_items(self) -> list[SyntheticExample]:
        """General prompts with the unslept model's greedy replies; written once, on the first night."""
        if not self.rehearsal.general and self.seeding.general_items:
            rng = random.Random(self.seeding.seed)  # which ones is part of the data
            prompts = rng.sample(self.general_prompts, min(self.seeding.general_items, len(self.general_prompts)))
            with self.bank.view(()):
                ids = [chat_ids(self.tokenizer, prompt) for prompt in prompts]
                rows = generate(self.model, self.tokenizer, ids, self.seeding.general_tokens, description="general prompts")
            replies = [decode(self.tokenizer, row) for row in rows]
            self.rehearsal.general = [
                SyntheticExample(p, r, "", "general") for p, r in zip(prompts, replies, strict=True) if r.strip()
            ]
        return self.rehearsal.general

    def _words(self) -> set[str]:
        """Return the content words of tonight's documents, as `matching_words` has them."""
        return {word for chunk in self._chunks() for word in matching_words(chunk.text)}

    def _expert(self, night: int, level: int = 0) -> int:
        """A fresh expert; in a full pool the two oldest of the slowest level are merged first."""
        if not self.config.expansion and self.bank.active:
            slot = self.bank.active[-1]
            self.bank.train_only(slot)
            return slot
        if len(self.bank.active) == self.bank.config.slots:
            self._merge_oldest(night)
        slot = self.bank.activate(seed=derive_seed(self.seeding.seed, "expert", night, level))
        self.level_of[slot] = level
        return slot

    def _merge_oldest(self, night: int) -> None:
        """Make room: one expert takes over from two, fitted on what the model says of earlier nights."""
        slowest = max(self.level_of.values())
        oldest = [slot for slot in self.bank.active if self.level_of[slot] == slowest][:2]
        seed = derive_seed(self.seeding.seed, "fit", night)
        merge_slots(self.bank, oldest[0], oldest, self._ffn_inputs(night), seed=seed)
        del self.level_of[oldest[1]]

    def _ffn_inputs(self, night: int) -> list[Tensor]:
        """Return what the grown layers see when the model reads some items of earlier nights and the general ones."""
        replay, general = self.rehearsal.replay, self.rehearsal.general
        seed = derive_seed(self.seeding.seed, "merge", night)
        chosen = random.Random(seed).sample(replay, min(MERGE_ITEMS, len(replay)))
        texts = [f"{item.prompt}\n{item.reply}" for item in [*chosen, *general]]
        batches = [self.tokenizer(texts[k : k + 16], return_tensors="pt", padding=True) for k in range(0, len(texts), 16)]
        device = next(self.model.parameters()).device
        on_device = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]
        return capture_ffn_inputs(self.bank, on_device, seed=seed)

    # -- keeping ----------------------------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that a night may change: active experts and the list of slots."""
        levels = [number for slot in self.bank.active for number in (slot, self.level_of[slot])]
        return {**self.bank.state_dict(), **self.rehearsal.snapshot(), "levels": torch.tensor(levels, dtype=torch.int64)}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo a night, bit for bit."""
        self.rehearsal.restore(snapshot)
        levels = snapshot["levels"].tolist()
        self.level_of = dict(zip(levels[::2], levels[1::2], strict=True))
        for slot in [slot for slot in self.bank.active if slot not in self.level_of]:
            self.bank.deactivate(slot)
        self.bank.load_state_dict({k: v for k, v in snapshot.items() if k not in (*SNAPSHOT, "levels")}, self.level_of)

    def save(self, folder: Path) -> None:
        """Experts (safetensors + JSON) with their levels, and the items for later nights (jsonl)."""
        folder = Path(folder)
        self.bank.save(folder)  # on all ranks: sharded experts are gathered
        if self.is_main:
            write_json(folder / LEVELS_NAME, [[slot, self.level_of[slot]] for slot in self.bank.active])
            self.rehearsal.save(folder)

    def load(self, folder: Path) -> None:
        """Read what `save` has written, into the same base model."""
        folder = Path(folder)
        self.bank.load_experts(folder)
        self.level_of = dict(read_json(folder / LEVELS_NAME))
        self.rehearsal.load(folder)
        self.bank.train_only(None)  # as a night leaves it


def accepted_dreams(path: Path) -> list[Dream]:
    """Read the accepted dreams of a finished night.  Raises `SleepkitError` if the file is not as it was written."""
    PhaseFile(path, {}).require_whole()
    return load_dreams(path)


def _graded(questions: Sequence[Question], answers: list[str]) -> Evaluation:
    if not questions:
        return Evaluation(float("nan"), float("nan"), [], 0)
    languages = [language_of(q.question, ENGLISH) for q in questions]
    hits = [score(q.kind, answer, q.answer, told) for answer, q, told in zip(answers, questions, languages, strict=True)]
    f1 = [token_f1(answer, q.answer, told) for answer, q, told in zip(answers, questions, languages, strict=True)]
    return Evaluation(sum(hits) / len(hits), sum(f1) / len(f1), answers, len(hits))
