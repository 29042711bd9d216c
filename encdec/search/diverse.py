"""Diverse beam search (Vijayakumar 2016): groups of hypotheses that avoid each other's tokens.

Axes: see `encdec.types`; G groups of W / G hypotheses each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.search.beam import beam_parts
from encdec.search.interface import History, Processor, State
from encdec.search.loop import InitCache, Search, map_hypotheses, whole
from encdec.search.types import SearchResult
from encdec.types import Array, Cache, DecodeStep, Memory


class Diversity(Processor):
    """Lowers tokens by `penalty` for each hypothesis of an earlier group that takes them now.

    A token that is certain has no rival, and keeps its log-probability.

    Attributes:
      taken: float32 [B, V], by how many.
      penalty: float32 [], nats.
    """

    taken: Array
    penalty: Array

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        lowered = log_probs - self.penalty * self.taken[:, None]
        return state, jnp.where(log_probs == 0, log_probs, lowered)


class _Groups(NamedTuple):
    """The loop's state: `cache` is of all W hypotheses, and None in the beams of the groups.

    step: int32 []. done: bool [B, G]. groups: the states of G beam searches.
    """

    step: Array
    done: Array
    cache: Cache
    groups: tuple[Any, ...]


def diverse_parts(
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    max_lengths: Array,
    *,
    beams: int,
    groups: int,
    diversity: Array,
    processors: Sequence[Processor] = (),
    **options: Any,
) -> Search:
    """Finds W hypotheses by G beam searches at once, each with W / G of them.

    Each step serves one group after another. In the choice of a group, the log-probability of a
    token is lowered by `diversity` for each live hypothesis of the groups before it that takes this
    token as its next (Hamming diversity; Vijayakumar 2016, equation 5 and section 4). So the first
    group is a plain beam search. Scores are sums of lowered log-probabilities, and `log_probs` are
    the model's own. Groups do not share what they have finished: two may find the same hypothesis.

    Args:
      step, memory, init_cache, max_lengths: as in `beam_parts`.
      beams: static; W.
      groups: static; G, a divisor of W.
      diversity: float32 [], nats, at least 0.
      processors: what acts on the log-probabilities before the penalty.
      options: all others of `beam_parts`.
    """
    size = beams // groups

    def part(tree: Any, group: int) -> Any:
        return map_hypotheses(lambda x: x[:, group * size : (group + 1) * size], tree)

    def search(group_step: DecodeStep, taken: Array) -> Search:
        return beam_parts(
            group_step,
            memory,
            lambda room: part(init_cache(room), 0),
            max_lengths,
            beams=size,
            processors=(*processors, Diversity(taken, diversity)),
            **options,
        )

    none = jnp.zeros((max_lengths.shape[0], 1))  # of tokens that are taken

    def start() -> _Groups:
        first = search(step, none).start()
        done = jnp.stack([first.done] * groups, 1)
        return _Groups(first.step, done, None, (first,) * groups)

    def advance(s: _Groups) -> _Groups:
        last = jnp.concatenate([group.last for group in s.groups], 1)
        logits, attended, cache = step(memory, s.cache, last)
        taken = jnp.zeros((logits.shape[0], logits.shape[-1]))
        advanced, caches = [], []
        for number, group in enumerate(s.groups):
            made = part((logits, attended, cache), number)
            new = search(lambda *_, made=made: made, taken).advance(group)
            goes_on = ~group.done[:, None] & (new.live > -jnp.inf)
            rows = jnp.arange(len(taken))[:, None]
            taken = taken.at[rows, new.last].add(goes_on.astype(taken.dtype))
            caches.append(new.cache)
            advanced.append(new._replace(cache=None))
        return _Groups(
            s.step + 1,
            jnp.stack([group.done for group in advanced], 1),
            map_hypotheses(lambda *parts: jnp.concatenate(parts, 1), *caches),
            tuple(advanced),
        )

    def result(s: _Groups) -> SearchResult:
        """The hypotheses of all groups, best first."""
        each = [search(step, none).result(group) for group in s.groups]
        found = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *each)
        _, order = jax.lax.top_k(found.scores, beams)

        def in_order(x: Array) -> Array:
            return jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), 1)

        best_first: SearchResult = jax.tree.map(in_order, found)
        return best_first

    def so_far(s: _Groups) -> Array:
        return search(step, none).so_far(s.groups[0])  # that of a plain beam search

    return Search(init_cache, start, advance, result, so_far, options["max_len"])


diverse_beam_search = whole("diverse_beam_search", diverse_parts)
