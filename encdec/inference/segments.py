"""The search of a batch in segments, so that work shrinks as sentences end.

A compiled program has fixed shapes: a batch would cost the same until its last sentence ends. So a
program searches until half of the sentences are done or the cache is full, and what is left goes on
with half the rows, or with a cache of twice the room. These programs have few shapes, and serve
many batches.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from encdec.inference.decoding import Model, Shared, Source
from encdec.parallel import pmap, sharding
from encdec.parallel.layout import Layout
from encdec.search.loop import State, is_live, move, rooms
from encdec.search.methods import Sentences, StaticOptions
from encdec.search.types import SearchResult
from encdec.types import Array, Memory, Params

_FEWEST = 8
"""Rows of a device; a program of fewer would not be faster."""
_FEW = 32
"""The next number of rows after these: a program of 16 saves too little to be worth compiling."""
_STRIDE = 4
"""Steps of a segment that is watched."""

Watch = Callable[[np.ndarray, np.ndarray], None]
"""Gets places in the batch, int [n], and the tokens of the likeliest hypothesis so far of each
sentence there, int32 [n, T], padding after them. Such a sentence is not done."""


class Unfinished(NamedTuple):
    """A batch in the middle of its search, as one device sees it.

    Attributes:
      memory: what the encoders made of the sources.
      sentences: limit, number and prefix of each sentence.
      state: of the search.
    """

    memory: Memory
    sentences: Sentences
    state: State


def find(
    layout: Layout,
    model: Model,
    static: StaticOptions,
    params: tuple[Params, ...],
    shared: Shared,
    sources: tuple[Source, ...],
    sentences: Sentences,
    *,
    cache_grows: bool,
    gather: Callable[[SearchResult], SearchResult],
    watch: Watch | None = None,
) -> SearchResult:
    """Searches a batch to its end.

    Args:
      layout: the devices.
      model, static: what programs depend on.
      params: of each model, on the devices.
      shared: options and weights.
      sources: the B sentences for each model, on the devices.
      sentences: their limits, numbers and prefixes, on the devices.
      cache_grows: whether a cache with room for more tokens is larger.
      gather: makes NumPy arrays of what is on the devices.
      watch: is called every few steps.

    Returns:
      NumPy arrays [B, ...].
    """
    program = partial(_program, layout, model, static)
    room, *further = rooms(static.max_len) if cache_grows else [max(static.max_len, 1)]
    batch = program(_begin, room=room)(params, shared, sources, sentences)
    found: SearchResult | None = None
    places: np.ndarray | None = None  # in the batch, of the rows on the devices: int [data, rows]
    made = 0  # steps
    while True:
        rows = batch.sentences.max_lengths.shape[-1]
        enough = _fewer_rows(rows)
        until = min(room, made + _STRIDE) if watch else room
        limits = np.int32(until), np.int32(enough)
        state, progress = program(_advance)(params, shared, *batch, *limits)
        batch = batch._replace(state=state)
        live, steps = sharding.gather_batch(progress, layout)
        live = live.reshape(layout.data, -1)
        if places is None:
            places = np.arange(live.size).reshape(live.shape)
        most, made = int(live.sum(1).max()), int(steps.max())
        if watch:
            tokens = program(_so_far)(params, shared, batch.sentences, state._replace(cache=None))
            watch(places[live], sharding.gather_batch(tokens, layout)[live.reshape(-1)])
            if most > enough and made < room:
                continue
        if most <= enough:  # some sentences leave the batch
            found = _put(found, gather(program(_result)(params, shared, *batch)), places)
            if most == 0:
                return found
            rows = _rows_for(most)
        # Shards stop at steps of their own: one may be done at the last step, another not near it.
        if made >= room and further:
            room, *further = further
        order = np.argsort(~live, axis=1, kind="stable")[:, :rows].astype(np.int32)
        places = np.take_along_axis(places, order, 1)
        local = order[layout.local_data.start : layout.local_data.stop].reshape(-1)
        order = sharding.shard_batch(local, layout)
        batch = program(_regroup, room=room)(params, shared, *batch, order)


def _rows_for(count: int) -> int:
    """The fewest rows of a program that so many sentences of a device fit into."""
    return _FEWEST if count <= _FEWEST else max(_FEW, 1 << (count - 1).bit_length())


def _fewer_rows(rows: int) -> int:
    """The rows of the next smaller program; 0 if there is none."""
    if rows > _FEW:
        return rows // 2
    return _FEWEST if rows > _FEWEST else 0


def _put(found: SearchResult | None, new: SearchResult, places: np.ndarray) -> SearchResult:
    """`found` with rows at their places. The first rows are all; those that go on come again."""
    if found is None:
        found = jax.tree.map(np.empty_like, new)
    for old, rows in zip(jax.tree.leaves(found), jax.tree.leaves(new), strict=True):
        old[places.reshape(-1)] = rows
    return found


@lru_cache(maxsize=256)
def _program(
    layout: Layout, model: Model, static: StaticOptions, function: Callable[..., Any], **how: Any
) -> Any:
    """One of the functions below, compiled for the devices; `how` is static."""
    has_axis = {  # of devices; params and shared come first
        _begin: (True, True),
        _advance: (True, True, True, False, False),
        _result: (True, True, True),
        _so_far: (True, True),
        _regroup: (True, True, True, True),
    }
    return pmap.parallelize(
        partial(function, model=model, static=static, **how),
        layout,
        (True, False, *has_axis[function]),
        donate=(4,) if function is _advance else (),  # the state
    )


def _begin(
    params: tuple[Params, ...],
    shared: Shared,
    sources: tuple[Source, ...],
    sentences: Sentences,
    *,
    model: Model,
    static: StaticOptions,
    room: int,
) -> Unfinished:
    """Encodes a batch; where sentences have several hypotheses, its search has made one step."""
    memory = model.encode(params, sources, sentences.shortlist, pads=True)
    search = model.search(params, memory, sentences, shared, static, are_alike=True)
    state = search.start()._replace(cache=search.init_cache(room))
    if static.beam > 1 and static.max_len > 0:
        state = search.advance(state)
    return Unfinished(memory, sentences, state)


def _advance(
    params: tuple[Params, ...],
    shared: Shared,
    memory: Memory,
    sentences: Sentences,
    state: State,
    until: Array,
    enough: Array,
    *,
    model: Model,
    static: StaticOptions,
) -> tuple[State, tuple[Array, Array]]:
    """Searches until `until` steps are made, or no more than `enough` sentences are live.

    Returns:
      The state; and which sentences are live, bool [B], with the steps that are made, int32 [1].
    """
    search = model.search(params, memory, sentences, shared, static)

    def goes_on(s: State) -> Array:
        return (s.step < until) & (is_live(s.done).sum() > enough)

    state = jax.lax.while_loop(goes_on, search.advance, state)
    return state, (is_live(state.done), state.step[None])


def _result(
    params: tuple[Params, ...],
    shared: Shared,
    memory: Memory,
    sentences: Sentences,
    state: State,
    *,
    model: Model,
    static: StaticOptions,
) -> SearchResult:
    """What was found so far."""
    return model.search(params, memory, sentences, shared, static).result(state)


def _so_far(
    params: tuple[Params, ...],
    shared: Shared,
    sentences: Sentences,
    state: State,
    *,
    model: Model,
    static: StaticOptions,
) -> Array:
    """The likeliest hypothesis of each sentence, int32 [B, T]; `state` is without its cache."""
    return model.search(params, (), sentences, shared, static).so_far(state)


def _regroup(
    params: tuple[Params, ...],
    shared: Shared,
    memory: Memory,
    sentences: Sentences,
    state: State,
    order: Array,
    *,
    model: Model,
    static: StaticOptions,
    room: int,
) -> Unfinished:
    """The rows `order`, int32 [n], of a batch, with a cache of this room."""

    def take(x: Array) -> Array:
        return jnp.take(x, order, 0, mode="clip") if x.ndim else x

    memory, sentences, state = jax.tree.map(take, (memory, sentences, state))
    new = model.search(params, memory, sentences, shared, static).init_cache(room)
    return Unfinished(memory, sentences, state._replace(cache=move(state.cache, new)))
