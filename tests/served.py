"""`sleepkit serve` as a process of its own, for tests that ask it and end it."""

import contextlib
import os
import re
import signal
import time

from launch import Pipes, command, fork, preload


class Server:
    """A process that serves, at a free port.

    Attributes:
        port: that it listens at.
        said: what it has printed, once it has ended.
    """

    def __init__(self, *words, **environment):
        preload()
        self.words = [*map(str, words), "--port", "0"]
        self.environment = environment

    def __enter__(self):
        self.pipes = Pipes().__enter__()
        serve = command("sleepkit", "serve", *self.words)
        self.process = fork(lambda: os.environ.update(self.environment) or serve(), *self.pipes.files)
        self.code = None
        self.port = int(self.wait_for(r"answers at http://\S+:(\d+)/v1")[1])
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    @property
    def said(self):
        return "".join(self.pipes.read())

    def wait_for(self, pattern, seconds=400):
        """The match of a pattern in what is printed, once it is there."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said)):
            assert time.monotonic() < until and not self._ended(), f"{pattern!r} is not in {self.said!r}"
            time.sleep(0.02)
        return found

    def end(self, number=signal.SIGTERM):
        """Send a signal; returns the exit code."""
        os.kill(self.process, number)
        until = time.monotonic() + 400
        while not self._ended():
            assert time.monotonic() < until, f"goes on: {self.said!r}"
            time.sleep(0.02)
        return self.code

    def _ended(self):
        if self.code is None:
            done, status = os.waitpid(self.process, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code is not None

    def __exit__(self, *_):
        if not self._ended():
            with contextlib.suppress(OSError):
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
        self.pipes.__exit__()
