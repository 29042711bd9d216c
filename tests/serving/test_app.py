"""What the server answers, over HTTP: translations, limits, refusals."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.config.search import SearchOptions
from encdec.inference import translator as translators
from encdec.inference.translator import Translator
from encdec.serving.app import application
from encdec.serving.limits import Limits
from encdec.types import InputError
from tests.serving.server import served
from tests.small_run import SMALL, small_run

LIMITS = Limits(most_characters=80, most_beam=4, most_waiting=2)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return translators.load(small_run(tmp_path_factory.mktemp("runs") / "dates").path)


@pytest.fixture(scope="module")
def address(translator: Translator) -> Iterator[str]:
    with served(application(translator, LIMITS, ["127.0.0.1"])) as address:
        yield address


def asked(address: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, body and headers of an answer."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} | headers
    request = urllib.request.Request(f"{address}/{path}", data, given)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_answers_are_the_translators(translator: Translator, address: str) -> None:
    texts = ["3. Mai 1979", "12/11/2026"]
    body = {"text": "\r\n\n".join(texts), "beam": 3, "nbest": 2}
    status, answer, _ = asked(address, "translate", body)
    assert status == 200
    expected = translator.nbest(texts, 2, SearchOptions(beam=3), alignments=True)
    found = json.loads(answer)["sentences"]
    assert len(found) == len(texts)
    for sentence, translations in zip(found, expected, strict=True):
        assert sentence["source"] == translations[0].src_tokens
        for one, other in zip(sentence["translations"], translations, strict=True):
            assert one["text"] == other.text
            assert one["tokens"] == other.tgt_tokens
            assert one["score"] == pytest.approx(other.score, abs=1e-4)
            assert other.attention is not None
            np.testing.assert_allclose(one["attention"], other.attention.mean(0), atol=1e-3)


def test_a_request_can_set_search_options(translator: Translator, address: str) -> None:
    chosen = {
        **{"beam": 3, "length_penalty": 1, "min_length": 6, "no_repeat_ngram": 2, "top_k": 5},
        **{"ban_unknown": True, "repetition_penalty": 1.5, "temperature": 0.5, "top_p": 0.9},
        **{"prefix": "19", "sample": True, "seed": 4},
    }
    body = {"text": "3. Mai 1979", "nbest": 3, "ban": ["55", "2"], **chosen}
    status, answer, _ = asked(address, "translate", body)
    assert status == 200, answer
    options = SearchOptions(ban=("55", "2"), **chosen)
    (expected,) = translator.nbest(["3. Mai 1979"], 3, options)
    found = json.loads(answer)["sentences"][0]["translations"]
    assert [one["text"] for one in found] == [one.text for one in expected]
    assert all(one["text"].startswith("19") for one in found)
    assert all(len(one["tokens"]) >= 6 for one in found)


def test_one_map_can_be_asked_for(translator: Translator, address: str) -> None:
    _, answer, _ = asked(address, "translate", {"text": "3. Mai", "beam": 1, "map": 2})
    (found,) = json.loads(answer)["sentences"][0]["translations"]
    expected = translator("3. Mai", SearchOptions(beam=1)).attention
    assert expected is not None
    np.testing.assert_allclose(found["attention"], expected[2], atol=1e-3)


@pytest.mark.parametrize(
    ("model", "maps"),
    [(Seq2SeqConfig(embed=4, hidden=6), 0), (AttentionConfig(embed=4, hidden=6), 1), (SMALL, 4)],
)
def test_every_model_is_served(tmp_path: Path, model: ModelConfig, maps: int) -> None:
    opened = translators.load(small_run(tmp_path / "run", model).path)
    with served(application(opened, LIMITS, ["*"])) as address:
        about = json.loads(asked(address, "about")[1])
        assert (len(about["maps"]), about["model"]) == (maps, opened.run.config.model_name)
        assert about["beam"] == 4  # not wider than the widest
        _, answer, _ = asked(address, "translate", {"text": "3. Mai"})
        (one,) = json.loads(answer)["sentences"][0]["translations"]
        assert (one["attention"] is None) == (maps == 0)


def test_options_of_the_server_beyond_the_limit_are_within_it(translator: Translator) -> None:
    """A request that sets nothing is not refused for what the server was started with."""
    text = "3. Mai 1979"
    for search in (SearchOptions(sample=True, mbr=9, temperature=3), SearchOptions(beam=9, mbr=9)):
        with served(application(translator, LIMITS, ["127.0.0.1"], search)) as address:
            status, answer, _ = asked(address, "translate", {"text": text})
        assert status == 200, answer
        narrow = replace(search, beam=min(search.beam, 4), mbr=4)
        (one,) = json.loads(answer)["sentences"][0]["translations"]
        assert one["text"] == translator(text, narrow).text
    with pytest.raises(InputError, match=r"beam_groups = 3 cannot .* most_beam = 4 is the widest"):
        application(translator, LIMITS, [], SearchOptions(beam=9, beam_groups=3))


def test_nothing_but_blanks_is_no_error(address: str) -> None:
    status, answer, _ = asked(address, "translate", {"text": " \n\t\n"})
    assert (status, json.loads(answer)) == (200, {"sentences": []})


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"text": "x" * 81}, 413, "81 characters, at most 80"),
        ({"text": "x\n" * 40, "beam": 1, "nbest": 2}, 400, "nbest must be"),
        ({"text": "a", "beam": 5}, 400, "from 1 to 4"),
        ({"text": "a", "beam": 0}, 400, "from 1 to 4"),
        ({"text": "a", "beam": True}, 400, "integer"),
        ({"text": "a", "beam": "2"}, 400, "integer"),
        ({"text": "a", "map": 4}, 400, "from 0 to 3"),
        ({"text": 7}, 400, "text must be a string"),
        ({"text": "a", "beem": 2}, 400, "unknown field beem"),
        ({"text": "a", "max_ratio": 9}, 400, "unknown field max_ratio"),
        ({"text": "a", "min_length": 1.5}, 400, "min_length must be an integer"),
        ({"text": "a", "min_length": 999}, 400, "min_length = 999 is more than"),
        ({"text": "a", "top_k": 101}, 400, "from 0 to 100"),
        ({"text": "a", "top_p": True}, 400, "top_p must be a number"),
        ({"text": "a", "top_p": 1.5}, 400, "at most 1"),
        ({"text": "a", "sample": 1}, 400, "true or false"),
        ({"text": "a", "stream": 1}, 400, "stream must be true or false"),
        ({"text": "a", "ban": "b"}, 400, "ban must be an array of strings"),
        ({"text": "a", "ban": ["b", 1]}, 400, "ban must be an array of strings"),
        ({"text": "a", "ban": [""]}, 400, "ban = '' has no tokens"),
        ({"text": "a", "prefix": "ω"}, 400, "does not know"),
        ({"text": "a", "prefix": "1979", "ban": ["97"]}, 400, "contains what ban forbids"),
        (b'{"text": "a", "prefix": "\\ud800"}', 400, "prefix holds half of a surrogate pair"),
        (b'{"text": "a", "temperature": NaN}', 400, "temperature = nan"),
        (b'{"text": "a", "temperature": 1' + b"0" * 400 + b"}", 400, "too large"),
        ({}, 400, "text must be a string"),
        ([], 400, "not a JSON object"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"text": "\\ud800"}', 400, "surrogate pair"),
        (b'{"text": "a", "beam": 1e400}', 400, "integer"),
        (b"[" * 1900, 400, "not JSON"),
        (b" " * 3000, 413, "80 characters"),
    ],
)
def test_what_cannot_be_used_is_named(address: str, body: Any, status: int, part: str) -> None:
    found, answer, _ = asked(address, "translate", body)
    assert found == status
    assert part in json.loads(answer)["error"]


def test_too_many_lines_are_refused(translator: Translator) -> None:
    with served(application(translator, Limits(), ["*"])) as address:
        status, answer, _ = asked(address, "translate", {"text": "a\n" * 51})
        assert (status, "51 lines" in json.loads(answer)["error"]) == (413, True)


def test_a_sentence_longer_than_the_model_knows_is_refused(translator: Translator) -> None:
    most = translator.run.config.data.max_source_length
    with served(application(translator, Limits(), ["*"])) as address:
        text = f"3. Mai\n\n{'9' * (most + 1)}"
        status, answer, _ = asked(address, "translate", {"text": text})
    assert status == 413
    assert f"line 3 has {most + 1} tokens" in json.loads(answer)["error"]


def test_other_sites_cannot_ask(address: str) -> None:
    body = json.dumps({"text": "3. Mai"}).encode()
    assert asked(address, "translate", body, **{"Content-Type": "text/plain"})[0] == 415
    status, answer, _ = asked(address, "about", Host="evil.example:80")
    assert (status, "--allow-host evil.example" in json.loads(answer)["error"]) == (400, True)
    assert asked(address, "about", Host="127.0.0.1:9")[0] == 200
    for path in ("", "page.js", "page.css", "about"):
        headers = asked(address, path)[2]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers


class Slow:
    """Holds a translator's searches until `go` is set, and counts them."""

    def __init__(self, translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self.go, self.most = threading.Semaphore(0), threading.Event(), 0
        self.arrived = threading.Semaphore(0)
        self._now, self._nbest = 0, translator.nbest
        self._length = translator.source_length
        monkeypatch.setattr(translator, "nbest", self._slowly)
        monkeypatch.setattr(translator, "source_length", self._arriving)

    def _slowly(self, *arguments: Any, **how: Any) -> Any:
        self._now += 1
        self.most = max(self.most, self._now)
        self.started.release()
        assert self.go.wait(30)
        self._now -= 1
        return self._nbest(*arguments, **how)

    def _arriving(self, text: str) -> int:
        self.arrived.release()
        return self._length(text)


def test_no_more_wait_than_may(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are let in, of which one is served; a third is sent away, and the two get answers."""
    slow = Slow(translator, monkeypatch)
    codes: list[int] = []
    with served(application(translator, LIMITS, ["*"])) as address:

        def ask() -> None:
            codes.append(asked(address, "translate", {"text": "3. Mai", "beam": 1})[0])

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
            assert slow.arrived.acquire(timeout=30)
        assert slow.started.acquire(timeout=30)
        status, answer, _ = asked(address, "translate", {"text": "3. Mai"})
        assert (status, "2 requests are waiting" in json.loads(answer)["error"]) == (503, True)
        slow.go.set()
        for thread in threads:
            thread.join()
    assert codes == [200, 200]
    assert slow.most == 1


def test_who_goes_away_makes_room(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is served and one waits, but not for long: its place is another's."""
    slow = Slow(translator, monkeypatch)
    body = json.dumps({"text": "3. Mai", "beam": 1}).encode()
    head = "POST /translate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with served(application(translator, LIMITS, ["*"])) as address:
        where = ("127.0.0.1", int(address.rsplit(":")[-1]))
        with socket.create_connection(where) as first:
            first.sendall(request)
            assert slow.started.acquire(timeout=30)
            with socket.create_connection(where) as second:
                second.sendall(request)
                for _ in range(2):
                    assert slow.arrived.acquire(timeout=30)
            deadline = time.monotonic() + 30
            codes: list[int] = []

            def ask() -> None:
                codes.append(asked(address, "translate", {"text": "3. Mai", "beam": 1})[0])

            while not codes and time.monotonic() < deadline:
                third = threading.Thread(target=ask)
                third.start()
                third.join(1)  # let in, it waits for the first
                if third.is_alive():
                    slow.go.set()
                    third.join()
                elif codes == [503]:
                    codes.clear()
    assert codes == [200]


def test_half_a_request_takes_no_place(translator: Translator) -> None:
    with served(application(translator, Limits(most_waiting=1), ["*"])) as address:
        where = ("127.0.0.1", int(address.rsplit(":")[-1]))
        with socket.create_connection(where) as half:
            half.sendall(
                b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: 30\r\n\r\n{"
            )
            assert asked(address, "translate", {"text": "3. Mai", "beam": 1})[0] == 200


def test_limits_are_at_least_one() -> None:
    with pytest.raises(InputError, match="most_waiting = 0"):
        Limits(most_waiting=0)


def test_a_streamed_answer_ends_with_the_answer(address: str) -> None:
    body = {"text": "3. Mai 1979\n\n12/11/2026", "beam": 1, "min_length": 12}
    status, streamed, headers = asked(address, "translate", body | {"stream": True})
    assert (status, headers["Content-Type"]) == (200, "application/x-ndjson")
    *partial, last = map(json.loads, streamed.splitlines())
    assert last == json.loads(asked(address, "translate", body)[1])
    texts = [one["translations"][0]["text"] for one in last["sentences"]]
    # A greedy search never takes a token back.
    for index, text in enumerate(texts):
        grown = [one["text"] for one in partial if one["sentence"] == index]
        assert len(grown) > 1
        assert all(b.startswith(a) for a, b in zip(grown, [*grown[1:], text], strict=True))
    beam = {"text": "3. Mai", "beam": 3, "nbest": 2}
    *_, last = map(json.loads, asked(address, "translate", beam | {"stream": True})[1].splitlines())
    assert last == json.loads(asked(address, "translate", beam)[1])


def test_a_stream_that_cannot_be_translated_says_so(address: str) -> None:
    status, answer, _ = asked(address, "translate", {"text": "a", "prefix": "ω", "stream": True})
    (line,) = answer.splitlines()
    assert (status, "does not know" in json.loads(line)["error"]) == (200, True)


def together(address: str, bodies: list[Any]) -> list[tuple[int, Any]]:
    """Asks from as many clients at once."""
    found: list[Any] = [None] * len(bodies)

    def ask(i: int) -> None:
        status, answer, _ = asked(address, "translate", bodies[i])
        found[i] = status, json.loads(answer)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_requests_that_wait_share_batches(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred clients get the answers that they would get alone, in few batches."""
    bodies: list[Any] = [{"text": f"{i}. Mai 1979\n{i}/11/2026", "beam": 1} for i in range(96)]
    bodies += [{"text": "3. Mai", "beam": 1, "sample": True, "seed": s} for s in (1, 2)]
    bodies += [{"text": "3. Mai", "beam": 1, "prefix": "ω"}] * 2
    with served(application(translator, Limits(), ["*"])) as address:
        alone = [asked(address, "translate", body) for body in (bodies[3], bodies[96])]
        slow = Slow(translator, monkeypatch)
        slow.go.set()
        found = together(address, bodies)
    calls = 0
    while slow.started.acquire(blocking=False):
        calls += 1
    assert calls < 60
    assert slow.most == 1
    assert [status for status, _ in found] == [200] * 98 + [400] * 2
    for body, (_, answer) in zip(bodies[:96], found, strict=False):
        expected = translator.translate(body["text"].split("\n"), SearchOptions(beam=1))
        texts = [one["translations"][0]["text"] for one in answer["sentences"]]
        assert texts == [one.text for one in expected]
    assert found[96][1] == json.loads(alone[1][1])


def test_the_content_type_is_read_as_one(address: str) -> None:
    for kind, status in (("Application/JSON; charset=utf-8", 200), ("text/json", 415)):
        assert asked(address, "translate", {"text": "7"}, **{"Content-Type": kind})[0] == status


def test_who_plays_a_proxy_cannot_write_the_log(translator: Translator) -> None:
    lines: list[str] = []
    with served(application(translator, Limits(), ["*"], log=lines.append)) as address:
        for name in ("10.1.2.3", "fe80::1%eth0", "x 1.2.3.4 POST /a 200", "\x9b2J"):
            asked(address, "health", **{"X-Forwarded-For": name})
    clients = [line.split(" ", 1)[1].split(" GET ")[0] for line in lines]
    assert clients[:2] == ["10.1.2.3", "fe80::1%eth0"]
    assert clients[2] == "'x 1.2.3.4 POST /a 200'"
    assert clients[3].isascii()
    assert clients[3].isprintable()


def test_health_and_the_log_of_requests(translator: Translator) -> None:
    lines: list[str] = []
    with served(application(translator, Limits(), ["*"], log=lines.append)) as address:
        status, answer, _ = asked(address, "health")
        assert (status, json.loads(answer)) == (200, {"status": "ok", "waiting": 0})
        asked(address, "translate", {"text": "3. Mai secret", "beam": 1})
        asked(address, "no%0Asuch")
    parts = [line.split(" ") for line in lines]
    assert [part[1:5] for part in parts] == [
        ["127.0.0.1", "GET", "/health", "200"],
        ["127.0.0.1", "POST", "/translate", "200"],
        ["127.0.0.1", "GET", "/no\\nsuch", "404"],
    ]
    assert all(len(part) == 6 and float(part[5]) >= 0 for part in parts)
