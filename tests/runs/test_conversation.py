"""`sleepkit chat` as it is typed: through a terminal, through a pipe, and command by command."""

import contextlib
import io
import os
import pty
import re
import select
import signal
import sys
import time

import pytest
from launch import holding, preload
from talk_tiny import CAT, RECIPE

from sleepkit import cli
from sleepkit.cycle.state import CycleState
from sleepkit.errors import SleepkitError
from sleepkit.language.generation.streaming import Reply
from sleepkit.runs.chat import Conversation
from sleepkit.trainers.life import lived
from sleepkit.trainers.outputs import Night
from sleepkit.trainers.today import TODAY, Today
from sleepkit.utils.states import newest_state

pytestmark = pytest.mark.usefixtures("undrawn")


def piped(monkeypatch, lines, *words):
    """Give a command these lines to read; returns its exit code."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return cli.main(["chat", *words])


def words_of(folder):
    return [document for one in lived(folder)[0] for document in one.documents]


# -- through a terminal -----------------------------------------------------------------------------------------------
class Terminal:
    """A process that has a terminal, and what it shows there."""

    def __init__(self, *words):
        preload()
        self.shown = ""
        self.process, self.screen = pty.fork()
        if not self.process:
            self._run(words)

    def _run(self, words):
        code = 70
        try:
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ["TERM"] = "dumb"
            code = cli.main(["chat", *words])
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)

    def type(self, text, end="\n"):
        os.write(self.screen, f"{text}{end}".encode())

    def wait_for(self, pattern, seconds=100):
        """What is shown up to the first match; what comes later is looked at next."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < until, f"{pattern!r} is not in {self.shown!r}"
            if select.select([self.screen], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.screen, 1 << 16).decode("utf-8", "replace")
                except OSError:  # the process has ended
                    assert re.search(pattern, self.shown), f"{pattern!r} is not in {self.shown!r}"
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def interrupt(self, pattern):
        """Press Ctrl-C until it is answered: Python looks for a signal before it waits for a line, not in between."""
        for _ in range(10):
            self.type("", end="\x03")
            with contextlib.suppress(AssertionError):
                return self.wait_for(pattern, seconds=10)
        return self.wait_for(pattern)

    def code(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            os.kill(self.process, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self.process, 0)
        os.close(self.screen)


def test_a_day_in_a_terminal(home):
    with Terminal("base", "--output_dir", "run", "--config", "tiny.yaml", "--compare", "true") as terminal:
        greeting = terminal.wait_for("> ")
        assert "base, 0 nights slept; /help" in greeting
        assert f"kept in {home / 'run' / TODAY} until the night; nothing is uploaded" in greeting.replace("\r\n", "")
        terminal.type(CAT)
        answers = terminal.wait_for("after sleep:  [^\r\n]*\r\n.*> ")
        before, after = re.search(r"before sleep: (.*?)\r\nafter sleep:  (.*?)\r\n", answers).groups()
        assert before == after  # it has not slept
        terminal.type("/remember The bins go out on Thursday.")
        terminal.wait_for("kept as line 2 of today\r\n.*> ")
        terminal.interrupt(r"\(Ctrl-D or /quit ends\)\r\n.*> ")
        terminal.type("/sleep")
        terminal.wait_for(r"night 1 was kept \(no gate\); a new day begins.*\r\n.*> ")
        terminal.type("/history")
        history = terminal.wait_for("nothing was said today\r\n.*> ")
        assert "chat of 20" in history and "kept" in history
        terminal.type("It rains in Orta today.")
        terminal.wait_for("after sleep:  [^\r\n]*\r\n.*> ")
        terminal.type("", end="\x04")
        terminal.wait_for("today is kept in run/today.jsonl; the next chat goes on with it")
        assert terminal.code() == 0
    assert words_of(home / "run") == [f"User: {CAT}\n\nUser: The bins go out on Thursday."]
    with Terminal("run") as terminal:
        greeting = terminal.wait_for("> ")
        assert "1 night slept" in greeting and "Today goes on: 1 lines so far." in greeting
        terminal.type("/quit")
        terminal.wait_for("today is kept")
        assert terminal.code() == 0


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(home):
    more = ("--reply_tokens", "500")
    with Terminal("base", "--output_dir", "run", "--config", "tiny.yaml", *more) as terminal:
        terminal.wait_for("> ")
        terminal.type("Hi")
        terminal.wait_for("Hi\r\n[^\r\n]{2}")  # the answer has begun
        terminal.type("", end="\x03")
        terminal.wait_for(r" \.\.\. \(stopped\)\r\n.*> ")
        terminal.type("/quit")
        terminal.wait_for("today is kept")
        assert terminal.code() == 0
    assert [line.role for line in Today(home / "run", {}).lines] == ["user", "assistant"]


def test_a_chat_that_is_killed_between_two_lines_loses_nothing(home):
    with Terminal("base", "--output_dir", "run", "--config", "tiny.yaml") as terminal:
        terminal.wait_for("> ")
        terminal.type(f"/remember {CAT}")
        terminal.wait_for("kept as line 1")
        terminal.type("It rains in Orta today.")
        terminal.wait_for("today.\r\n[^\r\n]+\r\n.*> ")
        os.kill(terminal.process, signal.SIGKILL)
    with Terminal("run") as terminal:
        terminal.wait_for("Today goes on: 2 lines so far.")
        terminal.wait_for("> ")
        terminal.type("/history")
        history = terminal.wait_for("2  It rains in Orta today.")
        assert f"1  {CAT}" in history and "no night yet" in history


# -- through a pipe ---------------------------------------------------------------------------------------------------
def test_a_pipe_works_line_by_line_and_a_second_start_goes_on(home, monkeypatch, capsys):
    small = ("--config", "tiny.yaml", "--output_dir", "run")
    assert piped(monkeypatch, [CAT, "", "/forget 7", "/nosuch x", "/remember", "/sleep"], "base", *small) == 0
    shown = capsys.readouterr()
    assert "> " not in shown.out and "uploaded" not in shown.out and "night 1 was kept" in shown.out
    errors = [line for line in shown.err.splitlines() if line.startswith("sleepkit: ")]
    assert [line.partition(";")[0] for line in errors] == [
        "sleepkit: today has no line 7",
        "sleepkit: /nosuch is no command of a chat",
        "sleepkit: there is nothing to remember",
    ]
    first = newest_state(home / "run" / "state")
    assert piped(monkeypatch, ["/remember The bins go out on Thursday.", "/sleep", "/quit", "never read"], "run") == 0
    shown = capsys.readouterr()
    assert "night 2 was kept" in shown.out and "2 nights" not in shown.err
    assert words_of(home / "run") == [f"User: {CAT}", "User: The bins go out on Thursday."]
    state = CycleState.load(newest_state(home / "run" / "state"))
    assert state.run["seed"] == 7 and state.run["config"]["expert_width"] == 4  # as the run began, without its recipe
    assert first != newest_state(home / "run" / "state")
    assert piped(monkeypatch, ["Is it raining?"], "run", "--expert_width", "8") == 2
    assert "config.expert_width is 4 there and 8 here" in capsys.readouterr().err


def test_a_chat_goes_on_where_documents_were_read_and_with_a_slept_model(home, monkeypatch, capsys):
    (home / "notes").mkdir()
    (home / "notes" / "ada.md").write_text("Ada keeps a red lamp in the north tower. It was built by Orla Finch in 1871.")
    small = RECIPE.replace("reply_tokens: 8\n", "")
    (home / "sleep.yaml").write_text(small)
    assert cli.main(["sleep", "--model", "base", "--dataset", "notes", "--output_dir", "life", "--config", "sleep.yaml"]) == 0
    monkeypatch.chdir(home / "notes")  # the base is found from everywhere
    assert piped(monkeypatch, [f"/remember {CAT}", "/sleep", "/history"], str(home / "life")) == 0
    assert "ada.md" in capsys.readouterr().out and len(words_of(home / "life")) == 2
    monkeypatch.chdir(home)
    assert piped(monkeypatch, ["/remember It rains in Orta.", "/sleep"], "life", "--output_dir", "hers", *tiny()) == 0
    assert words_of(home / "hers") == ["User: It rains in Orta."] and len(words_of(home / "life")) == 2
    assert piped(monkeypatch, ["/sleep"], "hers") == 0
    assert "nothing was said today that a night could learn" in capsys.readouterr().err


def tiny():
    return ("--config", "tiny.yaml")


def test_two_chats_in_one_folder(home, monkeypatch, capsys):
    with holding(home / "run") as other:
        assert piped(monkeypatch, ["Hi"], "base", "--output_dir", "run", *tiny()) == 2
    assert f"process {other.pid} is working in run" in capsys.readouterr().err and not (home / "run" / TODAY).exists()


def test_a_model_that_is_not_there(home, monkeypatch, capsys):
    assert piped(monkeypatch, ["Hi"], "./nowhere", "--output_dir", "run", *tiny()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sleepkit: error: cannot load") and not (home / "run").exists()


# -- command by command -----------------------------------------------------------------------------------------------
class FakeChat:
    """Answers in capitals, and sleeps at once."""

    def __init__(self, folder, due=(), kept=True):
        self.folder, self.nights_slept, self.kept, self.due = folder, 0, kept, list(due)
        self.today, self.said = Today(folder, {}, now=0.0), []

    def is_due(self, period):
        return bool(self.due and self.due.pop(0))

    def reply(self, line, show):
        self.said.append(line)
        self.today.add("user", line)
        show(line.upper())
        return Reply(line.upper(), line == "stop")

    def remember(self, text):
        self.today.add("remember", text)

    def sleep(self):
        self.said.append("(night)")
        if self.kept is None:
            raise SleepkitError("the disk is full; free some")
        return Night(3, "chat", self.kept, "gain 0.2", {})


def test_a_night_that_is_due_comes_before_the_answer(tmp_path, capsys):
    chat = FakeChat(tmp_path, due=[False, True])
    conversation = Conversation(chat, 60)
    assert conversation.take("one") and conversation.take("two")
    assert chat.said == ["one", "(night)", "two"]
    assert capsys.readouterr().out.splitlines() == [
        "ONE",
        "night 3 was kept (gain 0.2); a new day begins, with nothing in the context",
        "TWO",
    ]


def test_a_night_that_fails_keeps_no_line_from_its_answer(tmp_path, capsys):
    chat = FakeChat(tmp_path, due=[True], kept=None)
    assert Conversation(chat, 60).take("one") and chat.said == ["(night)", "one"]
    shown = capsys.readouterr()
    assert shown.out == "ONE\n" and shown.err == "sleepkit: the disk is full; free some\n"


@pytest.mark.parametrize("line", ["/forget orta", "/history", "/remember It rains.", "/nosuch"])
def test_no_night_comes_before_a_command(tmp_path, line):
    chat = FakeChat(tmp_path, due=[False, True])
    conversation = Conversation(chat, 60)
    conversation.take("I live in Orta.")
    conversation.take(line)
    assert "(night)" not in chat.said  # which would learn what is about to be forgotten


def test_an_undone_night_says_so(tmp_path, capsys):
    Conversation(FakeChat(tmp_path, kept=False)).take("/sleep")
    assert capsys.readouterr().out == "night 3 was undone (gain 0.2); today stays, and the next night tries again\n"


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_the_end(tmp_path, word):
    assert not Conversation(FakeChat(tmp_path, due=[True])).take(word)


def test_what_is_said_and_forgotten(tmp_path, capsys):
    conversation = Conversation(FakeChat(tmp_path))
    for line in ("I live in Orta.", "Where is it?", "/remember The bins: Thursday.", "/forget orta", "/history", "stop", "/help"):
        assert conversation.take(line)
    shown = capsys.readouterr().out
    assert "kept as line 3 of today" in shown and "forgotten: I live in Orta." in shown
    assert (
        f"today, in {tmp_path / TODAY}:\n   1  Where is it?   (states nothing: not learned)\n   2  The bins: Thursday.\n" in shown
    )
    assert "STOP ... (stopped)" in shown and all(f"/{name}" in shown for name in ("remember", "forget", "sleep", "history"))


def test_nothing_that_a_terminal_would_obey_is_printed(tmp_path, capsys):
    conversation = Conversation(FakeChat(tmp_path))
    conversation.take("\x1b[31mred")
    conversation.take("/history")
    assert "\x1b" not in capsys.readouterr().out
