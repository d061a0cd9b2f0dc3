"""What a life of nights is going to do, phase by phase: the night's own code is run with a model that computes nothing.

Documents are cut, questions made by rule, batches planned and prompts put together by the code that will do so in the night; what
only a model can say is taken from `Assumed`, which every plan prints.

    planned(blank, experiences, ...) -> [Phase]        in the order of the run

Left out: what is learned while awake (``sender adapter``), merging of experts, out-of-scope texts, trackers and reports.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Experience
from sleepkit.language.day import Day
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.generation.chat import chat_ids, generate
from sleepkit.language.learner import LanguageLearner
from sleepkit.language.night_items import about_day, general_items
from sleepkit.language.plan.stand_in import Batch, Call, standing_in
from sleepkit.language.questions.context import ContextStore
from sleepkit.language.questions.document_view import DocumentView
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.lines import read_lines
from sleepkit.language.questions.own_words.retelling import RETOLD_BY, retellings_wanted
from sleepkit.language.questions.writer import answer_log_probs
from sleepkit.language.rehearsal import Rehearsal
from sleepkit.language.retention import RetentionSet
from sleepkit.language.schedule import SleepSchedule
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.self_test import QUIZ_ITEMS, SelfTest
from sleepkit.utils.seeds import derive_seed, evenly

if TYPE_CHECKING:
    from sleepkit.language.plan.blank import BlankModel

__all__ = ["Assumed", "NightItems", "PlannedNight", "written_nights"]

WRITES_ALONE = 1_000_000_000  # weights from which on a model is taken to write its questions alone


@dataclass(frozen=True)
class Assumed:
    """What only the model can tell, and is taken for granted.

    Attributes:
        kept: share of what the model writes (questions, paraphrases, retellings) that passes the checks.
        alone: questions about a sentence that are kept where the model writes alone.
    """

    kept: float = 0.5
    alone: int = 3

    def lines(self, writer: str) -> list[str]:
        """Say it in words, a line each."""
        return [
            f"{self.kept:.0%} of what the model writes about answers and questions passes the checks",
            f"questions are written by {writer}, {self.alone} a sentence where the model writes alone",
            "every reply is written to its limit, as a batch ends with its longest row",
        ]


@dataclass
class NightItems:
    """Items of one training.

    Attributes:
        name: of the phase that trains.
        night: number of the night.
        items: all that is trained on.
        steps: optimizer steps that are set; None goes by epochs.
        epochs: in place of those of the settings.
        kept_general: whether the general items were prepared on an earlier night.
    """

    name: str
    night: int
    items: list[SyntheticExample]
    steps: int | None = None
    epochs: float | None = None
    kept_general: bool = False


@dataclass
class PlannedNight:
    """What one night, or what comes before the first, asks of the model.

    Attributes:
        number: of the night; 0 is what is measured before the first.
        calls: of generation and reading, by phase.
        trainings: of the night, in their order.
        styles: number of new items by style.
        held_out: questions that are kept back.
        sentences, words, documents: that are read.
        dreams: what is dreamed about: texts of the contexts, with the questions that judge dreams of it.
    """

    number: int
    calls: dict[str, list[Call]] = field(default_factory=dict)
    trainings: list[NightItems] = field(default_factory=list)
    styles: dict[str, int] = field(default_factory=dict)
    held_out: int = 0
    documents: int = 0
    words: int = 0
    contexts: list[Any] = field(default_factory=list)


class PlannedLearner(LanguageLearner):
    """A language learner that asks the blank model: of its methods those are used that only write and ask."""

    def __init__(
        self,
        blank: BlankModel,
        seeding: KnowledgeSeedingConfig,
        config: LearnerConfig,
        general: Sequence[str],
        dreaming: DreamingConfig,
    ) -> None:
        self.model, self.tokenizer, self.bank = blank.model, blank.tokenizer, blank.bank
        self.seeding, self.config, self.dreaming, self.general_prompts = seeding, config, dreaming, list(general)
        self.dream_set = []
        self.rehearsal = Rehearsal(seeding, dreaming)
        self.schedule = SleepSchedule(config.chain)
        self.self_test = SelfTest(self.model, self.tokenizer, config)
        self.view = DocumentView(self.tokenizer, config.context_max_tokens, config.context_overlap)
        self.day = Day()


def writer_of(blank: BlankModel, seeding: KnowledgeSeedingConfig) -> str:
    """Who is taken to write the questions, where the model decides it."""
    if seeding.question_writer != "auto":
        return seeding.question_writer
    return "written" if blank.sizes.parameters >= WRITES_ALONE else "rules"


def written_nights(
    blank: BlankModel,
    experiences: Sequence[Experience],
    seeding: KnowledgeSeedingConfig,
    config: LearnerConfig,
    dreaming: DreamingConfig,
    general_prompts: Sequence[str],
    anchors: Sequence[dict[str, Any]],
    assumed: Assumed,
    slept: int = 0,
) -> Iterator[PlannedNight]:
    """Go through the nights of a life, the stand-in writing and answering.

    Args:
        blank: the model.
        experiences: of all nights.
        seeding, config, dreaming: settings of the nights.
        general_prompts: what general items are drawn from.
        anchors: rows of the retention set.
        assumed: what only a model can tell.
        slept: nights that are over, whose items are only rehearsed.
    """
    learner = PlannedLearner(blank, seeding, config, general_prompts, dreaming)
    plan = _Nights(blank, learner, anchors, assumed, writer_of(blank, seeding))
    if slept < len(experiences):
        yield plan.start(experiences, slept)
    for number, experience in enumerate(experiences, start=1):
        made = plan.night(number, experience, experiences)
        if number > slept:
            yield made


class _Nights:
    """Goes through the nights as `SleepCycle` and `LanguageLearner.sleep` do."""

    def __init__(
        self, blank: BlankModel, learner: PlannedLearner, anchors: Sequence[dict[str, Any]], assumed: Assumed, writer: str
    ) -> None:
        self.blank, self.learner, self.anchors = blank, learner, list(anchors)
        self.assumed, self.writer = assumed, writer

    def _made(self, into: PlannedNight, phase: str, run: Callable[[], Any]) -> Any:
        """Run code of the night, and note what it asks of the model as that of a phase."""
        with standing_in(self.blank) as calls:
            result = run()
        into.calls.setdefault(phase, []).extend(calls)
        return result

    def start(self, experiences: Sequence[Experience], slept: int) -> PlannedNight:
        """What is asked before the first night."""
        made, new = PlannedNight(0), list(experiences[slept:])
        self._made(made, "questions", lambda: self.learner.evaluate(new))
        self._made(made, "questions", lambda: self.learner.evaluate(new, in_context=True))
        self._made(made, "retention", lambda: self._say([row["prompt"] for row in self.anchors]))
        made.calls["retention"].append(self._anchor_pass(is_compared=False))
        return made

    def night(self, number: int, experience: Experience, experiences: Sequence[Experience]) -> PlannedNight:
        """One night, from writing to the questions after it."""
        learner, made = self.learner, PlannedNight(number)
        learner.day = Day.of(
            experience, ContextStore(learner.tokenizer, learner.config.context_max_tokens, learner.config.context_overlap)
        )
        learner.rehearsal.outdate(learner.day.replaces, number)
        made.documents, made.words = learner.day.size
        was_general = bool(learner.rehearsal.general)
        items = self._written(made, number)
        held_out = learner.self_test.keep_back(items, learner._told())
        items = [item for item in items if item not in held_out]
        earlier = learner.rehearsal.questions(number, items, 2 * QUIZ_ITEMS)
        if learner.dreaming.dream_rounds:
            held_out, judges = held_out[::2], held_out[1::2] or held_out
            made.contexts = learner.contexts(judges)
        made.styles, made.held_out = dict(Counter(item.style for item in items)), len(held_out)
        made.trainings.append(NightItems("training", number, items, kept_general=was_general))
        learner.rehearsal.remember(items, held_out, number)
        if level := learner.schedule.due(number)[-1]:
            made.trainings.append(self._passed_on(level, number))
        for _ in range(2):
            self._made(made, "self-test", lambda: learner.self_test.ask(held_out, earlier))
        asked = [row["prompt"] for row in self.anchors if row.get("answer")]
        self._made(made, "retention", lambda: self._say(asked))
        made.calls["retention"].append(self._anchor_pass(is_compared=True))
        self._made(made, "questions", lambda: learner.evaluate(experiences))
        return made

    def _passed_on(self, level: int, number: int) -> NightItems:
        """Items of a slower level's training, as `LanguageLearner._pass_on` takes them."""
        learner = self.learner
        since = number - learner.schedule.chunk_sizes[level]
        replay = learner.rehearsal.current(learner.rehearsal.replay)
        items = [replace(item, style="recall") for item in replay if item.night > since]
        before = [item for item in replay if item.night <= since]
        items += learner.rehearsal.general
        items += learner.rehearsal.at_risk(before, number, learner.day.words(), learner.seeding.replay_items)
        return NightItems("level", number, items, epochs=learner.config.chain_epochs, kept_general=True)

    # -- what is written ------------------------------------------------------------------------------------------------
    def _written(self, made: PlannedNight, number: int) -> list[SyntheticExample]:
        """Items of a night: by rule as they will be, of the model's own as many as are assumed."""
        learner = self.learner
        writer = learner.seeding.question_writer
        args = copy.copy(learner.seeding)
        args.question_writer = self.writer if writer == "auto" and self.writer == "written" else writer
        seed = derive_seed(learner.seeding.seed, "material", number)
        items = self._made(made, "writing", lambda: about_day(learner.model, learner.tokenizer, learner.day, args, seed))
        own = self._own(items)
        triples = [(item.context, item.prompt, item.span) for item in own if item.style == "question"]
        self._made(made, "scoring", lambda: answer_log_probs(learner.model, learner.tokenizer, triples))
        items = list({(item.prompt, item.reply, item.style): item for item in [*items, *own]}.values())
        if not learner.rehearsal.general and learner.seeding.general_items:
            given = (learner.model, learner.tokenizer, learner.bank, learner.general_prompts, learner.seeding)
            learner.rehearsal.general = self._made(made, "writing", lambda: general_items(*given))
        items += learner.rehearsal.general
        return items + (learner.rehearsal.draw(number, items, learner.day.words()) if learner.config.expansion else [])

    def _own(self, items: Sequence[SyntheticExample]) -> list[SyntheticExample]:
        """Stand-ins for what the model writes and is kept, as long as what rules write about the same."""
        learner, kept = self.learner, self.assumed.kept
        lines = [line for line in read_lines(learner.day.chunks) if line.is_prose]
        own: list[SyntheticExample] = []
        if self.writer != "rules":
            per_line = self.assumed.alone if self.writer == "written" else 1
            for line in lines:
                own += [_question(line, k) for k in range(per_line)]
        if self.writer != "written":
            spans = {(item.context, item.span): item for item in items if item.span and item.role == "new"}
            whole = [item for item in items if item.style == "wh"]
            styles = learner.seeding.styles
            own += _share([*spans.values()], kept, "question") if "question" in styles else []
            own += _share(whole, kept, "paraphrase") if "paraphrase" in styles else []
            own += _share([item for item in items if item.style == "about"], kept, "rewrite") if "rewrite" in styles else []
        if self.writer in RETOLD_BY:
            wanted = retellings_wanted(learner.day.chunks, read_lines(learner.day.chunks))
            told = [SyntheticExample(prompt, _half(chunk.text), chunk.text, "retold", chunk.title) for chunk, _, prompt in wanted]
            own += evenly(told, round(kept * len(told)))
        return own

    # -- the retention set ------------------------------------------------------------------------------------------------
    def _say(self, prompts: Sequence[str]) -> None:
        learner, limit = self.learner, RetentionSet([]).reply_tokens
        generate(learner.model, learner.tokenizer, [chat_ids(learner.tokenizer, prompt) for prompt in prompts], limit)

    def _anchor_pass(self, is_compared: bool) -> Call:
        """The hidden states of all replies of the retention set, read in padded rows.

        Args:
            is_compared: with those of the unslept model, which were read before.
        """
        empty = RetentionSet([])
        lengths = sorted(len(chat_ids(self.learner.tokenizer, row["prompt"])) + empty.reply_tokens for row in self.anchors)
        size = empty.batch_size
        compared = is_compared * empty.reply_tokens
        groups = [lengths[start : start + size] for start in range(0, len(lengths), size)]
        return Call(batches=[Batch(len(g), 0, max(g), heads=0, compared=compared) for g in groups], is_reading=True)


def _share(items: Sequence[SyntheticExample], share: float, style: str) -> list[SyntheticExample]:
    """A share of items as the model would say them: as long, and not the same."""
    return [replace(item, style=style, prompt=f"{item.prompt} ") for item in evenly(list(items), round(share * len(items)))]


def _question(line: Any, k: int) -> SyntheticExample:
    """A question about a line that the model writes alone: half as long as the line, with a few of its words as the answer."""
    words = line.said.split()
    place = k * max(1, len(words) // 4)
    answer = " ".join(words[place : place + 2]) or line.said
    return SyntheticExample(f"{_half(line.said)} ({k + 1})?", line.said, line.context, "question", line.title, answer)


def _half(text: str) -> str:
    words = text.split()
    return " ".join(words[: max(1, len(words) // 2)])
