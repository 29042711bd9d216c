"""A web application around one translator: a page to translate in, and its JSON interface.

Needs the extra `serve` (Starlette). The page sends requests to this server only, and sets text as
text, never as markup.

`GET /about` describes the run and the limits, and `GET /health` is answered while the server is up.
`POST /translate` takes a JSON object, with content type `application/json`:

    text      string, required: one sentence per line; blank lines are skipped
    nbest     number of translations of each sentence, from 1 to the beam width, or of draws where
              `sample` is true, from 1 to the widest beam that the server allows; 1 by default
    stream    whether translations are sent while they grow, see below; false by default
    map       index into the attention maps that /about names; by default the mean of all
    ...       any field of `encdec.config.search.SearchOptions` except max_ratio and max_extra,
              which bound the server's work: beam, beam_groups, diversity_penalty, length_penalty,
              length_penalty_kind, mbr, stop, min_length, ban and ban_ids (arrays of strings),
              ban_unknown, ban_special, force_first, force_end, no_repeat_ngram,
              repetition_penalty, prefix, sample, seed, temperature, top_k, top_p, epsilon_cutoff;
              the defaults are the options that the server was started with

The response has, for each sentence in order, its source tokens and its translations, best first:

    {"sentences": [{"source": [token, ...],
                    "translations": [{"text": string, "score": nats, "tokens": [token, ...],
                                      "attention": [[weight, ...], ...] or null}, ...]}, ...]}

`attention` has a row for each token of the translation and a column for each source token. A
request that is refused gets a status of 400 or above and {"error": what to do about it}.

With `stream` the response is JSON lines (application/x-ndjson): every few tokens one for each
sentence that is not done, and at the end one with the same answer as without `stream`:

    {"sentence": index, "text": the likeliest translation so far, which may still change}
    ...
    {"sentences": [...]}

A request that is refused after its first line ends with a line {"error": ...}.

    curl http://127.0.0.1:8000/health
    curl http://127.0.0.1:8000/translate -H content-type:application/json \\
        -d '{"text": "3 May 1979", "nbest": 2, "beam": 8}'
    curl --no-buffer http://127.0.0.1:8000/translate -H content-type:application/json \\
        -d '{"text": "3 May 1979", "stream": true}'

Requests that wait are translated together where their search options are equal; no answer depends
on the others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from encdec.config.search import SearchOptions
from encdec.inference.translator import Translator
from encdec.serving.answers import JSONAnswer, answer, json_text
from encdec.serving.batching import Batcher, Found
from encdec.serving.guards import Hosts, RequestLog
from encdec.serving.limits import Limits
from encdec.serving.requests import Asked, RefusalError, check, read_json
from encdec.types import InputError

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ASSETS = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_POLL_SECONDS = 0.2
"""Seconds between two checks of a waiting request that its client is still connected."""


def application(
    translator: Translator,
    limits: Limits,
    hosts: list[str],
    search: SearchOptions | None = None,
    log: Callable[[str], None] | None = None,
) -> Starlette:
    """Builds the application: the page at /, and what the docstring of this module lists.

    Args:
      translator: the translator; it serves one batch of requests at a time.
      limits: the largest request, and how many requests may wait.
      hosts: the host names that a request may use for this server; `*` allows any. On a loopback
        address, refusing all other names stops a web page from reading translations by pointing
        its domain name at this machine.
      search: the search options of a request that does not set them; None for those of the run.
      log: gets a line for each request; None for none.
    """
    service = _Service(translator, limits, search or translator.run.config.search)
    guards = [Middleware(Hosts, hosts, _HEADERS)]
    if log:
        guards.insert(0, Middleware(RequestLog, log))
    return Starlette(
        routes=[
            *(Route(path, partial(_asset, *asset)) for path, asset in _ASSETS.items()),
            Route("/about", service.about),
            Route("/health", service.health),
            Route("/translate", service.translate, methods=["POST"]),
        ],
        middleware=guards,
        exception_handlers={
            RefusalError: _refusal,
            HTTPException: _unknown,
            ClientDisconnect: _client_left,
        },
    )


class _Service:
    """The answers of a server.

    Args:
      translator, limits: see `application`.
      search: the default search options.
    """

    def __init__(self, translator: Translator, limits: Limits, search: SearchOptions) -> None:
        self._translator, self._limits = translator, limits
        self._search = served_search(search, limits)
        self._batcher = Batcher(translator)
        self._waiting = 0

    async def translate(self, request: Request) -> Response:
        """The translations that a request asks for."""
        # The body is read first: a client that sends it slowly takes no place in the queue.
        fields = await read_json(request, self._limits)
        asked = check(fields, self._translator, self._limits, self._search)
        if self._waiting >= self._limits.most_waiting:
            raise RefusalError(
                503, f"{self._waiting} requests are waiting already: try again in a moment"
            )
        self._waiting += 1
        if asked.stream:
            return _Stream(_json_lines(self._batcher, asked), self._leave)
        try:
            found = await _unless_left(self._batcher.translate(asked), request)
        except InputError as error:
            raise RefusalError(400, str(error)) from error
        finally:
            self._leave()
        return JSONAnswer(answer(found, asked.map), headers=_HEADERS)

    def _leave(self) -> None:
        self._waiting -= 1

    async def about(self, _: Request) -> Response:
        """The run and the limits."""
        run = self._translator.run
        fields = {
            "run": run.path.resolve().name,
            "model": run.config.model_name,
            "step": self._translator.step,
            "maps": self._translator.map_names,
            "example": example(self._translator, self._limits),
            "beam": self._search.beam,
            "most_beam": self._limits.most_beam,
        }
        return JSONAnswer(fields, headers=_HEADERS)

    async def health(self, _: Request) -> Response:
        """How many requests wait."""
        return JSONAnswer({"status": "ok", "waiting": self._waiting}, headers=_HEADERS)


class _Stream(StreamingResponse):
    """JSON lines; `leave` is called when the last one is sent or the client has left."""

    def __init__(self, lines: AsyncIterator[str], leave: Callable[[], None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson", headers=_HEADERS)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _json_lines(batcher: Batcher, asked: Asked) -> AsyncIterator[str]:
    """Translations while they grow, then the answer."""
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def watch(index: int, text: str) -> None:
        loop.call_soon_threadsafe(news.put_nowait, {"sentence": index, "text": text})

    found = asyncio.create_task(batcher.translate(asked, watch))
    found.add_done_callback(lambda _: news.put_nowait(None))
    try:
        while (one := await news.get()) is not None:
            yield _line(one)
        try:
            yield _line(answer(await found, asked.map))
        except InputError as error:
            yield _line({"error": str(error)})
    finally:
        found.cancel()  # where the client has left


def _line(value: dict[str, Any]) -> str:
    return json_text(value) + "\n"


async def _unless_left(translating: Coroutine[Any, Any, Found], request: Request) -> Found:
    """Waits for translations; raises ClientDisconnect if the client leaves first."""
    task = asyncio.create_task(translating)
    try:
        while not (await asyncio.wait([task], timeout=_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return await task
    finally:
        task.cancel()


def served_search(search: SearchOptions, limits: Limits) -> SearchOptions:
    """The default search options of a request; beam and mbr are within the limit for requests.

    Raises:
      InputError: the other options cannot be used with so narrow a beam.
    """
    most = limits.most_beam
    try:
        return replace(search, beam=min(search.beam, most), mbr=min(search.mbr, most))
    except InputError as error:
        raise InputError(f"{error}; most_beam = {most} is the widest of a request") from error


def example(translator: Translator, limits: Limits) -> str:
    """The first held-out source that is within the limits; "" if there is none."""
    most = translator.run.config.data.max_source_length
    for text in translator.run.held_out.src:
        fits = len(text) <= limits.most_characters and "\n" not in text
        if text.strip() and fits and translator.source_length(text) <= most:
            return text
    return ""


async def _asset(name: str, kind: str, _: Request) -> Response:
    return Response((files(__package__) / name).read_bytes(), media_type=kind, headers=_HEADERS)


async def _refusal(_: Request, error: Any) -> Response:
    return JSONAnswer({"error": str(error)}, error.status, headers=_HEADERS)


async def _unknown(request: Request, error: Any) -> Response:
    served = "GET /, /about and /health, and POST /translate are served"
    refusal = {"error": f"{request.method} {request.scope['path']}: {error.detail}; {served}"}
    return JSONAnswer(refusal, error.status_code, headers={**(error.headers or {}), **_HEADERS})


async def _client_left(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # the client is gone, so nobody reads the response
