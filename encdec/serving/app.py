"""A web application around one translator: a page to translate in, and its JSON interface.

Needs the extra `serve` (Starlette). The page sends requests to this server only, and sets text as
text, never as markup.

`GET /about` describes the run and the limits. `POST /translate` takes a JSON object:

    text      string, required: one sentence per line; blank lines are skipped
    nbest     number of translations of each sentence, from 1 to the beam width, or of draws where
              `sample` is true, from 1 to the widest beam that the server allows; 1 by default
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
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from encdec.config.search import SearchOptions
from encdec.inference.translation import Translation
from encdec.inference.translator import Translator
from encdec.serving.limits import Limits
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
_BODY_SECONDS = 10.0
"""Seconds within which the body of a request must arrive."""
_POLL_SECONDS = 0.2
"""Seconds between two checks of a waiting request that its client is still connected."""
_SERVER_ONLY = ("max_ratio", "max_extra")
_SEARCH_FIELDS = {
    name: str if get_origin(kind) is Literal else kind
    for name, kind in get_type_hints(SearchOptions).items()
    if name not in _SERVER_ONLY
}
"""The search options that a request may set, and their types."""
_JSON_TYPES: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    str: ((str,), "a string"),
    tuple[str, ...]: ((list,), "an array of strings"),
}
"""For each type of an option: the types of its JSON value, and their name in errors."""


class _RefusalError(Exception):
    """A request is refused: an HTTP status, and what to do about it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Request:
    """A checked request. `map` is an index into the model's attention maps; None is their mean."""

    lines: list[str]
    search: SearchOptions
    nbest: int
    map: int | None


def application(
    translator: Translator, limits: Limits, hosts: list[str], search: SearchOptions | None = None
) -> Starlette:
    """Builds the application: the page at /, the facts at /about, translations at /translate.

    Args:
      translator: the translator; it serves one request at a time.
      limits: the largest request, and how many requests may wait.
      hosts: the host names that a request may use for this server; `*` allows any. On a loopback
        address, refusing all other names stops a web page from reading translations by pointing
        its domain name at this machine.
      search: the search options of a request that does not set them; None for those of the run.
    """
    search = served_search(search or translator.run.config.search, limits)
    turn, waiting = asyncio.Lock(), 0

    async def translate(request: Request) -> Response:
        nonlocal waiting
        # The body is read first: a client that sends it slowly takes no place in the queue.
        checked = _check(await _json(request, limits), translator, limits, search)
        if waiting >= limits.most_waiting:
            raise _RefusalError(
                503, f"{waiting} requests are waiting already: try again in a moment"
            )
        waiting += 1
        try:
            await _acquire(turn, request)
            try:
                answer = await run_in_threadpool(_translate, translator, checked)
            except InputError as error:
                raise _RefusalError(400, str(error)) from error
            finally:
                turn.release()
        finally:
            waiting -= 1
        return JSONResponse(answer, headers=_HEADERS)

    async def about(_: Request) -> Response:
        return JSONResponse(_about(translator, limits, search), headers=_HEADERS)

    return Starlette(
        routes=[
            *(Route(path, partial(_asset, *asset)) for path, asset in _ASSETS.items()),
            Route("/about", about),
            Route("/translate", translate, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        exception_handlers={_RefusalError: _refusal, ClientDisconnect: _client_left},
    )


def served_search(search: SearchOptions, limits: Limits) -> SearchOptions:
    """The default search options of a request; their beam is within the limit for requests."""
    return replace(search, beam=min(search.beam, limits.most_beam))


def example(translator: Translator, limits: Limits) -> str:
    """The first held-out source that is within the limits; "" if there is none."""
    most = translator.run.config.data.max_source_length
    for text in translator.run.held_out.src:
        fits = len(text) <= limits.most_characters and "\n" not in text
        if text.strip() and fits and translator.source_length(text) <= most:
            return text
    return ""


async def _acquire(turn: asyncio.Lock, request: Request) -> None:
    """Waits for the lock; raises ClientDisconnect if the client leaves first."""
    while True:
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await turn.acquire()
                return
        except TimeoutError:
            if await request.is_disconnected():
                raise ClientDisconnect from None


async def _asset(name: str, kind: str, _: Request) -> Response:
    return Response((files(__package__) / name).read_bytes(), media_type=kind, headers=_HEADERS)


async def _refusal(_: Request, error: Any) -> Response:
    return JSONResponse({"error": str(error)}, error.status, headers=_HEADERS)


async def _client_left(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # the client is gone, so nobody reads the response


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
    """Reads the body as a JSON object; stops reading a body that is too long."""
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        # A form on another site cannot send this type without a preflight request.
        raise _RefusalError(415, "send application/json")
    most = 12 * limits.most_characters + 1000  # a character has at most 12 bytes: \uXXXX\uXXXX
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise _RefusalError(413, f"more than {limits.most_characters} characters")
        tree = json.loads(body)
    except TimeoutError:
        raise _RefusalError(408, f"the body did not arrive within {_BODY_SECONDS:g} s") from None
    except (ValueError, RecursionError):
        raise _RefusalError(400, "the body is not JSON") from None
    if not isinstance(tree, dict):
        raise _RefusalError(400, "the body is not a JSON object")
    return tree


def _check(
    body: Mapping[str, Any], translator: Translator, limits: Limits, search: SearchOptions
) -> _Request:
    """Checks the body of a request; raises _RefusalError where it cannot be used."""
    if unknown := body.keys() - {"text", "nbest", "map", *_SEARCH_FIELDS}:
        raise _RefusalError(400, f"unknown field {min(unknown)}")
    text = body.get("text")
    if not isinstance(text, str):
        raise _RefusalError(400, "text must be a string")
    if len(text) > limits.most_characters:
        raise _RefusalError(
            413, f"the text has {len(text)} characters, at most {limits.most_characters} are taken"
        )
    _check_unicode("text", text)
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
                413,
                f"line {i} has {length} tokens, the model was trained for {most}: shorten it",
            )
    search = _search_options(body, limits, search)
    most = search.mbr or (limits.most_beam if search.sample else search.beam)
    nbest = _integer(body, "nbest", 1, most)
    maps = len(translator.map_names)
    index = None if body.get("map") is None else _integer(body, "map", 0, maps - 1, least=0)
    return _Request([line for _, line in lines], search, nbest, index)


def _search_options(
    body: Mapping[str, Any], limits: Limits, default: SearchOptions
) -> SearchOptions:
    """The search options of a request."""
    beam = _integer(body, "beam", default.beam, limits.most_beam)
    if "top_k" in body:
        _integer(body, "top_k", default.top_k, limits.most_top_k, least=0)
    _integer(body, "mbr", default.mbr, limits.most_beam, least=0)
    given = {name: body[name] for name in _SEARCH_FIELDS.keys() & body.keys()}
    try:
        values = {name: _option(name, value) for name, value in given.items()}
        return replace(default, **{**values, "beam": beam})
    except InputError as error:
        raise _RefusalError(400, str(error)) from error


def _option(name: str, value: Any) -> Any:
    """Converts a JSON value to the type of its search option."""
    kind = _SEARCH_FIELDS[name]
    types, description = _JSON_TYPES[kind]
    fits = isinstance(value, types) and (kind is bool or not isinstance(value, bool))
    texts = value if isinstance(value, list) else [value] if kind is str else []
    if not fits or not all(isinstance(text, str) for text in texts):
        raise _RefusalError(400, f"{name} must be {description}")
    for text in texts:
        _check_unicode(name, text)
    try:
        return tuple(texts) if isinstance(value, list) else kind(value)
    except OverflowError:  # an integer that is larger than any float
        raise _RefusalError(400, f"{name} is too large") from None


def _check_unicode(name: str, text: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise _RefusalError(400, f"{name} holds half of a surrogate pair")


def _integer(body: Mapping[str, Any], name: str, default: int, most: int, least: int = 1) -> int:
    """The integer in a field of the body; raises _RefusalError where it is out of range."""
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _RefusalError(400, f"{name} must be an integer from {least} to {most}")
    return value


def _translate(translator: Translator, request: _Request) -> dict[str, Any]:
    """The response to a checked request."""
    results = translator.nbest(request.lines, request.nbest, request.search, alignments=True)
    return {
        "sentences": [
            _sentence(translations, request.map) for translations in results if translations
        ]
    }


def _sentence(translations: list[Translation], index: int | None) -> dict[str, Any]:
    """The JSON values of one source sentence and its translations."""
    return {
        "source": translations[0].src_tokens,
        "translations": [
            {
                "text": translation.text,
                "score": round(translation.score, 4),
                "tokens": translation.tgt_tokens,
                "attention": _attention(translation.attention, index),
            }
            for translation in translations
        ],
    }


def _attention(maps: np.ndarray | None, index: int | None) -> list[list[float]] | None:
    """One of the maps [M, T, S], or the mean of all; None for a model that has none."""
    if maps is None or not maps.size:
        return None
    chosen = maps.mean(0) if index is None else maps[index]
    rounded: list[list[float]] = np.round(chosen.astype(float), 3).tolist()
    return rounded
