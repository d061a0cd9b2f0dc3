"""Questions that test a night, and how answers to them are scored: the user's own, and those that the model has written.

    graded(questions, answers)              scores of an experience's questions, closed book or in context
    SelfTest.ask(held_out, earlier)         shares of right answers, of tonight's questions and of those of earlier nights
    SelfTest.keep_back(items, told)         which of tonight's items are asked and not learned

What nobody repeats word for word, such as a reply of a chat, is scored by ChrF; all else is right if it holds the answer.

Ours: all of it.  Left out: the limits of what is kept (sleepkit/cycle/gate.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Question, word_count
from sleepkit.language.generation.chat import chat_ids, decode, generate, text_ids
from sleepkit.language.questions.english.pronouns import antecedent_of, resolved
from sleepkit.language.questions.gaps import GAP
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.languages import ENGLISH, language_of
from sleepkit.language.questions.sentences import sentences
from sleepkit.reporting.live.meter import timed
from sleepkit.reporting.scores import CONTAINED, contained, score, token_f1
from sleepkit.utils.seeds import evenly

__all__ = ["QUIZ_ITEMS", "QUIZ_STYLES", "Answer", "Evaluation", "SelfTest", "compared", "graded"]

QUIZ_ITEMS, LEAST_QUIZ = 16, 6  # an eighth of all questions, of few up to a half
SHORT_ANSWER = 12  # words; an answer that is longer is not looked for as it stands
LONGEST_ANSWER = 256  # tokens that are written where a long answer is expected
QUIZ_STYLES = ("question", "wh", "paraphrase", "note", "written")  # whole questions

Answer = tuple[str, float]  # what was said, and its score from 0 to 1


@dataclass
class Evaluation:
    """Scores on one experience, shares from 0 to 1, and the answers in the order of the questions."""

    contained: float
    token_f1: float
    answers: list[str]
    n: int


def graded(questions: Sequence[Question], answers: list[str]) -> Evaluation:
    """Score the answers to an experience's questions; NaN where there are none."""
    if not questions:
        return Evaluation(float("nan"), float("nan"), [], 0)
    languages = [language_of(q.question, ENGLISH) for q in questions]
    hits = [score(q.kind, answer, q.answer, told) for answer, q, told in zip(answers, questions, languages, strict=True)]
    f1 = [token_f1(answer, q.answer, told) for answer, q, told in zip(answers, questions, languages, strict=True)]
    return Evaluation(sum(hits) / len(hits), sum(f1) / len(f1), answers, len(hits))


class SelfTest:
    """Asks a model what it has written itself and not trained on.

    Args:
        model: as it is when it is asked.
        tokenizer: its tokenizer.
        config: length of an answer, and how written answers are scored.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: LearnerConfig) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config

    @timed("self-test")
    def ask(
        self, held_out: Sequence[SyntheticExample], earlier: Sequence[SyntheticExample]
    ) -> tuple[dict[str, float], list[Answer]]:
        """Ask tonight's questions that are ``held_out`` of training, and questions of ``earlier`` nights.

        Returns:
            Mean scores and numbers of questions, ``held_out`` and ``retention`` (of earlier nights); and tonight's answers.
        """
        said = self.answered([*held_out, *earlier])
        parts = {"held_out": said[: len(held_out)], "retention": said[len(held_out) :]}
        shares = {name: sum(right for _, right in part) / len(part) for name, part in parts.items() if part}
        shares |= {f"{name}_n": len(part) for name, part in parts.items()}
        return shares, parts["held_out"]

    def answered(self, items: Sequence[SyntheticExample]) -> list[Answer]:
        """Return what the model says to each item, decoded greedily, and its score."""
        kinds = [self.kind_of(item) for item in items]
        long = [len(text_ids(self.tokenizer, item.span)) for item, kind in zip(items, kinds, strict=True) if kind == "chrf"]
        limit = max(self.config.max_new_tokens, min(max(long, default=0), LONGEST_ANSWER))
        rows = generate(self.model, self.tokenizer, [chat_ids(self.tokenizer, item.prompt) for item in items], limit)
        answers = [decode(self.tokenizer, row) for row in rows]
        return [(answer, self.score(item, answer)) for item, answer in zip(items, answers, strict=True)]

    def kind_of(self, item: SyntheticExample) -> str:
        """Return how answers to an item are scored."""
        if item.style == "written":
            return self.config.answer_score
        return "chrf" if max(len(item.span.split()), word_count(item.span)) > SHORT_ANSWER else CONTAINED

    def score(self, item: SyntheticExample, answer: str) -> float:
        """Score an answer to an item of the model's own, from 0 to 1."""
        return score(self.kind_of(item), answer, item.span, language_of(f"{item.prompt} {item.reply}", ENGLISH))

    def keep_back(self, items: Sequence[SyntheticExample], told: Collection[str] = ()) -> list[SyntheticExample]:
        """Choose questions for the gate, spread evenly over those that can be asked; something new is left to learn.

        Those whose answer the fewest sentences of the document hold are asked first: what all of it is about is in every reply,
        so that a model which learned nothing but that would be right.

        Args:
            items: of tonight.
            told: replies of older versions of today's documents; what a newer version says for the first time is asked first.
        """
        askable = list(filter(self._can_be_asked, items))
        fresh = [item for item in askable if item.reply not in told] or askable
        number = min(QUIZ_ITEMS, max(len(fresh) // 8, min((len(fresh) + 1) // 2, LEAST_QUIZ)))
        chosen = _spread(fresh, _telling(fresh, items), number)
        return chosen if len(chosen) < sum(item.role == "new" for item in items) else chosen[1:]

    def _can_be_asked(self, item: SyntheticExample) -> bool:
        """Whether an item is a question of tonight with an answer, to which the reply that is taught is right."""
        is_question = item.style in QUIZ_STYLES or (item.style == "cloze" and GAP in item.prompt)
        return item.role == "new" and is_question and self.score(item, item.reply) == 1


def _telling(asked: Sequence[SyntheticExample], items: Sequence[SyntheticExample]) -> list[int]:
    """In how many sentences of its document the answer to each question stands, or a pronoun that stands for it."""
    contexts: dict[str, dict[str, None]] = defaultdict(dict)  # sets that keep their order
    for item in items:
        if item.role == "new":
            contexts[item.source][item.context] = None
    languages = {source: language_of(" ".join(parts), ENGLISH) for source, parts in contexts.items()}
    documents = {source: _understood_alone(parts, languages[source]) for source, parts in contexts.items()}
    answers = {(item.source, item.span) for item in asked}
    counts = {
        (source, span): sum(contained(sentence, span, languages[source]) for sentence in documents[source])
        for source, span in answers
    }
    return [max(1, counts[item.source, item.span]) for item in asked]


def _understood_alone(contexts: Collection[str], language: str) -> list[str]:
    """The sentences of a document, with what the pronouns stand for that begin them."""
    alone: list[str] = []
    subject = ""
    for sentence in (sentence for context in contexts for sentence in sentences(context)):
        alone.append(resolved(sentence, subject) if language == ENGLISH else sentence)
        subject = antecedent_of(sentence, subject)
    return alone


def _spread(asked: Sequence[SyntheticExample], counts: Sequence[int], number: int) -> list[SyntheticExample]:
    """``number`` questions in their order: of the lowest counts all, and of the last that is needed some, spread evenly."""
    chosen: list[int] = []
    for count in sorted(set(counts)):
        alike = [k for k, one in enumerate(counts) if one == count]
        chosen += evenly(alike, number - len(chosen))
    return [asked[k] for k in sorted(chosen)]


def compared(items: Sequence[SyntheticExample], before: Sequence[Answer], after: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return a row for each question of the test: the answers before and after a night, and whether they are right."""
    return [
        {"question": item.prompt, "gold": item.span, "before": first, "after": last}
        | {"right_before": right_first, "right_after": right_last}
        for item, (first, right_first), (last, right_last) in zip(items, before, after, strict=True)
    ]
