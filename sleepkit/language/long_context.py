"""One long text with facts scattered in it, a part for each night: bAbI's stories among the sentences of another text.

    part k of n    ``words`` words of filler; between its sentences, in their order, statements of all stories
    question       the last one of each story, with the part that holds the last statement that it needs; or where each person is,
                   with the part that says so last

    rows           {title, context, questions: [{question, answer}]}, as `load_experiences` reads them

A story lasts from one random place of the text to another, so that a question may need an old part, or the newest of several
statements; its persons get names that no other story has.  A model whose window holds less than the text cannot answer from
its context.

Sources: bAbI (Weston et al. 2015, arXiv 1502.05698) and BABILong (arXiv 2406.10149), which hides one story in one text.
Ours: many stories in one text, and names for them.  Left out: stories about animals, shapes and directions.
"""

from __future__ import annotations

import bisect
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import shown_path
from sleepkit.language.data.row_files import file_rows
from sleepkit.language.data.unpacking import decoded, file_bytes
from sleepkit.language.questions.english.rules import whereabouts
from sleepkit.language.questions.sentences import sentences
from sleepkit.reporting.scripts import apart
from sleepkit.utils.files import write_jsonl

PERSONS = ("Mary", "John", "Daniel", "Sandra")
NAMES = (
    "Abel Agnes Alma Amos Anita Anton Astrid Basil Beatrix Bertha Bjorn Boris Brenda Bruno Camilla Carlos Cecil Celia Clara "
    "Clive Conrad Cora Cyril Dagmar Dennis Diana Dieter Dora Edgar Edith Edwin Elena Ellis Elmer Elsa Emil Enid Erik Ernest Esme "
    "Esther Ethel Eugene Fabian Felix Fiona Flora Floyd Frieda Gavin Gerda Gilbert Gloria Greta Gustav Hanna Harold Hazel Hector "
    "Heidi Helga Henrik Hilda Hiram Horace Hugo Ida Igor Ilse Ines Ingrid Irma Isaac Ivan Ivor Jasper Joan Jonas Judith Julius "
    "Karin Karl Kirsten Klaus Lars Laura Leah Leon Lionel Lydia Magnus Marta Martin Maud Miriam Moritz Nadia Nathan Nils Nora "
    "Olaf Olga Oscar Otto Paula Percy Petra Phyllis Quentin Ralph Ramona Rita Roland Rosa Rufus Rupert Selma Sigrid Silas Sofia "
    "Stella Sven Sylvia Thea Theo Thora Tobias Ulrich Ursula Vera Victor Viola Wanda Werner Wilma Winston Xenia Yvonne Zelda Zeno"
).split()


def write_long_context(
    stories: Path,
    filler: Path,
    output: Path,
    task: str = "qa1",
    questions: int = 16,
    parts: int = 9,
    words: int = 750,
    seed: int = 0,
    everybody: bool = False,
) -> list[dict[str, Any]]:
    """Write the parts of one long text as .jsonl, and return them.

    Args:
        stories: .jsonl[.gz] of bAbI, ``{task, lines: [{n, t} | {n, q, a, sup}]}``.
        filler: .txt[.gz]; its sentences are taken in order, from a place drawn by ``seed``.
        task: how the names of the tasks to use begin.
        questions: number of stories, of each of which the last question is asked.
        parts: number of parts, of ``words`` words of filler each.
        everybody: ask where each person is, of those that went somewhere, in place of the stories' own questions.

    Raises:
        SleepkitError: unreadable files, rows that are no stories, too few of the task, too little filler, or too many persons for
            our names.
    """
    rng = random.Random(seed)
    for name, number in (("questions", questions), ("parts", parts), ("words", words)):
        if number < 1:
            raise SleepkitError(f"{name} is {number}; give at least 1")
    rows = [row for place, row in file_rows(stories) if _is_story(row, place) and str(row["task"]).split("_")[0] == task]
    if len(rows) < questions:
        raise SleepkitError(f"{stories} has {len(rows)} stories of {task}; ask for at most as many questions, not {questions}")
    if questions * len(PERSONS) > len(NAMES):
        raise SleepkitError(f"questions is {questions}; there are names for {len(NAMES) // len(PERSONS)} stories")
    names = rng.sample(NAMES, questions * len(PERSONS))
    texts = _filler(filler, parts, words, rng)
    placed: list[list[tuple[float, str]]] = [[] for _ in range(parts)]
    asked: list[list[dict[str, str]]] = [[] for _ in range(parts)]
    for number, row in enumerate(rng.sample(rows, questions)):
        own = dict(zip(PERSONS, names[number * len(PERSONS) :], strict=False))
        statements, last = _story(row, own)
        low, high = sorted(rng.random() * parts for _ in range(2))
        places = sorted(rng.uniform(low, high) for _ in statements)
        for place, text in zip(places, statements.values(), strict=True):
            placed[int(place)].append((place % 1, text))
        needed = max(places[bisect.bisect_left(list(statements), line)] for line in last["sup"])
        asked[int(needed)].append({"question": _renamed(last["q"], own), "answer": str(last["a"])})
    if everybody:
        asked = _whereabouts([[text for _, text in sorted(facts)] for facts in placed])
    made = []
    for k, (filling, facts) in enumerate(zip(texts, placed, strict=True)):
        lines = [((i + 0.5) / len(filling), sentence) for i, sentence in enumerate(filling)]
        context = " ".join(text for _, text in sorted([*lines, *facts]))
        made.append({"title": f"Part {k + 1} of {parts}", "context": context, "questions": asked[k]})
    output.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(output, made)
    return made


def _whereabouts(parts: Sequence[Sequence[str]]) -> list[list[dict[str, str]]]:
    """Return for each part the places of statements that no later one moves."""
    last: dict[str, tuple[int, str]] = {}
    for k, statements in enumerate(parts):
        for found in filter(None, map(whereabouts, statements)):
            place, (question, *_) = found
            last[question] = (k, place)
    asked: list[list[dict[str, str]]] = [[] for _ in parts]
    for question, (k, place) in last.items():
        asked[k].append({"question": question, "answer": place})
    return asked


def _is_story(row: Any, place: str) -> bool:
    """True; raises unless a row has a task, and lines of which each states or asks, the last question with its answer."""
    lines = row.get("lines") if isinstance(row, Mapping) and "task" in row else None
    each = lines if isinstance(lines, list) and all(isinstance(line, Mapping) for line in lines) else []
    numbered = [line for line in each if isinstance(line.get("n"), int) and isinstance(line.get("t", line.get("q")), str)]
    asked = [line for line in numbered if "q" in line]
    sound = all("a" in line and isinstance(line.get("sup"), list) and line["sup"] for line in asked)
    if not asked or not sound or len(numbered) < len(each):
        raise SleepkitError(f"{place} is no story; rows are {{task, lines: [{{n, t}} or {{n, q, a, sup}}]}}, with a question")
    return True


def _story(row: Mapping[str, Any], names: Mapping[str, str]) -> tuple[dict[int, str], Mapping[str, Any]]:
    """Statements by their line up to the last question, and that question."""
    last = max((line for line in row["lines"] if "q" in line), key=lambda line: int(line["n"]))
    return {line["n"]: _renamed(line["t"], names) for line in row["lines"] if "t" in line and line["n"] < last["n"]}, last


def _renamed(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\b(" + "|".join(PERSONS) + r")\b", lambda match: names[match[0]], text)


def _filler(path: Path, parts: int, words: int, rng: random.Random) -> list[list[str]]:
    """Draw sentences of a file as filling for each part, of about ``words`` words."""
    text = decoded(file_bytes(path), shown_path(path))
    found = [line for line in sentences(" ".join(text.split())) if 4 <= _words(line) <= 40]
    lengths = list(map(_words, found))
    if sum(lengths) < parts * words:
        raise SleepkitError(f"{path} has {sum(lengths)} words in whole sentences; {parts} parts of {words} need {parts * words}")
    start = rng.randrange(len(found))
    found, lengths = found[start:] + found[:start], lengths[start:] + lengths[:start]
    filled: list[list[str]] = [[] for _ in range(parts)]
    count = 0
    for line, length in zip(found, lengths, strict=True):
        if count >= parts * words:
            break
        filled[count // words].append(line)
        count += length
    return filled


def _words(text: str) -> int:
    """Number of words, or of characters where they do not stand apart."""
    return len(apart(text).split())


def shown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Describe the rows in one line for the terminal."""
    words = sum(_words(str(row["context"])) for row in rows)
    return f"{len(rows)} parts, {words} words, {sum(len(row['questions']) for row in rows)} questions"
