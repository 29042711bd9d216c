"""A model of one's own that a search cannot use is named by what is wrong with it."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from encdec.search.beam import beam_search
from encdec.search.diverse import diverse_beam_search
from encdec.search.sampling import greedy, sample
from encdec.search.types import SearchResult
from encdec.types import InputError, Kept, SpecialIds

B, V, LIMIT = 2, 7, 5
TABLE = jnp.linspace(0, 1, V * V).reshape(V, V)
KEYS = jax.random.split(jax.random.key(0), B)
SEARCHES: dict[str, tuple[Callable[..., SearchResult], int]] = {
    "greedy": (greedy, 1),
    "beam_search": (partial(beam_search, beams=4), 4),
    "diverse_beam_search": (
        partial(diverse_beam_search, beams=4, groups=2, diversity=jnp.ones(())),
        4,
    ),
    "sample": (lambda *given, **how: sample(*given, KEYS, samples=3, **how), 3),
}


def step(memory, cache, tokens):
    return TABLE[tokens], jnp.zeros((*tokens.shape, 0, 1)), cache


def search(name: str, **other: Any) -> SearchResult:
    """The search of a bigram model, or of one with another part."""
    function, width = SEARCHES[name]
    cache: dict[str, Any] = {"cache": jnp.zeros((B, width)), "kept": Kept(jnp.zeros(B))}
    given = {
        "step": step,
        "memory": (),
        "init_cache": lambda room: cache,
        "max_lengths": jnp.full(B, LIMIT),
    } | other
    return function(*given.values(), max_len=LIMIT, specials=SpecialIds())


@pytest.mark.parametrize("name", SEARCHES)
def test_a_right_model_is_searched(name: str) -> None:
    assert search(name).tokens.shape == (B, SEARCHES[name][1], LIMIT)


@pytest.mark.parametrize("function", [greedy, sample, beam_search, diverse_beam_search])
def test_help_shows_the_name_and_what_is_returned(function: Callable[..., SearchResult]) -> None:
    assert SEARCHES.keys() >= {function.__name__}
    assert inspect.signature(function).return_annotation is SearchResult


def changed(**parts: Callable[[Any], Any]) -> Callable[..., tuple]:
    """A step of which some results are others."""

    def other(*given):
        results = dict(zip(("logits", "attention", "cache"), step(*given), strict=True))
        return tuple(parts.get(name, lambda x: x)(value) for name, value in results.items())

    return other


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"step": lambda *given: step(*given)[:2]}, r"returned 2 values: .*\(logits, attention, c"),
        ({"step": lambda *given: TABLE}, r"returned float32\[7, 7\]: it must return \(logits"),
        ({"step": 3}, "step is a int: it must be a function"),
        (
            {"step": changed(logits=lambda x: x[:, 0])},
            r"logits float32\[2, 7\]: .*float32\[B, W, V\] with \[B, W\] = \[2, [134]\]$",
        ),
        ({"step": changed(attention=lambda x: None)}, r"attention a NoneType: .*zeros \[B, W, 0"),
        ({"step": changed(cache=lambda x: x["cache"])}, "got the cache .* and returned .*stay"),
        ({"init_cache": jnp.zeros(B)}, r"init_cache is float32\[2\]: it must be a function"),
        ({"init_cache": lambda room: jnp.zeros(B)}, r"init_cache returned float32\[2\]: .*\[B, W"),
        ({"max_lengths": 5}, r"max_lengths is a int: it must be int32\[B\]"),
        ({"max_lengths": [5, 5]}, "max_lengths is a list"),
        ({"max_lengths": jnp.ones((B, 1), jnp.int32)}, r"max_lengths is int32\[2, 1\]"),
    ],
)
def test_a_wrong_part_is_named(name: str, other: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        search(name, **other)
