"""A server that is really asked over HTTP, with a tiny model: answers, streams, refusals, its day and its night."""

import contextlib
import json
import socket
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language.generation.chat import chat_ids, reply_texts
from sleepkit.runs.serving import app, desk
from sleepkit.runs.serving.app import Api
from sleepkit.runs.serving.desk import Desk
from sleepkit.runs.serving.serve import listening, web
from sleepkit.trainers.outputs import Night
from sleepkit.trainers.today import Today

ASKED = "who keeps the light?"
QUESTION = [{"role": "user", "content": ASKED}]
CHAT = "/v1/chat/completions"


class FakeChat:
    """A day that is kept in a folder, and nights that last until they are let go."""

    def __init__(self, folder, model):
        self.today = Today(folder, {"seed": 0, "config": {}})
        self.due, self.asleep, self.wake = threading.Event(), threading.Event(), threading.Event()
        self.learner = SimpleNamespace(bank=SimpleNamespace(active=(), view=lambda _: contextlib.nullcontext()))
        self.kept = True

    def is_due(self, period):
        return period is not None and self.due.is_set()

    def sleep(self):
        self.due.clear()
        self.asleep.set()
        assert self.wake.wait(60)
        if self.kept is None:
            raise SleepkitError("the disk is full; free some")
        self.today.begin(())
        return Night(1, "chat", self.kept, "no gate", {})


class Served:
    """A desk and its web side, each in a thread of its own, with a client."""

    def __init__(self, chat=None, key=None, hosts=app.LOOPBACK, window=4096, model=None, **how):
        self.tokenizer = tiny_tokenizer()
        self.model = model or tiny_model(max_position_embeddings=window)
        self.desk = Desk(self.model, self.tokenizer, chat=chat, **how)
        self.api = Api(self.desk, "life", ["runs/life"], key, hosts)

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        place = self.stack.enter_context(listening("127.0.0.1", 0))
        self.stack.enter_context(web(self.api.app, place))
        self.port = place.getsockname()[1]
        self.client = self.stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60))
        self.worker = threading.Thread(target=self.desk.work, daemon=True)
        self.worker.start()
        return self

    def __exit__(self, *_):
        self.desk.close()
        self.worker.join(60)
        assert not self.worker.is_alive()
        self.stack.close()

    def ask(self, messages=QUESTION, **fields):
        return self.client.post(CHAT, json={"model": "life", "messages": messages, **fields})

    def text(self, *given, **fields):
        answer = self.ask(*given, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    def events(self, messages=QUESTION, **fields):
        """The data of each event of a stream."""
        answer = self.ask(messages, stream=True, **fields)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream"), answer.text
        lines = answer.text.split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""] and all(line.startswith("data: ") for line in lines[:-1])
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def refusal(answer):
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    return answer.status_code, error["message"]


@pytest.fixture(scope="module")
def served():
    with Served(reply_tokens=24) as it:
        yield it


# -- answers ----------------------------------------------------------------------------------------------------------
def test_whole_and_streamed_are_what_ask_says(served):
    right = reply_texts(served.model, served.tokenizer, [ASKED], max_new_tokens=24)[0]
    whole = served.ask().json()
    assert whole["object"] == "chat.completion" and whole["model"] == "life" and whole["id"].startswith("chatcmpl-")
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": right, "refusal": None}
    prompt = len(chat_ids(served.tokenizer, QUESTION))
    assert whole["usage"] == {"prompt_tokens": prompt, "completion_tokens": 24, "total_tokens": prompt + 24}
    first, *parts, last, usage = served.events(stream_options={"include_usage": True})
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""} and len(parts) > 5
    assert "".join(part["choices"][0]["delta"]["content"] for part in parts) == right
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    assert len({event["id"] for event in (first, *parts, last, usage)}) == 1
    assert all("usage" not in event for event in served.events())


def test_where_an_answer_ends(served):
    def ended(answer):
        return answer.json()["choices"][0]["finish_reason"], answer.json()["usage"]["completion_tokens"]

    assert ended(served.ask(max_tokens=3)) == ended(served.ask(max_completion_tokens=3)) == ("length", 3)
    said = served.text(max_tokens=60)
    stop = said[5:7]
    cut = served.ask(max_tokens=60, stop=[stop, "\0never"]).json()["choices"][0]
    assert cut == {**cut, "finish_reason": "stop"} and cut["message"]["content"] == said[: said.index(stop)].strip()
    parts = served.events(max_tokens=60, stop=stop)
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == cut["message"]["content"]
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_end_of_a_turn_is_a_stop_and_a_token():
    model = tiny_model(max_position_embeddings=4096)
    ids = model.generate
    tokens = []

    def generate(*given, **how):  # the turn ends as the third token, whatever the model says
        put = how["streamer"].put

        def ending(value):
            tokens.append(value)
            put(value)

        how["streamer"].put = ending
        how["eos_token_id"] = list(range(64))
        return ids(*given, **how)

    model.generate = generate
    with Served(model=model) as served:
        answer = served.ask(max_tokens=9).json()
    assert answer["usage"]["completion_tokens"] == 1 == len(tokens) - 1 and answer["choices"][0]["finish_reason"] == "stop"


def test_draws_have_a_seed(served):
    def drawn(seed, **how):
        return served.text(max_tokens=40, seed=seed, **how)

    assert drawn(1, temperature=1.5) == drawn(1, temperature=1.5) != drawn(2, temperature=1.5)
    assert drawn(1, temperature=1.5) != served.text(max_tokens=40)
    assert drawn(1, temperature=1.5, top_p=0) == served.text(max_tokens=40)  # the likeliest token alone


def test_the_conversation_is_the_context(served):
    history = [{"role": "user", "content": "miso is a cat."}, {"role": "assistant", "content": "she is."}, *QUESTION]
    answer = served.ask(history).json()
    assert answer["usage"]["prompt_tokens"] == len(chat_ids(served.tokenizer, history))
    assert answer["choices"][0]["message"]["content"] == served.text([*history[:2], *QUESTION])


def test_models_and_health(served):
    listed = served.client.get("/v1/models").json()
    assert [(one["id"], one["object"]) for one in listed["data"]] == [("life", "model")] and listed["object"] == "list"
    assert served.client.get("/health").json() == {"status": "ok"}
    assert served.client.post(CHAT, json={"messages": QUESTION, "max_tokens": 1}).status_code == 200
    assert served.ask(model="runs/life", max_tokens=1).json()["model"] == "life"


def test_many_at_once_are_answered_one_after_the_other(served, monkeypatch):
    alone, inside, most = served.text(), [], []
    streamed = desk.streamed

    def counted(*given, **how):
        inside.append(1)
        most.append(len(inside))
        try:
            return streamed(*given, **how)
        finally:
            inside.pop()

    monkeypatch.setattr(desk, "streamed", counted)
    said = []
    threads = [threading.Thread(target=lambda: said.append(served.text())) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert served.client.get("/health").status_code == 200
    for thread in threads:
        thread.join()
    assert said == [alone] * 6 and set(most) == {1}


# -- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fields", [{"tools": [{}]}, {"n": 2}, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}]
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_supported_is_refused(served, fields, stream):
    answer = served.client.post(CHAT, json={"model": "life", "messages": QUESTION, "stream": stream, **fields})
    assert refusal(answer)[0] == 400


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe{}", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"", "application/json; charset=utf-8", 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "application/json", 400),
        (b"{}", "text/plain", 415),  # what a page of another site may send unasked
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b" " * (3 << 20), "application/json", 413),
        (b" " * (20 << 20), "application/json", 413),
    ],
)
def test_bodies_that_cannot_be_read(served, body, kind, status):
    assert refusal(served.client.post(CHAT, content=body, headers={"Content-Type": kind}))[0] == status
    assert served.text(max_tokens=1) is not None  # and the next one is answered


def test_other_ways_and_methods(served):
    assert refusal(served.client.get("/v1/nosuch"))[0] == 404
    assert refusal(served.client.get(CHAT))[0] == 405
    preflight = served.client.options(CHAT, headers={"Origin": "http://evil", "Access-Control-Request-Method": "POST"})
    assert refusal(preflight)[0] == 405
    answer = served.client.get("/v1/models", headers={"Origin": "http://evil"})
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_no_other_name_leads_to_this_machine(served):
    assert refusal(served.client.get("/v1/models", headers={"Host": "evil.example:8000"}))[0] == 403
    assert served.client.get("/v1/models", headers={"Host": f"localhost:{served.port}"}).status_code == 200


def test_a_conversation_that_does_not_fit():
    with Served(window=60) as served:
        answer = served.ask([{"role": "user", "content": "a" * 60}])
        assert refusal(answer)[0] == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
        full = served.ask(max_tokens=500).json()
        assert full["usage"]["total_tokens"] == 60 and full["choices"][0]["finish_reason"] == "length"


def test_a_template_that_knows_no_such_role():
    with Served() as served:
        served.tokenizer.chat_template = (
            "{{ raise_exception('roles must alternate') if messages|length > 1 else messages[0].content }}"
        )
        status, said = refusal(served.ask([*QUESTION, *QUESTION]))
        assert status == 400 and "roles must alternate" in said


def test_a_fault_is_told_and_the_next_request_is_answered(served, monkeypatch, capsys):
    def broken(*_, **__):
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(desk, "streamed", broken)
        assert refusal(served.ask())[0] == refusal(served.ask(stream=True))[0] == 500
    assert "out of memory (no more)" in capsys.readouterr().err
    assert served.ask(max_tokens=1).status_code == 200


def test_a_fault_in_the_middle_of_a_stream_is_its_last_event(served, monkeypatch):
    def broken(model, tokenizer, messages, most, show, *_, **__):
        show("the light ")
        raise MemoryError("no more")

    monkeypatch.setattr(desk, "streamed", broken)
    *_, part, error, end = served.ask(stream=True).text.split("\n\n")
    assert "the light " in part and json.loads(error.removeprefix("data: "))["error"]["code"] == "failed" and end == ""


# -- keys -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("header", [None, "Bearer other", "Bearer", "clé", "Basic clé", "Bearer clé\u00e9"])
def test_another_key_or_none(header):
    with Served(key="clé", window=64) as served:
        headers = {} if header is None else {"Authorization": header.encode()}
        answers = [served.client.get("/v1/models", headers=headers), served.client.post(CHAT, json={}, headers=headers)]
        assert [refusal(answer)[0] for answer in answers] == [401, 401] and answers[0].headers["www-authenticate"] == "Bearer"
        assert "clé" not in answers[0].text
        assert served.client.get("/health").status_code == 200


def test_the_right_key():
    with Served(key="clé", window=64) as served:
        assert served.client.get("/v1/models", headers={"Authorization": "bearer clé".encode()}).status_code == 200


# -- readers that go --------------------------------------------------------------------------------------------------
class Counted:
    """Counts the tokens of all replies."""

    def __init__(self, monkeypatch):
        self.tokens, self.over = 0, threading.Event()
        streamed = desk.streamed

        def slow(*given, **how):
            *given, is_over, stop = given

            def counting():
                self.tokens += 1
                time.sleep(0.002)
                return is_over()

            reply = streamed(*given, counting, stop, **how)
            if reply.stopped:
                self.over.set()
            return reply

        monkeypatch.setattr(desk, "streamed", slow)


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_ends_when_its_reader_has_gone(served, monkeypatch, stream):
    counted = Counted(monkeypatch)
    body = json.dumps({"messages": QUESTION, "max_tokens": 3900, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as one:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        one.sendall(head.encode() + body)
        while counted.tokens < 5:
            time.sleep(0.01)
    assert counted.over.wait(30) and counted.tokens < 2000
    assert served.text(max_tokens=2) == served.text(max_tokens=2)


def test_who_goes_before_the_turn_comes_is_not_answered(served, monkeypatch):
    counted = Counted(monkeypatch)
    first = threading.Thread(target=lambda: served.ask(max_tokens=300))
    first.start()
    while not counted.tokens:
        time.sleep(0.01)
    with contextlib.suppress(httpx.ReadTimeout):
        served.client.post(CHAT, json={"messages": QUESTION, "max_tokens": 3900}, timeout=0.1)
    first.join()
    assert served.text(max_tokens=2) and counted.tokens < 400


# -- days and nights --------------------------------------------------------------------------------------------------
@pytest.fixture
def chat(tmp_path, monkeypatch):
    monkeypatch.setattr(desk, "LOOK", 0.02)
    return FakeChat(tmp_path, None)


def said(chat):
    return [line.text for line in chat.today.said]


def test_what_a_user_says_is_kept_once(chat, tmp_path):
    with Served(chat, reply_tokens=4) as served:
        first = served.text([{"role": "system", "content": "be brief"}, {"role": "user", "content": " my cat is miso. "}])
        history = [{"role": "user", "content": "my cat is miso."}, {"role": "assistant", "content": first}]
        served.text([*history, {"role": "user", "content": "she is red."}])
        served.text([*history, {"role": "user", "content": "she is red."}])  # another answer is wanted
        list(served.events([*history, {"role": "user", "content": "where is she?"}]))
        served.ask(tools=[{}])
        served.ask([{"role": "user", "content": "a" * 5000}])
        assert said(chat) == ["my cat is miso.", "she is red.", "where is she?"]
    assert [(line.role, line.text) for line in Today(tmp_path, {}).lines][:2] == [
        ("user", "my cat is miso."),
        ("assistant", first),
    ]
    assert chat.today.experience().documents == ["User: my cat is miso.\n\nUser: she is red."]


def test_nothing_is_kept_unless_it_is_asked_for(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    served.text()
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(("kept", "line"), [(True, "was kept"), (False, "was undone"), (None, "the disk is full")])
def test_a_night_refuses_until_it_is_over(chat, kept, line, capsys):
    chat.kept = kept
    with Served(chat, period=60, reply_tokens=4) as served:
        served.text([{"role": "user", "content": "my cat is miso."}])
        chat.due.set()
        assert chat.asleep.wait(30)
        for stream in (False, True):
            answer = served.ask(stream=stream)
            assert refusal(answer)[0] == 503 and "sleeps" in refusal(answer)[1] and int(answer.headers["retry-after"]) > 0
        assert served.client.get("/health").json() == {"status": "asleep"}
        assert served.client.get("/v1/models").status_code == 200
        assert said(chat) == ["my cat is miso."]
        chat.wake.set()
        while served.client.get("/health").json() != {"status": "ok"}:
            time.sleep(0.01)
        served.text([{"role": "user", "content": "she is red."}])
        assert said(chat)[-1] == "she is red."
    assert line in "".join(capsys.readouterr())


def test_who_waits_when_a_night_begins_is_refused(chat):
    with Served(chat, period=60) as served:
        answers = []
        first = threading.Thread(target=lambda: answers.append(served.ask(max_tokens=400).status_code))
        first.start()
        while not said(chat):
            time.sleep(0.005)
        second = threading.Thread(target=lambda: answers.append(served.ask(max_tokens=400).status_code))
        second.start()
        while served.desk._waiting.qsize() < 1:
            time.sleep(0.005)
        chat.due.set()
        first.join()
        second.join()
        assert sorted(answers) == [200, 503]
        chat.wake.set()


def test_the_end_refuses_who_waits(served):
    with Served() as other:
        other.desk.close()
        assert refusal(other.ask()) == (503, "the server ends")
