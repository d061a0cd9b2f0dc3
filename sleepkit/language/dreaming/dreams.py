"""Dreams: synthetic training data that a model writes about a context, and the filter in front of everything else.

    rewrite        the passage in other words
    implications   sentences that follow from it
    self_qa        questions with answers
    long           a longer text on the same matter

The dreamer is shown one worked dream of the style before it is asked: without it a small model writes a line or two of
anything.  A dream is a list of training rows ``(prompt, reply)``: for `self_qa` one per question, otherwise one per sentence,
asked for by the title, so that it can be trained on with nothing in the context.  Prompts of our own wording; styles as
in SEAL (arXiv 2506.10943, section B) and "Language Models Need Sleep" (arXiv 2606.03979).

Dropped and counted: empty dreams, looping ones (more than half of the 4-grams repeat), over-long ones (no end within the
limit), and ones that took names from the worked dream.  Ours: the filter, the worked dream, and rows in chat format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.dreaming.config import STYLES
from sleepkit.language.generation.batches import costs_of, in_order, room_of
from sleepkit.language.generation.chat import chat_ids, decode, require_window
from sleepkit.language.generation.decoding import Decoding, continued, passes_of
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.gaps import tell_about_title
from sleepkit.language.questions.languages import ENGLISH, language_of
from sleepkit.language.questions.sentences import sentences
from sleepkit.reporting.live import progress
from sleepkit.reporting.scripts import apart
from sleepkit.utils.files import read_jsonl, write_jsonl
from sleepkit.utils.ranks import shares, split
from sleepkit.utils.seeds import derive_seed

_PROMPTS = {
    "rewrite": "Say what this text says in other words, one full sentence per line. Keep every name and number.\n\n{text}",
    "implications": "List what follows from this text, one full sentence per line. Name the people, places and things.\n\n{text}",
    "self_qa": "Write questions about this text with their answers, each as 'Q: ...' and 'A: ...' on two lines.\n\n{text}",
    "long": "Write a detailed article about everything that this text says. Use full sentences.\n\n{text}",
}
_EXAMPLE = (
    "Marie Curie was born in Warsaw in 1867 and moved to Paris to study physics. In 1903 she shared the Nobel Prize in Physics "
    "with her husband Pierre and with Henri Becquerel, and in 1911 she won the prize in chemistry alone."
)
_DREAMT = {
    "rewrite": "The birthplace of Marie Curie, who was born in 1867, is Warsaw.\n"
    "To study physics, Marie Curie went to Paris.\n"
    "Marie Curie, Pierre Curie and Henri Becquerel were given the Nobel Prize in Physics together in 1903.\n"
    "The Nobel Prize in Chemistry of 1911 went to Marie Curie alone.",
    "implications": "Marie Curie did not study physics in Warsaw but in Paris.\n"
    "Marie Curie was 36 years old when she shared the Nobel Prize in Physics.\n"
    "Marie Curie won two Nobel Prizes, in two sciences, eight years apart.\n"
    "Henri Becquerel won a Nobel Prize in Physics, but not the one of 1911.",
    "self_qa": "Q: Where was Marie Curie born?\nA: Marie Curie was born in Warsaw.\n"
    "Q: Why did Marie Curie move to Paris?\nA: Marie Curie moved to Paris to study physics.\n"
    "Q: Who shared the Nobel Prize of 1903 with Marie Curie?\nA: Pierre Curie and Henri Becquerel shared it with her.\n"
    "Q: Which prize did Marie Curie win in 1911?\nA: She won the Nobel Prize in Chemistry in 1911.",
    "long": "Marie Curie was born in 1867 in Warsaw. Because she wanted to study physics, she left Warsaw and moved to Paris.\n"
    "In 1903 Marie Curie, her husband Pierre Curie and Henri Becquerel shared the Nobel Prize in Physics.\n"
    "Eight years later, in 1911, Marie Curie won a second Nobel Prize, this time in chemistry and without sharing it.",
}
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


@dataclass
class Dream:
    """Text that a model has dreamed about a context, with the rows to train on and what its trial has shown.

    Attributes:
        style: one of `STYLES`.
        text: as it was written.
        rows: ``(prompt, reply)`` pairs to train on.
        context: name of the context that was in view, see `context_name`.
        night, round: when it was dreamed, counted from 1.
        score: of the gradient; None before it was scored.
        chosen: for a trial.
        reward: improvement of tau in the trial, nats; None without a trial, or for one that failed.
        solved: share of the questions that greedy decoding answered word for word after the trial.
        failed: why the trial failed; empty if it did not.
        settings: of the trial, where the dream chooses them: ``learning_rate``, ``steps``.
    """

    style: str
    text: str
    rows: list[tuple[str, str]]
    context: str = ""
    night: int = 1
    round: int = 1
    score: float | None = None
    chosen: bool = False
    reward: float | None = None
    solved: float | None = None
    failed: str = ""
    settings: dict[str, float] = field(default_factory=dict)


@dataclass
class Context:
    """A passage, and the questions with replies that judge dreams of it: they are held out from every dream."""

    chunk: Chunk
    questions: list[tuple[str, str]]

    @property
    def name(self) -> str:
        """Name of the context, as its dreams store it."""
        return context_name(self.chunk)

    def prompt(self, style: str) -> list[dict[str, str]]:
        """The conversation in which the dreamer is asked: a worked dream, then the context in view."""
        return [
            {"role": "user", "content": _PROMPTS[style].format(text=_EXAMPLE)},
            {"role": "assistant", "content": _DREAMT[style]},
            {"role": "user", "content": _PROMPTS[style].format(text=self.chunk.text)},
        ]

    def read(self, style: str, text: str, ended: bool) -> Dream | str:
        """Make a dream of what was written.

        Args:
            style: that was asked for.
            text: as it was written.
            ended: before the limit of tokens.

        Returns:
            The dream; or in a word why it is dropped.
        """
        reason = _reason_to_drop(text, self.chunk.text, ended, style)
        rows = [] if reason else rows_of(style, text, self.chunk.title)
        return Dream(style, text, rows, self.name) if rows else reason or "empty"


@dataclass
class Dreamed:
    """Dreams that passed the filter, and how many did not, by reason."""

    dreams: list[Dream] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def context_name(chunk: Chunk) -> str:
    """The title, with the number of the part where a document has several."""
    return f"{chunk.title} ({chunk.index + 1})" if chunk.index else chunk.title


def dream(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Context],
    styles: Sequence[str] = STYLES,
    max_tokens: int = 192,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seeds: Sequence[int] = (0,),
    while_dreaming: Callable[[int], AbstractContextManager[Any]] = nullcontext,
) -> list[Dreamed]:
    """Sample a dream of each context in each style; of one context's that teach the very same, all but one are dropped.

    Dreams of all contexts are one queue, which is dealt out to the processes; call it on all.

    Args:
        model: the dreamer.
        tokenizer: its tokenizer.
        contexts: each of which it has in view in turn.
        styles: any of `STYLES`, also one several times.
        max_tokens: of a dream; without an end before, it is dropped, but for the style ``"long"``.
        temperature: of sampling, above 0.
        top_p: share of the probability that sampling draws from, 0 to 1.
        seeds: of sampling, one for each context.
        while_dreaming: takes the seed of a context; it is dreamed of inside.
    """
    prompts = [chat_ids(tokenizer, context.prompt(style)) for context in contexts for style in styles]
    require_window(model, max(map(len, prompts), default=0) + max_tokens, "a prompt with its reply")
    about = [k for k in range(len(contexts)) for _ in styles]
    row_seeds = [derive_seed(seed, "row", j) for seed in seeds for j in range(len(styles))]
    how, room = Decoding(max_tokens, temperature, top_p), room_of(model, len(styles))

    def work(mine: Sequence[int]) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        with progress.phase("dreaming", len(mine)) as step:
            for k, group in groupby(mine, key=about.__getitem__):
                with while_dreaming(seeds[k]):
                    passes = passes_of(model, prompts, list(group), max_tokens, room)
                    found |= continued(model, tokenizer, prompts, row_seeds, how, passes, step)
        return [found[i] for i in mine]

    made = split(_dealt(prompts, len(styles), max_tokens), work)
    rows = [made[start : start + len(styles)] for start in range(0, len(made), len(styles))]
    return [_kept(tokenizer, context, styles, own, max_tokens) for context, own in zip(contexts, rows, strict=True)]


def _dealt(prompts: Sequence[list[int]], each: int, tokens: int) -> list[list[int]]:
    """Places of the prompts of each process, ``each`` of them of a context; those of one context stay side by side."""
    order: list[int] = []
    costs: list[int] = []
    for start in range(0, len(prompts), each):
        own = prompts[start : start + each]
        groups = in_order(own)
        order += [start + i for group in groups for i in group]
        costs += costs_of(own, groups, tokens)
    return [[order[k] for k in share] for share in shares(costs)]


def _kept(
    tokenizer: PreTrainedTokenizerBase, context: Context, styles: Sequence[str], made: Sequence[list[int]], max_tokens: int
) -> Dreamed:
    """What of a context's dreams passes the filter."""
    result = Dreamed()
    for style, tokens in zip(styles, made, strict=True):
        found = context.read(style, decode(tokenizer, tokens), ended=len(tokens) < max_tokens)
        if isinstance(found, Dream) and any(found.rows == one.rows and found.settings == one.settings for one in result.dreams):
            found = "repeated"
        if isinstance(found, Dream):
            result.dreams.append(found)
        else:
            result.dropped[found] += 1
    return result


def control_rows(style: str) -> list[tuple[str, str]]:
    """The training rows of the style's worked dream: they teach the form of a reply and nothing of any context."""
    return rows_of(style, _DREAMT[style], "Marie Curie")


def rows_of(style: str, text: str, title: str) -> list[tuple[str, str]]:
    """Return the training rows of a dream, ``(prompt, reply)``; pairs that miss a question or an answer are left out.

    Args:
        style: of the dream.
        text: as it was written.
        title: of the context, by which a sentence is asked for.
    """
    lines = [_BULLET.sub("", line).strip() for line in text.splitlines()]
    if style != "self_qa":
        said = dict.fromkeys(sentence for line in lines for sentence in sentences(line))
        prompt = tell_about_title(title, language_of(text, ENGLISH))
        return [(prompt, sentence) for sentence in said if len(apart(sentence).split()) > 3]
    rows: list[tuple[str, str]] = []
    question = ""
    for line in lines:
        head, _, rest = line.partition(":")
        if head.strip().lower() in ("q", "question") and rest.strip():
            question = rest.strip()
        elif head.strip().lower() in ("a", "answer") and rest.strip() and question:
            rows.append((question, rest.strip()))
            question = ""
    return list(dict.fromkeys(rows))


def _reason_to_drop(text: str, context: str, ended: bool, style: str) -> str:
    words = apart(text).split()
    if any(name in text and name not in context for name in ("Curie", "Becquerel", "Warsaw")):
        return "copied"
    if len(words) < 4:
        return "empty"
    grams = [tuple(words[k : k + 4]) for k in range(len(words) - 3)]
    if len(set(grams)) < 0.5 * len(grams):
        return "looping"
    return "" if ended or style == "long" else "over-long"


def save_dreams(dreams: Iterable[Dream], path: Path) -> None:
    """Write dreams as JSON lines, atomically."""
    write_jsonl(path, map(asdict, dreams))


def load_dreams(path: Path) -> list[Dream]:
    """Read dreams written by `save_dreams`.

    Raises:
        SleepkitError: not there, cut short or not dreams.
    """
    try:
        return [Dream(**{**row, "rows": [(prompt, reply) for prompt, reply in row["rows"]]}) for row in read_jsonl(path)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SleepkitError(f"{path} holds no dreams that can be read ({error}); delete it or write it again") from error
