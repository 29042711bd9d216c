"""The paths of a beam search: what its steps record, and how a path is followed back.

Axes: see `encdec.types`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.search.finished import Finished
from encdec.types import Array, SpecialIds


class Record(NamedTuple):
    """What each step did to the live beam. tokens, parents: int32 [B, W, T]. log_probs: float32
    [B, W, T], under the model, of the hypothesis in each place with its new token. attention:
    [B, W, T, M, S] or None."""

    tokens: Array
    parents: Array
    log_probs: Array
    attention: Array | None


def follow(
    record: Record, paths: Finished, specials: SpecialIds
) -> tuple[Array, Array, Array | None]:
    """Follows back-pointers: tokens and their log-probabilities [B, W, T], attention
    [B, W, T, M, S].

    `place` is where a path is in the beam after step t. A path's last token was never in the live
    beam: it follows the parent itself.
    """
    steps = record.tokens.shape[2]
    by_step = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), record)

    def back(
        place: Array, x: tuple[Array, Record]
    ) -> tuple[Array, tuple[Array, Array, Array | None]]:
        t, made = x
        on_path, is_last = t < paths.lengths, t == paths.lengths - 1
        token = jnp.take_along_axis(made.tokens, place, 1)
        token = jnp.where(on_path, jnp.where(is_last, paths.tokens, token), specials.pad)
        total = jnp.take_along_axis(made.log_probs, place, 1)
        total = jnp.where(is_last, paths.log_probs, total)
        came_from = jnp.take_along_axis(made.parents, place, 1)
        before = jnp.where(on_path & ~is_last, came_from, place)
        attention = made.attention
        if attention is not None:
            attention = jnp.take_along_axis(attention, before[..., None, None], 1)
            attention = jnp.where(on_path[..., None, None], attention, 0)
        return before, (token, total, attention)

    _, (tokens, totals, attention) = jax.lax.scan(
        back, paths.parents, (jnp.arange(steps), by_step), reverse=True
    )
    # What a token added to the total of its path.
    gains = totals - jnp.pad(totals[:-1], [(1, 0), (0, 0), (0, 0)])
    gains = jnp.where(jnp.arange(steps)[:, None, None] < paths.lengths[None], gains, 0)
    if attention is not None:
        attention = jnp.moveaxis(attention, 0, 2)
    return jnp.moveaxis(tokens, 0, 2), jnp.moveaxis(gains, 0, 2), attention
