"""`sleepkit serve`: a model at an address, until Ctrl-C or SIGTERM ends it.

    with --remember     `SleepChat` in the folder of a run, which it holds: what is said is kept, and nights may learn it
    without             the model as `sleepkit ask` loads it; nothing is kept or written, and several may serve one run

The main thread is the model's (desk.py), another one the web's.

`transformers serve` cannot do this: its handlers load and generate by themselves, so that experts would have to be plain first
(`sleepkit publish`), templates would be rendered with today's date and without `PromptFormat`, and nothing could keep what is
said, sleep, or stop a reply whose reader has gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError, first_line
from sleepkit.reporting.live import progress
from sleepkit.runs.arguments.run_of import beginning_of, is_run
from sleepkit.runs.arguments.serve import KEY, ServeArguments
from sleepkit.runs.chat import chat_of
from sleepkit.utils.sealed import locked

if TYPE_CHECKING:
    from sleepkit.runs.serving.desk import Desk
    from sleepkit.trainers.config import SleepConfig

__all__ = ["listening", "name_of", "run_serve", "web"]

GRACE = 3  # seconds that answers on their way have when the server ends


def run_serve(args: ServeArguments, config: SleepConfig) -> None:
    """Answer requests until Ctrl-C or SIGTERM.

    Raises:
        SleepkitError: a package is missing, the address is taken or unknown, the model or options cannot be used, or the folder
            belongs to another run or is in use.
    """
    _require_packages()
    from sleepkit.runs.serving.app import LOOPBACK, Api

    key = args.key
    with ExitStack() as stack:
        place = stack.enter_context(listening(args.host, args.port))  # before a model is loaded for nothing
        if args.remember:
            stack.enter_context(locked(Path(str(config.output_dir))))
        with progress.shown(plain=bool(config.disable_tqdm)):
            desk = _kept(args, config) if args.remember else _plain(args, config)
        hosts = {*LOOPBACK, args.host} if args.host in LOOPBACK else None
        api = Api(desk, name_of(args.run), [args.run], key, hosts)
        stack.enter_context(_ended_by_sigterm())
        try:
            with web(api.app, place):
                _greet(args, desk, place, key is not None or hosts is not None)
                try:
                    desk.work()
                finally:
                    desk.close()
        except KeyboardInterrupt:
            print("ended" if desk.chat is None else f"ended; today is kept in {desk.chat.today.path}", flush=True)


def name_of(run: str) -> str:
    """The name of a model for clients: a Hub id, or a folder without those above it."""
    return Path(os.path.abspath(run)).name if Path(run).is_dir() else run


def _require_packages() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SleepkitError(f"sleepkit serve needs {error.name}; pip install 'sleepkit[serve]'") from None


# -- the model --------------------------------------------------------------------------------------------------------
def _kept(args: ServeArguments, config: SleepConfig) -> Desk:
    from sleepkit.runs.serving.desk import Desk

    chat = chat_of(args, config)
    return Desk(chat.model, chat.processing_class, args.reply_tokens, chat, args.period)


def _plain(args: ServeArguments, config: SleepConfig) -> Desk:
    """The model as it is; of a run without a night, what it will begin with."""
    from sleepkit.language.model_io import load_model, move
    from sleepkit.language.models.base_model import find_slept
    from sleepkit.runs.serving.desk import Desk

    name, base = args.run, args.model
    if is_run(Path(name)) and find_slept(name) is None:
        name, config.model_revision = (base, None) if base else beginning_of(Path(name), config.model_revision)
        base = None
    device = config.device
    model, tokenizer = load_model(name, base_model=base, **config.loading())
    move(model, device)
    return Desk(model, tokenizer, args.reply_tokens)


# -- the address ------------------------------------------------------------------------------------------------------
@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens inside the block; raises `SleepkitError` if the address is taken or unknown."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        place = socket.create_server(address[:2], family=family)
    except OSError as error:
        number = error.errno or 0  # below 0 where a name is unknown
        reason = os.strerror(number) if number > 0 else first_line(error).rpartition("] ")[2]
        raise SleepkitError(f"cannot listen at {host}, port {port} ({reason}); give another --port, or --host") from error
    with place:
        yield place


@contextmanager
def web(app: Any, place: socket.socket) -> Iterator[None]:
    """Inside the block an application answers at a socket, in a thread of its own."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,  # nothing of what is said or asked is printed
            log_level="critical",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, name="web", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the server as Ctrl-C does, inside the block."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _greet(args: ServeArguments, desk: Desk, place: socket.socket, is_guarded: bool) -> None:
    """Say who answers where, and what is kept."""
    host, port = place.getsockname()[:2]
    print(f"{args.run} answers at http://{f'[{host}]' if ':' in host else host}:{port}/v1 as {name_of(args.run)}; Ctrl-C ends it")
    if desk.chat is None:
        print("Nothing that is said is kept; --remember true keeps it for a night.", flush=True)
    else:
        print(f"What users say is kept in {desk.chat.today.path.absolute()} until the night; nothing is uploaded.", flush=True)
    if not is_guarded:
        print(f"sleepkit: whoever reaches {host} can ask; let clients send a key ({KEY})", file=sys.stderr, flush=True)
