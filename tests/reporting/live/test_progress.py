"""Progress: lines in a log, a live view in a terminal that is left as it was found, and no library in between."""

import io
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from sleepkit.reporting.live import observer, progress
from sleepkit.reporting.live.observer import observe

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_without_a_terminal(clock, capsys):
    with progress.shown():
        progress.say("night 1/2: a.md")
        with progress.phase("writing questions", 400) as step:
            for _ in range(400):
                clock[0] += 0.5
                step(loss=1.23456)
        with progress.phase("short", 4) as step:
            step(4)
    assert capsys.readouterr().out.splitlines() == [
        "night 1/2: a.md",
        *(
            f"writing questions: {k} of 400, loss 1.23, about {left} left"
            for k, left in zip(range(60, 361, 60), LEFT, strict=True)
        ),
        "writing questions: 400 of 400, loss 1.23 after 3 min 20 s",
    ]


LEFT = ("2 min 50 s", "2 min 20 s", "1 min 50 s", "1 min 20 s", "50.0 s", "20.0 s")


def test_at_most_one_line_in_its_time_over_all_phases(clock, capsys):
    with progress.shown(), progress.phase("outer", 1000) as outer, progress.phase("inner", 1000) as inner:
        for _ in range(1000):
            clock[0] += 0.1
            inner()
            outer()
    steps = [line for line in capsys.readouterr().out.splitlines() if " after " not in line]
    assert len(steps) == 3  # of 100 seconds


def test_a_phase_that_nobody_closed_ends_with_the_one_around_it(clock, capsys):
    with progress.shown(), progress.phase("night") as night:
        lost = progress.begin("training", 10)
        clock[0] += 40
        lost()
        night.close()
        assert lost.view.open == []
    assert "training: 1 of 10 after 40.0 s" in capsys.readouterr().out


def test_time_left_is_known_after_a_few_steps(clock):
    with progress.phase("x", 10) as step:
        clock[0] += 2
        step()
        assert step.left is None
        step(2)
        assert step.left == pytest.approx(2 / 3 * 7)
    resumed = progress.begin("x", 10, done=4)  # an earlier session's steps say nothing of the pace
    clock[0] += 3
    resumed(3)
    assert resumed.left == pytest.approx(3)
    resumed.close()
    with progress.phase("endless") as step:
        step(5)
        assert step.left is None


def test_only_the_main_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with progress.shown():
        progress.say("hello")
    progress.say("hello")
    assert capsys.readouterr().out == ""


def test_what_a_terminal_would_obey_is_not_shown(capsys):
    progress.say("a\x1b[2Jb\x07\rc\udcff ü")
    assert capsys.readouterr().out == "a\ufffd[2Jb\ufffd\ufffdc\ufffd ü\n"


def test_letters_that_the_terminal_does_not_have(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    progress.say("Hafenwärter")
    assert stream.buffer.getvalue() == b"Hafenw?rter\n"


def test_a_closed_pipe_does_not_end_a_run(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with progress.shown(), progress.phase("x", 1) as step:
        progress.say("hello")
        step()


def test_libraries_are_quiet_and_our_warnings_are_shown_once(capsys, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    loud, ours = logging.getLogger("transformers.some"), logging.getLogger("sleepkit.some")
    level = logging.getLogger("transformers").level
    late = logging.getLogger("DeepSpeed")
    with progress.shown():
        late.setLevel(logging.INFO)  # as it does when it is imported
        late.warning("Setting accelerator to CPU")
        loud.warning("use fast processors")
        warnings.warn("deprecated", FutureWarning, stacklevel=1)
        for _ in range(3):
            ours.warning("packing is not exact")
        ours.warning("another")
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["warning: packing is not exact", "warning: another"] and shown.err == ""
    assert logging.getLogger("transformers").level == level and not logging.getLogger("sleepkit").handlers
    with pytest.warns(FutureWarning):
        warnings.warn("deprecated", FutureWarning, stacklevel=1)


def test_a_library_that_was_asked_to_speak_does(monkeypatch):
    monkeypatch.setenv("TRL_VERBOSITY", "info")
    before = logging.getLogger("trl").level
    with progress.shown():
        assert logging.getLogger("trl").level == before and logging.getLogger("peft").level == logging.ERROR


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        loss = (self.weight - x).pow(2).mean()
        return {"loss": loss}


def linear_trainer(folder, **options):
    args = TrainingArguments(
        str(folder), max_steps=6, logging_steps=2, use_cpu=True, save_strategy="no", per_device_train_batch_size=1, **options
    )
    return Trainer(Linear(), args, train_dataset=[{"x": torch.ones(2)}] * 8)


@pytest.mark.parametrize("plain", [True, False])
def test_a_trainer_prints_nothing_of_its_own(plain, tmp_path, capsys):
    with progress.shown():
        trainer = linear_trainer(tmp_path, disable_tqdm=plain)
        observe(trainer, "training")
        trainer.train()
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""


def test_a_trainer_that_is_used_alone_keeps_what_it_prints(tmp_path, capsys):
    trainer = linear_trainer(tmp_path, disable_tqdm=True)
    observe(trainer, "training")
    trainer.train()
    assert "'loss'" in capsys.readouterr().out


def test_a_long_training_says_how_long_after_a_few_steps(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(observer, "LONG", 0.0)
    with progress.shown():
        trainer = linear_trainer(tmp_path)
        observe(trainer, "training")
        trainer.train()
    assert re.fullmatch(r"training: about \S+ s for 1 step, \S+ s each; at most \S+ GiB so far\n", capsys.readouterr().out)


# -- in a terminal ------------------------------------------------------------------------------------------------------
SCRIPT = """
import time, sys
from sleepkit.reporting.live import progress
print("before")
with progress.shown(plain={plain}):
    progress.say("night [bold]1[/bold]/2: a.md")
    with progress.phase("writing questions", 40) as step:
        for k in range(40):
            step(loss=1.5)
            time.sleep(0.02)
            if k == 20:
                progress.say("a line in between")
                print("printed by a library")
    with progress.phase("training", 1000) as step:
        step()
        {then}
print("after")
"""


class Terminal:
    """A process in a pseudo-terminal, and what its screen shows."""

    def __init__(self, script):
        self.main, end = pty.openpty()
        self.modes = termios.tcgetattr(end)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        environment.pop("RANK", None)
        script = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{script}"  # a shell's jobs ignore it
        line = [sys.executable, "-c", script]
        self.process = subprocess.Popen(line, stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True)
        self.end, self.raw = end, b""

    def read(self, until=None, seconds=120.0):
        """Read what is written until it holds some text, or the process has ended."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and not (until and until in self.raw):
            ready, _, _ = select.select([self.main], [], [], 0.1)
            if ready:
                self.raw += os.read(self.main, 65536)
            elif self.process.poll() is not None:
                break
        return self.raw.decode()

    def screen(self):
        """The lines that are left to be seen."""
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", self.raw.decode()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif part.startswith("\x1b["):
                if part.endswith("A"):
                    row -= int(part[2:-1] or 1)
                elif part.endswith("K"):
                    lines[row] = ""
            else:
                lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines if line.strip()]

    def as_found(self):
        """Whether the terminal is in its first modes, with a cursor."""
        return termios.tcgetattr(self.end) == self.modes and "\x1b[?25l" not in self.raw.decode()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.main)
        os.close(self.end)


@pytest.fixture
def terminal():
    opened = []

    def start(**parts):
        opened.append(Terminal(SCRIPT.format(**{"plain": False, "then": "pass", **parts})))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


LINES = ["night [bold]1[/bold]/2: a.md", "a line in between", "printed by a library"]


def test_live_view_shows_the_phase_and_ends_cleanly(terminal):
    view = terminal()
    raw = view.read()
    assert view.process.wait(60) == 0
    assert "writing questions" in raw and "loss 1.5" in raw and "left" in raw and re.search(r"\d+ of 40", raw)
    assert view.screen() == ["before", *LINES, "after"]
    assert view.as_found()


def test_plain_view_in_a_terminal(terminal):
    view = terminal(plain=True)
    assert view.read().splitlines() == ["before", *LINES, "after"] and "\x1b" not in view.raw.decode()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, kind):
    view = terminal(then="progress.say('ready'); time.sleep(300)")
    view.read(until=b"ready")
    time.sleep(0.5)
    view.process.send_signal(kind)
    view.read()
    assert view.process.wait(60) in (-kind, 1, 130)
    assert view.as_found()
    assert view.screen()[:4] == ["before", *LINES]
    if kind == signal.SIGINT:
        assert view.screen()[-1].startswith("KeyboardInterrupt") and "training" not in view.screen()
