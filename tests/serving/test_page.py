"""The page in a real browser, which asks nobody but the server."""

import shutil
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from encdec.config.search import SearchOptions
from encdec.inference import translator as translators
from encdec.inference.translator import Translator
from encdec.serving.app import application
from encdec.serving.limits import Limits
from tests.serving.server import served
from tests.small_run import small_run

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
DATE = "3. Mai 1979"
MARKUP = "<img src=x onerror=alert(1)><b>3. Mai</b>"

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome on PATH: the page was not tested"
)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    # Untrained: what it says is nonsense, but it says it at length, and its attention is known.
    return translators.load(small_run(tmp_path_factory.mktemp("runs") / "dates", ending=-1).path)


@pytest.fixture(scope="module")
def address(translator: Translator) -> Iterator[str]:
    with served(application(translator, Limits(most_characters=60), ["127.0.0.1"])) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=BROWSER, args=FLAGS, chromium_sandbox=False
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    """The open page; at the end no request has left this machine, and no script has failed."""
    made = browser.new_page(viewport={"width": 360, "height": 640})  # a small phone
    asked: list[str] = []
    failed: list[str] = []
    made.on("request", lambda request: asked.append(request.url))
    made.on("pageerror", lambda error: failed.append(str(error)))
    made.on("dialog", lambda dialog: failed.append(f"dialog: {dialog.message}"))
    made.goto(address)
    expect(made.locator("#run")).to_have_text("dates")
    yield made
    made.close()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith("data:")}
    assert hosts == {"127.0.0.1"}
    assert not failed


def translated(page: Page, text: str) -> None:
    page.locator("#text").fill(text)
    page.get_by_role("button", name="Translate").click()
    expect(page.locator("#status")).to_contain_text("Translated", timeout=180_000)


def shades(page: Page, row: str) -> list[float]:
    tokens = page.get_by_role("group", name=row).locator(".token")
    return [
        float(value)
        for value in tokens.evaluate_all(
            "all => all.map(one => one.style.getPropertyValue('--shade') || 0)"
        )
    ]


def test_a_date_is_translated_and_pointing_at_a_token_lights_up_its_source(
    page: Page, translator: Translator
) -> None:
    found = translator(DATE)
    assert found.attention is not None
    translated(page, DATE)
    expect(page.locator(".text")).to_have_text(found.text)
    row = page.get_by_role("group", name="Tokens of translation 1")
    assert row.locator(".token").all_text_contents() == found.tgt_tokens
    source = page.get_by_role("group", name="Source tokens")
    assert source.locator(".token").all_text_contents() == found.src_tokens
    weights = found.attention.mean(0)
    row.locator(".token").nth(1).hover()
    np.testing.assert_allclose(shades(page, "Source tokens"), weights[1], atol=1e-3)
    most = found.src_tokens[int(weights[1].argmax())]
    share = round(100 * float(weights[1].max()))
    expect(page.locator("#attended")).to_contain_text(f"attended to “{most}” {share} %")
    source.locator(".token").nth(2).hover()
    np.testing.assert_allclose(shades(page, "Tokens of translation 1"), weights[:, 2], atol=1e-3)
    page.locator("#run").hover()
    assert not any(shades(page, "Source tokens"))


def test_the_keyboard_does(page: Page, translator: Translator) -> None:
    """Nothing but keys: from the text to a translation, and along its tokens."""
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("1999")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Translated", timeout=180_000)
    for _ in range(10):
        page.keyboard.press("Tab")
        group = page.evaluate("document.activeElement.parentElement.ariaLabel")
        if group == "Tokens of translation 1":
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    found = translator("1999")
    assert found.attention is not None
    np.testing.assert_allclose(
        shades(page, "Source tokens"), found.attention.mean(0)[-2], atol=1e-3
    )


def test_a_map_and_several_translations_can_be_chosen(page: Page, translator: Translator) -> None:
    page.locator("#nbest").fill("3")
    page.locator("#beam").fill("2")  # follows: three translations need a beam of three
    translated(page, DATE)
    expect(page.locator("#beam")).to_have_value("3")
    best = translator.nbest([DATE], 3, SearchOptions(beam=3), alignments=True)[0]
    assert page.locator(".text").all_text_contents() == [one.text for one in best]
    with page.expect_response("**/translate"):
        page.locator("#map").select_option("layer 2, head 1")
    expect(page.locator("#status")).to_contain_text("Translated", timeout=180_000)
    third = page.get_by_role("group", name="Tokens of translation 3")
    third.locator(".token").first.hover()
    assert best[2].attention is not None
    np.testing.assert_allclose(shades(page, "Source tokens"), best[2].attention[2][0], atol=1e-3)


def test_markup_is_text(page: Page) -> None:
    translated(page, MARKUP)
    tokens = page.get_by_role("group", name="Source tokens").locator(".token")
    seen = tokens.all_text_contents()[:-1]
    known = [c for c, token in zip(MARKUP, seen, strict=True) if c == token]
    assert "3" in known
    assert set(seen) <= {*MARKUP, "⁇", "▁"}
    assert page.locator("main img, main b").count() == 0


def test_a_translation_of_markup_is_text(page: Page, translator: Translator, monkeypatch) -> None:
    """Whatever a model may say."""
    nbest = translator.nbest

    def saying(*arguments: Any, **how: Any) -> Any:
        return [
            [
                type(one)(**vars(one) | {"text": MARKUP, "tgt_tokens": [MARKUP] * len(one.tgt_ids)})
                for one in sentence
            ]
            for sentence in nbest(*arguments, **how)
        ]

    monkeypatch.setattr(translator, "nbest", saying)
    translated(page, DATE)
    expect(page.locator(".text")).to_have_text(MARKUP)
    expect(page.locator("main img, main b")).to_have_count(0)
    page.get_by_role("group", name="Tokens of translation 1").locator(".token").first.hover()
    expect(page.locator("#attended")).to_contain_text(MARKUP)


def test_a_translation_is_seen_while_it_grows(
    page: Page, translator: Translator, monkeypatch
) -> None:
    nbest, go = translator.nbest, threading.Event()

    def held(*arguments: Any, **how: Any) -> Any:
        how["watch"](1, MARKUP)
        assert go.wait(60)
        return nbest(*arguments, **how)

    monkeypatch.setattr(translator, "nbest", held)
    page.locator("#text").fill("1999\n2001")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".growing")).to_have_text(["", MARKUP])
    expect(page.locator("#status")).to_contain_text("Translating")
    go.set()
    expect(page.locator("#status")).to_contain_text("Translated", timeout=180_000)
    expect(page.locator(".growing")).to_have_count(0)
    expected = nbest(["1999", "2001"], 1, alignments=True)
    expect(page.locator(".text")).to_have_text([best.text for (best,) in expected])


def test_refusals_are_shown_and_nothing_is_wider_than_a_phone(page: Page) -> None:
    page.locator("#text").fill("9" * 61)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("61 characters, at most 60")
    translated(page, "9" * 60)
    expect(page.get_by_role("alert")).to_have_text("")
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def test_a_server_that_has_gone_is_told_of(browser: Any, translator: Translator) -> None:
    with served(application(translator, Limits(), ["*"])) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#run")).to_have_text("dates")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.close()
