"""Any request gets an answer or a refusal with a reason; none breaks the server."""

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from encdec.inference import translator as translators
from encdec.inference.batch_search import BatchSearch
from encdec.inference.translator import Translator
from encdec.serving.app import application
from encdec.serving.limits import Limits
from encdec.serving.requests import _SEARCH_FIELDS
from tests.fuzzing import DEEP, NUMBERS, TEXTS, VALUES, changed
from tests.small_run import small_run

JSON = b"application/json"
FIELDS = ["text", "nbest", "map", "stream", *_SEARCH_FIELDS]
GOOD = {
    **{"text": "3. Mai\n1979", "nbest": 1, "map": 0, "stream": False, "beam": 3, "beam_groups": 1},
    **{"ban": ["55", "a b"], "ban_ids": ["7 9"], "prefix": "19", "sample": False, "seed": 4},
    **{"top_k": 5, "top_p": 0.9, "temperature": 0.5, "min_length": 2, "stop": "first", "mbr": 0},
}
BODIES = st.one_of(
    changed(GOOD),
    st.dictionaries(st.sampled_from(FIELDS), VALUES).map(lambda body: {"text": "a"} | body),
    st.builds(lambda name, value: {"text": "a", name: value}, st.sampled_from(FIELDS), NUMBERS),
    st.builds(lambda name, value: {"text": "a", name: [value]}, st.sampled_from(FIELDS), TEXTS),
    VALUES,
)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return translators.load(small_run(tmp_path_factory.mktemp("runs") / "dates").path)


def answer(
    translator: Translator,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    path: str = "/translate",
    hosts: tuple[str, ...] = ("*",),
) -> tuple[int, bytes]:
    """Status and body of the answer; an exception in the application is one here."""
    sent: list[Any] = []

    async def ask() -> None:
        arriving = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if arriving:
                return arriving.pop()
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        method = "POST" if path == "/translate" else "GET"
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        rest = {"query_string": b"", "client": ("127.0.0.1", 1), "http_version": "1.1"}
        app = application(translator, Limits(), list(hosts), log=lambda line: None)
        await app({**scope, **rest, "root_path": ""}, receive, send)

    asyncio.run(ask())
    data = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], data


def check(status: int, data: bytes) -> None:
    """An answer, or a reason that is not of the server's own making."""
    values = [json.loads(line) for line in data.splitlines()]
    assert 200 <= status < 500
    assert status == 200 or isinstance(values[0]["error"], str)


@pytest.fixture
def without_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is checked as for a search, which then finds nothing."""
    monkeypatch.setattr(BatchSearch, "search", lambda *_: iter(()))


@pytest.mark.usefixtures("without_search")
@given(BODIES)
@example({"text": "a", "\ud800": 1})
@example({"text": "a", "ban_ids": ["9" * 5000]})
def test_any_json_is_answered(translator: Translator, body: Any) -> None:
    check(*answer(translator, json.dumps(body).encode(), [(b"content-type", JSON)]))


@pytest.mark.usefixtures("without_search")
@given(st.one_of(st.binary(), st.sampled_from([DEEP[:20_000], b'{"text": 1' + b"0" * 6000])))
def test_any_bytes_are_answered(translator: Translator, body: bytes) -> None:
    check(*answer(translator, body, [(b"content-type", JSON)]))


@pytest.mark.usefixtures("without_search")
@given(st.binary(), st.binary(), st.sampled_from(["/translate", "/about", "/health"]))
def test_any_headers_are_answered(
    translator: Translator, host: bytes, kind: bytes, path: str
) -> None:
    headers = [(b"host", host), (b"content-type", kind)]
    check(*answer(translator, b'{"text": "a"}', headers, path, ("127.0.0.1",)))
    check(*answer(translator, b'{"text": "a"}', [(b"host", b"a"), *headers[1:]], path))


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/health/nothing", 404)])
def test_what_is_not_served_is_said_in_json(translator: Translator, path: str, status: int) -> None:
    found, data = answer(translator, b"", [], path)
    assert found == status
    assert "POST /translate" in json.loads(data)["error"]


LARGE = st.sampled_from([1e-30, 1e-3, 0.5, 2.0, 1e3, 1e38, 3.3e38, 2.0**-126])


@settings(max_examples=4)
@given(LARGE, LARGE, LARGE, st.integers(0, 2**64 - 1), st.booleans())
@example(2.0**-126, 3.3e38, 3.3e38, 0, False)
@example(3.3e38, 2.0, 2.0, 0, False)
def test_extreme_numbers_are_answered_with_json(
    translator: Translator,
    temperature: float,
    repetition: float,
    length: float,
    seed: int,
    sample: bool,
) -> None:
    """The numbers of a search are finite, whatever the options: JSON has no others."""
    body = {
        **{"text": "3. Mai", "temperature": temperature, "repetition_penalty": repetition},
        **{"length_penalty": length, "seed": seed, "sample": sample, "beam": 2},
    }
    # At 1 an option is left out of the program, which would be compiled again.
    assert 1 not in (temperature, repetition)
    status, data = answer(translator, json.dumps(body).encode(), [(b"content-type", JSON)])
    assert status == 200, data
    for one in json.loads(data)["sentences"][0]["translations"]:
        assert math.isfinite(one["score"])
