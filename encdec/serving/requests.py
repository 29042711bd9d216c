"""Requests to the server, checked before they are served, and what they are refused for."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_origin, get_type_hints

from starlette.requests import Request

from encdec.config.search import SearchOptions
from encdec.files import parse_json
from encdec.inference.translator import Translator
from encdec.serving.limits import Limits
from encdec.types import InputError

_BODY_SECONDS = 10.0
"""Seconds within which the body of a request must arrive."""
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


class RefusalError(Exception):
    """A request is refused: an HTTP status, and what to do about it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """A checked request.

    Attributes:
      lines: the sentences.
      search: how to search.
      nbest: translations of each sentence.
      map: index into the model's attention maps; None is their mean.
      stream: whether translations are sent while they grow.
    """

    lines: list[str]
    search: SearchOptions
    nbest: int
    map: int | None
    stream: bool


async def read_json(request: Request, limits: Limits) -> Mapping[str, Any]:
    """Reads the body as a JSON object; stops reading a body that is too long."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        # A form on another site cannot send this type without a preflight request.
        raise RefusalError(415, "send application/json")
    most = 12 * limits.most_characters + 1000  # a character has at most 12 bytes: \uXXXX\uXXXX
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise RefusalError(413, f"more than {limits.most_characters} characters")
        tree = parse_json(body)
    except TimeoutError:
        raise RefusalError(408, f"the body did not arrive within {_BODY_SECONDS:g} s") from None
    except ValueError:
        raise RefusalError(400, "the body is not JSON") from None
    if not isinstance(tree, dict):
        raise RefusalError(400, "the body is not a JSON object")
    return tree


def check(
    body: Mapping[str, Any], translator: Translator, limits: Limits, search: SearchOptions
) -> Asked:
    """Checks the body of a request; raises RefusalError where it cannot be used."""
    if unknown := body.keys() - {"text", "nbest", "map", "stream", *_SEARCH_FIELDS}:
        raise RefusalError(400, f"unknown field {min(unknown)}")
    text = body.get("text")
    if not isinstance(text, str):
        raise RefusalError(400, "text must be a string")
    if len(text) > limits.most_characters:
        raise RefusalError(
            413, f"the text has {len(text)} characters, at most {limits.most_characters} are taken"
        )
    _check_unicode("text", text)
    # As in files, only \n or \r\n ends a line.
    each = enumerate((line.removesuffix("\r") for line in text.split("\n")), 1)
    lines = [(i, line) for i, line in each if line.strip()]
    if len(lines) > limits.most_lines:
        raise RefusalError(
            413, f"the text has {len(lines)} lines, at most {limits.most_lines} are taken"
        )
    most = translator.run.config.data.max_source_length
    for i, line in lines:
        length = translator.source_length(line)
        if length > most:
            raise RefusalError(
                413,
                f"line {i} has {length} tokens, the model was trained for {most}: shorten it",
            )
    search = _search_options(body, limits, search)
    most = search.mbr or (limits.most_beam if search.sample else search.beam)
    nbest = _integer(body, "nbest", 1, most)
    maps = len(translator.map_names)
    index = None if body.get("map") is None else _integer(body, "map", 0, maps - 1, least=0)
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise RefusalError(400, "stream must be true or false")
    return Asked([line for _, line in lines], search, nbest, index, stream)


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
        raise RefusalError(400, str(error)) from error


def _option(name: str, value: Any) -> Any:
    """Converts a JSON value to the type of its search option."""
    kind = _SEARCH_FIELDS[name]
    types, description = _JSON_TYPES[kind]
    fits = isinstance(value, types) and (kind is bool or not isinstance(value, bool))
    texts = value if isinstance(value, list) else [value] if kind is str else []
    if not fits or not all(isinstance(text, str) for text in texts):
        raise RefusalError(400, f"{name} must be {description}")
    for text in texts:
        _check_unicode(name, text)
    try:
        return tuple(texts) if isinstance(value, list) else kind(value)
    except OverflowError:  # an integer that is larger than any float
        raise RefusalError(400, f"{name} is too large") from None


def _check_unicode(name: str, text: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise RefusalError(400, f"{name} holds half of a surrogate pair")


def _integer(body: Mapping[str, Any], name: str, default: int, most: int, least: int = 1) -> int:
    """The integer in a field of the body; raises RefusalError where it is out of range."""
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise RefusalError(400, f"{name} must be an integer from {least} to {most}")
    return value
