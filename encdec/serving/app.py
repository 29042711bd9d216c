"""A page to translate in: one translator behind a small web application.

Needs the extra `serve` (Starlette). The page asks nobody but this server; text travels as JSON and
is never taken as markup.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from encdec.inference.translator import Translation, Translator
from encdec.search.options import SearchOptions
from encdec.serving.limits import Limits

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
_BODY_SECONDS = 10.0
_LOOK_SECONDS = 0.2
"""Between two looks at whether someone still waits."""


class _RefusalError(Exception):
    """An answer that is no translation: an HTTP status, and what to do about it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Wanted:
    """A request, checked. `map` is an index among the model's maps; None for their mean."""

    lines: list[str]
    beam: int
    nbest: int
    map: int | None


def application(
    translator: Translator, limits: Limits, hosts: list[str], search: SearchOptions | None = None
) -> Starlette:
    """The page at /, what it shows at /about, and translations at /translate.

    Args:
      translator: what translates, a request at a time.
      limits: of a request, and of those that wait.
      hosts: names that a request may call this server by; `*` for any. On a loopback address
        others are refused, so that no page from elsewhere reads along under a name of its own.
      search: how to search where a request does not say.
    """
    search = served_search(search or SearchOptions(), limits)
    turn, waiting = asyncio.Lock(), 0

    async def translate(request: Request) -> Response:
        nonlocal waiting
        # Whoever is slow to say what they want takes no place from others.
        wanted = _checked(await _json(request, limits), translator, limits, search)
        if waiting >= limits.most_waiting:
            raise _RefusalError(503, f"{waiting} requests are here already: try again in a moment")
        waiting += 1
        try:
            await _acquired(turn, request)
            try:
                found = await run_in_threadpool(_translated, translator, wanted, search)
            finally:
                turn.release()
        finally:
            waiting -= 1
        return JSONResponse(found, headers=_HEADERS)

    async def about(_: Request) -> Response:
        return JSONResponse(_about(translator, limits, search), headers=_HEADERS)

    return Starlette(
        routes=[
            *(Route(path, partial(_asset, *asset)) for path, asset in _ASSETS.items()),
            Route("/about", about),
            Route("/translate", translate, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        exception_handlers={_RefusalError: _refusal, ClientDisconnect: _gone},
    )


def served_search(search: SearchOptions, limits: Limits) -> SearchOptions:
    """How to search where a request does not say: no wider than one may ask for."""
    return replace(search, beam=min(search.beam, limits.most_beam))


def example(translator: Translator, limits: Limits) -> str:
    """A held-out source that a request may hold; "" where there is none."""
    most = translator.run.config.data.max_source_length
    for text in translator.run.held_out.src:
        fits = len(text) <= limits.most_characters and "\n" not in text
        if text.strip() and fits and translator.source_length(text) <= most:
            return text
    return ""


async def _acquired(turn: asyncio.Lock, request: Request) -> None:
    """Waits for the turn, but no longer than the one who asked does."""
    while True:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await turn.acquire()
                return
        except TimeoutError:
            if await request.is_disconnected():
                raise ClientDisconnect from None


async def _asset(name: str, kind: str, _: Request) -> Response:
    return Response((files(__package__) / name).read_bytes(), media_type=kind, headers=_HEADERS)


async def _refusal(_: Request, error: Any) -> Response:
    return JSONResponse({"error": str(error)}, error.status, headers=_HEADERS)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


def _about(translator: Translator, limits: Limits, search: SearchOptions) -> dict[str, Any]:
    run = translator.run
    return {
        "run": run.path.resolve().name,
        "model": run.config.model_name,
        "step": translator.step,
        "maps": translator.map_names,
        "example": example(translator, limits),
        "beam": search.beam,
        "most_beam": limits.most_beam,
    }


async def _json(request: Request, limits: Limits) -> Mapping[str, Any]:
    """The body as a JSON object, of which no more is read than a request may hold."""
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        # A form on another site cannot send this type without asking first.
        raise _RefusalError(415, "send application/json")
    most = 12 * limits.most_characters + 1000  # a character is at most 12 bytes, as \uXXXX\uXXXX
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise _RefusalError(413, f"more than {limits.most_characters} characters")
        found = json.loads(body)
    except TimeoutError:
        raise _RefusalError(408, f"the request was not whole after {_BODY_SECONDS:g} s") from None
    except (ValueError, RecursionError):
        raise _RefusalError(400, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise _RefusalError(400, "the body is no JSON object")
    return found


def _checked(
    body: Mapping[str, Any], translator: Translator, limits: Limits, search: SearchOptions
) -> _Wanted:
    """What a request asks for, if it may."""
    text = body.get("text")
    if not isinstance(text, str):
        raise _RefusalError(400, "text must be a string")
    if len(text) > limits.most_characters:
        raise _RefusalError(
            413, f"the text has {len(text)} characters, at most {limits.most_characters} are taken"
        )
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise _RefusalError(400, "text holds half of a surrogate pair")
    # As in files, only \n ends a line.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > limits.most_lines:
        raise _RefusalError(
            413, f"the text has {len(lines)} lines, at most {limits.most_lines} are taken"
        )
    most = translator.run.config.data.max_source_length
    for i, line in lines:
        length = translator.source_length(line)
        if length > most:
            raise _RefusalError(
                413, f"line {i} has {length} tokens, the model was trained for {most}: shorten it"
            )
    beam = _whole(body, "beam", search.beam, limits.most_beam)
    nbest = _whole(body, "nbest", 1, beam)
    maps = len(translator.map_names)
    index = None if body.get("map") is None else _whole(body, "map", 0, maps - 1, least=0)
    return _Wanted([line for _, line in lines], beam, nbest, index)


def _whole(body: Mapping[str, Any], name: str, default: int, most: int, least: int = 1) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _RefusalError(400, f"{name} must be a whole number from {least} to {most}")
    return value


def _translated(translator: Translator, wanted: _Wanted, search: SearchOptions) -> Any:
    options = replace(search, beam=wanted.beam)
    found = translator.nbest(wanted.lines, wanted.nbest, options, alignments=True)
    return {
        "sentences": [_shown(translations, wanted.map) for translations in found if translations]
    }


def _shown(translations: list[Translation], index: int | None) -> dict[str, Any]:
    return {
        "source": translations[0].src_tokens,
        "translations": [
            {
                "text": one.text,
                "score": round(one.score, 4),
                "tokens": one.tgt_tokens,
                "attention": _weights(one.attention, index),
            }
            for one in translations
        ],
    }


def _weights(weights: np.ndarray | None, index: int | None) -> list[list[float]] | None:
    """[T][S] of one map, or of the mean of all; None for a model that has none."""
    if weights is None or not weights.size:
        return None
    one = weights.mean(0) if index is None else weights[index]
    rounded: list[list[float]] = np.round(one.astype(float), 3).tolist()
    return rounded
