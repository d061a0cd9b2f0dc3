"""Whatever ends a command is one last line with an exit code; the traceback comes when it is asked for."""

import errno
import os
import signal
import subprocess
import sys
import time
import zlib

import pytest

from sleepkit.errors import SleepkitError, show_tracebacks
from sleepkit.runs.guard import guard


def raising(error):
    def command():
        raise error

    return command


def last_line(capsys):
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    return shown.err.strip()


def deep(level=0):
    return deep(level + 1)


class OutOfMemoryError(RuntimeError):
    """As torch calls that of a GPU."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SleepkitError("two\nlines"), 2, "sleepkit: error: two lines"),
        (
            OSError(errno.ENOSPC, "No space left on device", "run/a.json"),
            1,
            "No space left on device: run/a.json; free some space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 1, "Permission denied: a; check the file"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a", None, "b"), 1, "Is a directory: a -> b"),
        (OSError("odd"), 1, "OSError: odd"),
        (MemoryError(), 1, "out of memory (MemoryError); use smaller batches"),
        (OutOfMemoryError("CUDA out of memory. Tried\nmore"), 1, "out of memory (CUDA out of memory. Tried)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory ("),
        (
            RuntimeError("[gloo/pair.cc:553] Connection closed by peer [10.0.0.1]:1"),
            1,
            "another process of the run is gone, killed",
        ),
        (zlib.error("Error -3 while decompressing data"), 1, "error: Error -3 while decompressing data"),
        (EOFError(), 1, "EOFError; nobody has foreseen this: --traceback shows where"),
        (UnicodeEncodeError("utf-8", "a\udc80", 1, 2, "surrogates not allowed"), 1, "UnicodeEncodeError: "),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero; nobody has foreseen this"),
        (AssertionError(), 1, "AssertionError; nobody has foreseen this"),
        (KeyError("x"), 1, "KeyError: 'x'"),
        (ValueError("x" * 10_000), 1, "xxx ..."),
        (KeyboardInterrupt(), 130, "sleepkit: interrupted; the same command continues"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "Broken pipe"),  # of another pipe than our output
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_one_line(error, code, words, capsys):
    assert guard(raising(error)) == code
    line = last_line(capsys)
    assert words in line and len(line) < 700


def test_recursion(capsys):
    assert guard(deep) == 1
    assert "RecursionError" in last_line(capsys)


def test_the_traceback_when_asked(capsys, monkeypatch):
    def asked():
        show_tracebacks()
        raise ZeroDivisionError("zero")

    assert guard(asked) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "in asked" in said and said.splitlines()[-1].startswith("sleepkit: error: ZeroDivisionError")
    assert guard(raising(ZeroDivisionError("zero"))) == 1  # the next command is not asked
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("SLEEPKIT_TRACEBACK", "1")
    assert guard(raising(SleepkitError("mine"))) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("SLEEPKIT_TRACEBACK", "0")
    assert guard(raising(SleepkitError("mine"))) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_other_processes_of_a_machine_speak_of_their_own_faults_only(capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert guard(raising(SleepkitError("no"))) == 2
    assert capsys.readouterr().err == ""
    assert guard(raising(ZeroDivisionError("zero"))) == 1
    assert last_line(capsys).endswith("(process 1)")


def test_the_handler_of_a_signal_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    assert guard(lambda: None) == 0 and guard(raising(ValueError("x"))) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def run(code, **options):
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], **options.pop("env", {})}
    program = f"import sys, time\nfrom sleepkit.runs.guard import guard\n{code}"
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True, **options)


def test_sigterm_is_as_clean_as_an_interrupt(tmp_path):
    code = f"""
def wait():
    try:
        print("there", flush=True)
        time.sleep(60)
    finally:
        open({str(tmp_path / "tidied")!r}, "w").close()
sys.exit(guard(wait))"""
    with run(code, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "there\n"
        process.terminate()
        assert process.wait(30) == 143
        assert process.stderr.read().strip() == "sleepkit: terminated; the same command continues a run where it stopped"
    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_umlauts_on_a_terminal_that_has_none(environment):
    code = "sys.exit(guard(lambda: (print('gr\\u00fcn'), print('\\u2013 \\udc80', file=sys.stderr), 1 // 0)))"
    with run(code, env=environment, stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1 and out == "gr\\xfcn\n"
    assert err.splitlines()[0] == "\\u2013 \\udc80" and "ZeroDivisionError" in err.splitlines()[-1]


def test_nobody_reads():
    """As in `sleepkit report runs | head -1`: silent, and at once."""
    code = "sys.exit(guard(lambda: [print('x' * 1000, flush=True) for _ in range(100_000)]))"
    started = time.monotonic()
    with run(code, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141 and process.stderr.read() == ""
    assert time.monotonic() - started < 30


def test_a_full_disk_below_the_output():
    with open("/dev/full", "w") as full, run("sys.exit(guard(lambda: print('x')))", stdout=full) as process:
        assert process.wait(30) == 1
        assert "No space left on device; free some space" in process.stderr.read()
