"""A language learner: reads while awake, consolidates while asleep, answers questions with nothing in its context.

    wake      documents go into the context store
    sleep     write examples -> take a new expert -> teach it -> dream (optional) -> (gate, elsewhere) ; each phase leaves
              a file and is skipped when the file is there, so a night that was killed goes on where it was
    evaluate  closed book, or with the documents in the prompt (the ceiling)

Knowledge moves along a chain of levels, fast to slow (schedule.py): every night the context, or a fast adapter that has
learned it (fast_adapter.py), passes on to a new expert; in a longer chain, every C(l) nights one new expert of level l takes over
what all faster ones know, and those are reset (levels.py).  Ours: when several levels are due on one night, only the slowest is
trained, directly from the fastest.

What a night leaves behind for later nights are its expert, and a few of its own items and questions (rehearsal.py): asked
again after each night, these tell the gate what was learned and what was lost.

    day.py          what was read                          night_items.py     what is written about it
    self_test.py    what is asked, and how it is scored    levels.py          which expert learns
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Experience, Question
from sleepkit.language.day import Day
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.dreaming.dreams import Context, Dream, context_name
from sleepkit.language.dreaming.night import DREAMS_FOLDER, forget_dreams, keep_dreams, rehearsed
from sleepkit.language.forgetting.traces import ROUND_STEPS, Forgotten, Traces
from sleepkit.language.forgetting.trainer import OBJECTIVE, PACE, UnlearningTrainer
from sleepkit.language.generation.chat import chat_ids, decode, generate, window_of
from sleepkit.language.generation.vllm_server import is_served
from sleepkit.language.levels import ExpertLevels, experts_of
from sleepkit.language.models.fingerprint import model_identity
from sleepkit.language.models.zero3 import unsplit
from sleepkit.language.night_items import about_day, general_items, plan_of
from sleepkit.language.questions.context import ContextStore
from sleepkit.language.questions.document_view import DocumentView, shown_before
from sleepkit.language.questions.items import SyntheticExample, load_items, save_items
from sleepkit.language.questions.lines import coverage, read_lines
from sleepkit.language.rehearsal import SNAPSHOT, Rehearsal
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.fast_adapter import AdapterSeedingTrainer, learn_awake
from sleepkit.language.seeding.packing import PreparedItem
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer
from sleepkit.language.self_test import QUIZ_ITEMS, Evaluation, SelfTest, compared, graded
from sleepkit.reporting.live import progress
from sleepkit.reporting.live.meter import timed
from sleepkit.utils.digests import digest
from sleepkit.utils.phases import PhaseFile, digest_of
from sleepkit.utils.ranks import main_finds, main_only
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import require_finite, settings_digest

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["Evaluation", "LanguageLearner"]

LEVELS = "levels"  # name of a tensor of a snapshot

logger = logging.get_logger(__name__)


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

    rehearsal_class: ClassVar[type[Rehearsal]] = Rehearsal
    trainer_class: ClassVar[type[KnowledgeSeedingTrainer]] = KnowledgeSeedingTrainer

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
        self.bank = experts_of(model, config)
        if self.dreaming.dreamer_path:
            from sleepkit.language.dreaming.policy import dreaming_with

            with dreaming_with(model, Path(self.dreaming.dreamer_path)):  # refused now, not at the end of the first night
                pass
        self.rehearsal = self.rehearsal_class(seeding, self.dreaming)
        self.levels = ExpertLevels(model, tokenizer, self.bank, config, self.rehearsal, seeding.seed)
        self.self_test = SelfTest(model, tokenizer, config)
        self.view = DocumentView(tokenizer, config.context_max_tokens, config.context_overlap)
        self.day = Day()
        self.prepared_general: dict[SyntheticExample, PreparedItem] = {}  # of this process
        self.train_tokens = 0  # of all that is trained in a night
        self.seconds_writing = self.seconds_before = 0.0  # the latter of a night's sessions that were killed
        self.base = model_identity(model, tokenizer)  # before any night, as some methods change the base itself
        self.tonight: dict[str, Any] = {}  # what decides the phases of the night
        self.is_main = PartialState().is_main_process

    # -- awake ------------------------------------------------------------------------------------------------------
    def wake(self, experience: Experience) -> None:
        """Read an experience in the place of the one before: its documents, and the notes beside them."""
        self.day = Day.of(experience, ContextStore(self.tokenizer, self.config.context_max_tokens, self.config.context_overlap))

    @timed("questions")
    def evaluate(self, experiences: Sequence[Experience], in_context: bool = False) -> list[Evaluation]:
        """Ask all questions of some experiences, and decode the answers greedily.

        All are one queue, which is dealt out to the processes; a document that several prompts begin with is read once for them.

        Args:
            experiences (list of `Experience`): each with its questions; those without any are scored as NaN.
            in_context (`bool`, defaults to `False`): put a question's document into its prompt, which gives the ceiling.

        Returns:
            list of `Evaluation`: scores and answers of each experience, in order.
        """
        prompts = [chat_ids(self.tokenizer, self.asked(e, q, in_context)) for e in experiences for q in e.questions]
        rows = iter(generate(self.model, self.tokenizer, prompts, self.config.max_new_tokens))
        return [graded(e.questions, [decode(self.tokenizer, next(rows)) for _ in e.questions]) for e in experiences]

    def asked(self, experience: Experience, question: Question, in_context: bool) -> str | list[dict[str, str]]:
        """Return the prompt of an evaluation question.

        Args:
            experience (`Experience`): to which the question belongs.
            question (`Question`): one of its own.
            in_context (`bool`): with its document in front, or after those examples of its task that fit.

        Returns:
            `str` or list of messages: a user's turn, or turns of a chat that ends with it.
        """
        if not in_context:
            return question.question
        room = window_of(self.model) - self.config.max_new_tokens
        if experience.examples and experience.examples[question.document]:
            return shown_before(experience.examples[question.document], question, self.tokenizer, room)
        return self.view.prompt(experience.documents[question.document], question, room)

    # -- asleep -----------------------------------------------------------------------------------------------------
    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Sleep one night on what was read; a night that was killed goes on after its last phase.

        Args:
            night (`int`): its number in the life of the learner, from 1.
            output_dir (`Path`): of the run; the night's phases are kept in ``night_<NN>`` below it.

        Returns:
            `dict`: ``history`` of the training, scores of the model's own questions ``before`` and ``after`` (``self_test`` has
            each of them), ``items``, ``coverage``, ``train_tokens`` and ``seconds``.

        Raises:
            SleepkitError: nothing was read, nothing can be asked about it, or weights that are no longer finite.
        """
        folder = Path(output_dir) / f"night_{night:02d}"
        start = time.perf_counter()
        self._begin(night)
        self.rehearsal.outdate(self.day.replaces, night)
        forget_dreams(folder, self.tonight)
        items, held_out = self._night_items(night, folder)
        earlier = self.rehearsal.questions(night, items, 2 * QUIZ_ITEMS)
        dreams = bool(self.dreaming.dream_rounds or self.dream_set)
        if dreams:  # the gate asks others than those that judge dreams
            held_out, judges = held_out[::2], held_out[1::2] or held_out
        covered = coverage(items, read_lines(self.day.chunks))
        progress.say(f"night {night}: {plan_of(self.seeding, self.day, items, len(held_out), covered)}")
        before, said_before = self.self_test.ask(held_out, earlier)
        outcome = self._consolidate(items, night, folder)
        if dreams:
            outcome |= self._dream(items, judges, night, folder)
        self.rehearsal.remember(items, held_out, night)
        if slowest := self.levels.schedule.due(night)[-1]:
            self._pass_on(slowest, night, folder)
        after, said_after = self.self_test.ask(held_out, earlier)
        outcome |= {"train_tokens": self.train_tokens, "before": before, "after": after}
        outcome["self_test"] = compared(held_out, said_before, said_after)
        outcome |= {"items": len(items), "coverage": covered}
        outcome["items_by_style"] = {style: sum(i.style == style for i in items) for style in sorted({i.style for i in items})}
        outcome["seconds_writing"] = self.seconds_writing
        outcome["seconds"] = time.perf_counter() - start + self.seconds_before
        require_finite(self.bank.state_dict(), f"night {night}", self.seeding.learning_rate)
        return outcome

    def _begin(self, night: int) -> None:
        """Note what decides tonight's phases, before anything changes."""
        self.train_tokens, self.seconds_writing, self.seconds_before = 0, 0.0, 0.0
        self.tonight = self.identity(night)

    def identity(self, night: int) -> dict[str, Any]:
        """Digests of all that decides what a night makes: phases of another night, day, model or state are not taken over."""
        names = {context_name(chunk) for chunk in self.day.chunks}
        lists = (self.rehearsal.replay, self.rehearsal.quiz, self.rehearsal.general, self.general_prompts)
        return {
            "seed": self.seeding.seed,
            "night": night,
            "experience": digest_of(self.day.content()),
            "settings": digest_of([asdict(self.config), asdict(self.dreaming), settings_digest(self.seeding)]),
            "dreams": digest_of([dream for dream in self.dream_set if dream.context in names]),
            "rehearsal": digest_of(lists),
            "state": digest(self.snapshot())[:16],
            **{f"model_{name}": value for name, value in self.base.items()},
        }

    def _consolidate(self, items: Sequence[SyntheticExample], night: int, folder: Path) -> dict[str, Any]:
        """Move the context, or a LoRA that has learned it while awake, into an expert."""
        if self.config.sender == "context":
            slot = self.levels.take(night)
            return self._teach(self._trainer, items, night, folder / "checkpoints", slot=slot)
        with learn_awake(
            self.model, self.tokenizer, self.bank.layers, self.day.texts(), items, self.seeding, night, folder / "awake"
        ) as adapted:
            slot = self.levels.take(night)
            teach = partial(AdapterSeedingTrainer, adapted)
            return self._teach(teach, items, night, folder / "checkpoints", slot=slot)

    def _dream(
        self, items: Sequence[SyntheticExample], judges: Sequence[SyntheticExample], night: int, folder: Path
    ) -> dict[str, Any]:
        """Dream about the context, or take published dreams of it, and rehearse them with tonight's examples."""
        texts = {context_name(chunk): chunk.text for chunk in self.day.texts()}
        accepted = [dream for dream in self.dream_set if dream.context in texts]
        outcome: dict[str, Any] = {}
        slot = self.bank.active[-1]
        if not accepted and self.dreaming.dream_rounds:
            accepted, outcome = self._own_dreams(judges, slot, night, folder)
        if rows := rehearsed(accepted, texts):
            self.bank.train_only(slot)
            steps = self.dreaming.dream_rehearsal_steps
            self._teach(self._trainer, [*items, *rows], night, folder / "rehearsal", slot=slot, max_steps=steps)
            self.rehearsal.remember_dreams(rows, night)
        return outcome | {"dreams_accepted": len(accepted)}

    def contexts(self, questions: Sequence[SyntheticExample]) -> list[Context]:
        """Return the chunks that were read, each with the questions that it answers; a chunk without any is left out."""
        return self.day.contexts(questions)

    def _own_dreams(
        self, judges: Sequence[SyntheticExample], slot: int, night: int, folder: Path
    ) -> tuple[list[Dream], dict[str, Any]]:
        from sleepkit.language.dreaming.trainer import DreamingTrainer

        contexts = self.contexts(judges)
        if not contexts:
            logger.warning(f"night {night} has no held-out question to judge dreams by; it does not dream")
            return [], {}
        given = (self.model, self.tokenizer, self.dreaming, self.seeding, slot, folder / DREAMS_FOLDER, night, self.tonight)
        accepted, logs = DreamingTrainer(*given).run(contexts)
        keep_dreams(accepted, folder, self.tonight)
        return accepted, {"dreams": [asdict(log) for log in logs]}

    def _pass_on(self, level: int, night: int, folder: Path) -> None:
        """Let one new expert of ``level`` take over what those of faster levels know, and reset those."""
        since = night - self.levels.schedule.chunk_sizes[level]
        replay = self.rehearsal.current(self.rehearsal.replay)
        items = [replace(item, style="recall") for item in replay if item.night > since]
        before = [item for item in replay if item.night <= since]
        slot, senders = self.levels.take_over(level, night)
        items += self._general_items() + self.rehearsal.at_risk(before, night, self.day.words(), self.seeding.replay_items)
        epochs = self.config.chain_epochs
        self._teach(self._trainer, items, night, folder / f"level_{level}", epochs=epochs, slot=slot, senders=senders)
        self.levels.free(senders)

    @property
    def _trainer(self) -> Callable[..., KnowledgeSeedingTrainer]:
        return partial(self.trainer_class, kept=self.prepared_general)

    def _teach(
        self,
        trainer: Callable[..., KnowledgeSeedingTrainer],
        items: Sequence[SyntheticExample],
        night: int,
        folder: Path,
        max_steps: int | None = None,
        epochs: float | None = None,
        changes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        args = replace(  # made anew, as DeepSpeed takes the plugin of a configuration once only
            self.seeding,
            hub_token=None,  # nights upload nothing
            output_dir=str(folder),
            seed=derive_seed(self.seeding.seed, "train", night, folder.name),
            max_steps=max_steps or self.seeding.max_steps,
            num_train_epochs=epochs or self.seeding.num_train_epochs,
            **(changes or {}),
        )
        training = trainer(self.model, args, items, self.tokenizer, callbacks=self.callbacks, **options)
        outcome = training.run(f"night {night}")
        self.bank.train_only(None)
        self.train_tokens += outcome["train_tokens"]
        self.seconds_before += training.seconds_before
        return outcome

    def _night_items(self, night: int, folder: Path) -> tuple[list[SyntheticExample], list[SyntheticExample]]:
        """Items to train on, and self-written questions that are kept back."""
        items = self.written(folder / "examples.jsonl", self.tonight, lambda: self._all_items(night))
        self.rehearsal.general = self.rehearsal.general or [item for item in items if item.style == "general"]
        held_out = self.self_test.keep_back(items, self._told())
        return [item for item in items if item not in held_out], held_out

    def _all_items(self, night: int) -> list[SyntheticExample]:
        written = self.write_items(night)
        items = [*written, *self._general_items()]
        if self.config.expansion:  # without it there is no teacher that knows earlier nights
            items += self.rehearsal.draw(night, written, self.day.words())
        return items

    @timed("writing")
    def written(
        self, path: Path, identity: Mapping[str, Any], write: Callable[[], list[SyntheticExample]]
    ) -> list[SyntheticExample]:
        """Write items once: a run that was killed reads them back.

        Args:
            path (`Path`): of their file, which is sealed.
            identity (mapping): all that decides them; a file that was made with another one is written again.
            write (callable): makes them.

        Returns:
            list of `SyntheticExample`: as they stand in the file.
        """
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
        """Take the notes, which are learned as they are, and let the model write about the rest of what was read.

        About what a newer version of a document says for the first time it writes twice, as an old answer is in its way.
        """
        with self.bank.view(()) if is_served(self.model) else nullcontext():  # a server has the base alone
            return self._new_items(night)

    def _new_items(self, night: int) -> list[SyntheticExample]:
        read, seed = (self.model, self.tokenizer, self.day, self.seeding), self.seeding.seed
        items = about_day(*read, derive_seed(seed, "material", night))
        if not self.day.replaces:
            return items
        told, known = self._told(), {item.prompt for item in items}
        again = about_day(*read, derive_seed(seed, "material", night, "changed"))
        fresh = [item for item in again if item.source in self.day.replaces and item.reply not in told]
        return items + [item for item in fresh if item.prompt not in known]

    def _told(self) -> set[str]:
        """Replies about the documents of which today's are newer versions."""
        return {item.reply for item in self.rehearsal.replay if item.source in self.day.replaces}

    def _general_items(self) -> list[SyntheticExample]:
        """General prompts with the unslept model's greedy replies; written once, on the first night."""
        if not self.rehearsal.general and self.seeding.general_items:
            given = (self.model, self.tokenizer, self.bank, self.general_prompts, self.seeding)
            self.rehearsal.general = general_items(*given)
        return self.rehearsal.general

    def traces(self, nights: Collection[int]) -> Traces:
        """Return what of some nights is to be forgotten, and in which experts it is.

        Args:
            nights (collection of `int`): their numbers.

        Raises:
            SleepkitError: one of the nights shares its expert with others and has left no items, or no expert is known to hold
                it.
        """
        given = (self.model, self.tokenizer, self.bank, self.levels, self.rehearsal, nights)
        return Traces(*given, derive_seed(self.seeding.seed, "traces"))

    def forget(
        self, traces: Traces, outdated: Mapping[str, int], folder: Path, is_recalled: Callable[[], bool] = lambda: False
    ) -> Forgotten:
        """Mask the experts of some nights, train away what others hold of them, and empty the rehearsal buffer of them.

        Args:
            traces (`Traces`): of these nights.
            outdated (mapping): the titles of documents of which there is a newer version without these nights, and its night.
            folder (`Path`): for checkpoints of the training, if the settings want any.
            is_recalled (callable): whether a question about them is answered that the model before them did not answer.

        Returns:
            `Forgotten`: the slots that are free again, and what was trained.
        """
        self.levels.free(traces.own)
        options = {"before": traces.before, "kept": {}}

        def train(number: int, slots: Sequence[int]) -> dict[str, Any]:
            self.bank.train_only(slots)
            examples = traces.examples(self._general_items(), self.seeding.replay_items)
            trainer = partial(UnlearningTrainer, slots=slots, **options)
            changes = {**OBJECTIVE, "min_steps": ROUND_STEPS, "learning_rate": PACE * self.seeding.learning_rate}
            place = folder / f"round_{number}"
            return self._teach(trainer, examples, traces.nights[0], place, max_steps=-1, epochs=1, changes=changes)

        outcome = traces.train_away(train, is_recalled)
        self.levels.strike(traces.nights)
        self.rehearsal.forget(traces.nights, outdated)
        return outcome

    # -- keeping ----------------------------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of all that a night may change, for `restore`."""
        return {**self.bank.state_dict(), **self.rehearsal.snapshot(), LEVELS: self.levels.snapshot()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo a night, bit for bit."""
        self.rehearsal.restore(snapshot)
        self.levels.restore(snapshot[LEVELS])
        experts = {name: values for name, values in snapshot.items() if name not in (*SNAPSHOT, LEVELS)}
        self.bank.load_state_dict(experts, self.levels.of)

    def save(self, folder: Path) -> None:
        """Write the experts (safetensors and JSON) with their levels, and the items for later nights (JSON lines)."""
        folder = Path(folder)
        self.bank.save(folder)  # on all ranks: sharded experts are gathered
        if self.is_main:
            self.levels.save(folder)
            self.rehearsal.save(folder)

    def load(self, folder: Path) -> None:
        """Read what `save` has written, into the same base model."""
        folder = Path(folder)
        self.bank.load_experts(folder)
        self.rehearsal.load(folder)
        self.levels.load(folder)
        self.bank.train_only(None)  # as a night leaves it
