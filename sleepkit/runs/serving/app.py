"""The web side of `sleepkit serve`: what a request must be, its way to the desk, and the answer's way back.

    POST /v1/chat/completions     an answer, whole or as server-sent events
    GET  /v1/models               the one model
    GET  /health                  {"status": "ok"}, in a night "asleep"; without a key

All refusals have OpenAI's form.  Pages of other sites, open in a browser on this machine, can neither ask nor have anything
kept: no origin is let in (no CORS), a body must be `application/json`, which such a page may not send unasked, and at a loopback
address the `Host` of a request must be this machine's, so that no other name can be pointed here.

The event loop never waits for the model: a request is handed to the desk, whose thread tells what comes of it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sleepkit.errors import first_line
from sleepkit.runs.guard import report
from sleepkit.runs.serving.desk import Desk, Ticket
from sleepkit.runs.serving.protocol import Answer, Asked, Refused, chunk, completion, head_of, models, usage_chunk
from sleepkit.utils.options import shown

__all__ = ["LOOPBACK", "Api"]

LARGEST_BODY = 2 << 20  # bytes; a conversation that fills a window of 128,000 tokens has about a quarter of that
DISCARDED = 64 << 20  # bytes of a larger body that are read and thrown away, so that its sender reads why
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))


class Api:
    """The application that a server runs, as ``app``.

    Args:
        desk: answers.
        name: of the model, as clients read it.
        also: other names that they may send.
        key: what they must send; None lets all in.
        hosts: names by which this machine may be asked; None takes any.
    """

    def __init__(
        self,
        desk: Desk,
        name: str,
        also: Iterable[str] = (),
        key: str | None = None,
        hosts: Container[str] | None = None,
    ) -> None:
        self.desk, self.name, self.names, self.key, self.hosts = desk, name, {name, *also}, key, hosts
        self.since = int(time.time())
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/models", self.models, methods=["GET"]),
                Route("/health", self.health, methods=["GET"]),
            ],
            exception_handlers={Refused: _refusal, HTTPException: _refusal, Exception: _refusal},
        )

    async def complete(self, request: Request) -> Response:
        """Answer a conversation."""
        self._admit(request)
        asked = Asked.of(await _json(request), self.names)
        call, head = _Call(self.desk, asked), head_of(self.name)
        try:
            event = await call.next(request)
            if asked.stream:  # only now, as what is refused has a status of its own
                return _Stream(call, _events(call, event, head))
            while not isinstance(event, Answer):
                event = await call.next(request)
        except ClientDisconnect:
            call.ticket.is_over.set()
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(completion(head, event))

    async def models(self, request: Request) -> Response:
        """List the one model."""
        self._admit(request)
        return JSONResponse(models([self.name], self.since))

    async def health(self, _: Request) -> Response:
        """Say that the server lives; in a night too, which a new start would end."""
        return JSONResponse({"status": "asleep" if self.desk.sleeps else "ok"})

    def _admit(self, request: Request) -> None:
        """Raise `Refused` for another name of this machine, or another key."""
        if self.hosts is not None and request.url.hostname not in self.hosts:
            raise Refused(f"this machine is not asked as {shown(request.url.hostname)} here; use 127.0.0.1", 403, code="host")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self.key is None or (scheme.lower() == "bearer" and hmac.compare_digest(given.encode("latin-1"), self.key.encode())):
            return
        raise Refused("the key is missing or another; send the header Authorization: Bearer KEY", 401, code="invalid_api_key")


# -- requests ---------------------------------------------------------------------------------------------------------
async def _json(request: Request) -> Any:
    """What the JSON of a body holds."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(f"the body's type is {shown(kind)}; send the header Content-Type: application/json", 415)
    body = await _body(request)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body cannot be read as JSON ({first_line(error)})", code="invalid_json") from error


async def _body(request: Request) -> bytes:
    kept, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= LARGEST_BODY:
            kept += part
        elif size > DISCARDED:
            break
    if size > LARGEST_BODY:
        raise Refused(f"the body is larger than {LARGEST_BODY >> 20} MB; send less of the conversation", 413, code="too_large")
    return bytes(kept)


class _Call:
    """A request at the desk, and what is told of it."""

    def __init__(self, desk: Desk, asked: Asked) -> None:
        self._told: asyncio.Queue[str | Answer | Refused] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.ticket = Ticket(asked, self._tell)
        desk.submit(self.ticket)

    def _tell(self, event: str | Answer | Refused) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(self._told.put_nowait, event)

    async def next(self, request: Request | None = None) -> str | Answer:
        """The next part of the answer, or the whole.

        Args:
            request: is watched meanwhile.

        Raises:
            Refused: there is no answer.
            ClientDisconnect: whoever sent the request has gone.
        """
        told = asyncio.ensure_future(self._told.get())
        gone = None if request is None else asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({told} if gone is None else {told, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                raise ClientDisconnect
        finally:
            for task in (told, gone):
                if task is not None:
                    task.cancel()
        event = told.result()
        if isinstance(event, Refused):
            raise event
        return event


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# -- responses --------------------------------------------------------------------------------------------------------
class _Stream(StreamingResponse):
    """Server-sent events; when they end, however they do, nobody waits for the reply."""

    def __init__(self, call: _Call, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.call.ticket.is_over.set()


async def _events(call: _Call, event: str | Answer, head: Mapping[str, Any]) -> AsyncIterator[str]:
    """An answer as events, of which the first has come."""
    yield _event(chunk(head, {"role": "assistant", "content": ""}))
    try:
        while not isinstance(event, Answer):
            yield _event(chunk(head, {"content": event}))
            event = await call.next()
    except Refused as refused:
        yield _event(refused.body())
        return
    yield _event(chunk(head, {}, event.finish_reason))
    if call.ticket.asked.with_usage:
        yield _event(usage_chunk(head, event))
    yield "data: [DONE]\n\n"


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _refusal(request: Request, error: Exception) -> Response:
    """What cannot be done, as OpenAI writes it."""
    if isinstance(error, HTTPException):
        error = Refused(f"{request.method} {request.url.path}: {error.detail}", error.status_code)
    elif not isinstance(error, Refused):
        report(error)
        error = Refused("the server could not answer; it says why", 500, code="failed")
    return JSONResponse(error.body(), error.status, error.headers)
