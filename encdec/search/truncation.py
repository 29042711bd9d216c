"""The rules that flatten a distribution or cut its unlikely tokens, before one is drawn.

`encdec.search.processors` makes them from the search options.
"""

from dataclasses import field

import jax
import jax.numpy as jnp
import numpy as np

from encdec.search.interface import History, Processor, State
from encdec.types import Array

_INFINITY_BITS = 0x7F800000
"""float32 infinity as an integer."""


class Temperature(Processor):
    """log p -> log softmax(log p / temperature): above 1 flatter, towards 0 all on the likeliest.

    Attributes:
      temperature: float32 [], above 0.
    """

    temperature: Array | np.float32

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        # The largest is 0, so that the quotients are finite where they matter.
        best = log_probs.max(-1, keepdims=True)
        quotients = (log_probs - best) / self.temperature
        # XLA may multiply by the reciprocal, 0 for the highest temperatures, and -inf * 0 is NaN.
        is_forbidden = jnp.isneginf(log_probs)
        scaled = jax.nn.log_softmax(jnp.where(is_forbidden, -jnp.inf, quotients))
        # A hypothesis that has no token left would become NaN.
        return state, jnp.where(is_forbidden, -jnp.inf, scaled)


class TopK(Processor):
    """Forbids all but the k likeliest tokens (Fan 2018, section 5.4); not normalised again."""

    k: int = field(metadata={"static": True})

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        if self.k >= log_probs.shape[-1]:
            return state, log_probs
        least = jax.lax.top_k(log_probs, self.k)[0][..., -1:]
        return state, jnp.where(log_probs >= least, log_probs, -jnp.inf)


class TopP(Processor):
    """Forbids all but the fewest likeliest tokens whose probabilities add up to p or more.

    Holtzman 2020, section 3.1. A token is forbidden if the tokens that are likelier have at least
    the probability p together. Probabilities are normalised over the tokens that are left; the
    likeliest token and tokens as likely as the last one stay. The result is not normalised again.

    Attributes:
      p: float32 [], above 0.
      rest: float32 [], 1 - p, above 0; where p is near 1, float32 has more digits for it.
    """

    p: Array | np.float32
    rest: Array | np.float32

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        loss = log_probs.max(-1, keepdims=True) - log_probs  # 0 for the likeliest
        loss = jnp.where(jnp.isneginf(log_probs), jnp.inf, loss)
        mass = jnp.exp(-loss)
        total = mass.sum(-1)
        # Floats that are not negative have the order of their bits, so bisection over these finds
        # the largest loss that a token may have in one pass for each bit; sorting is slower.
        bits = jax.lax.bitcast_convert_type(loss, jnp.int32)

        def stays(limit: Array) -> Array:
            """Whether a token whose loss has these bits stays."""
            likelier = bits < limit[..., None]
            before = jnp.where(likelier, mass, 0).sum(-1)
            after = jnp.where(likelier, 0, mass).sum(-1)
            # The smaller of the two parts is the more exact sum.
            return jnp.where(self.p <= 0.5, before < self.p * total, after > self.rest * total)

        def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = low + (high - low + 1) // 2
            ok = stays(middle)
            return jnp.where(ok, middle, low), jnp.where(ok, high, middle - 1)

        low = jnp.zeros(log_probs.shape[:-1], jnp.int32)
        high = jnp.full_like(low, _INFINITY_BITS)
        least, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
        return state, jnp.where(bits <= least[..., None], log_probs, -jnp.inf)


class EpsilonCutoff(Processor):
    """Forbids tokens less likely than epsilon, but never the likeliest (Hewitt 2022, section 3.1;
    Freitag 2023, section 3.2); not normalised again.

    Attributes:
      epsilon: float32 [], a probability.
    """

    epsilon: Array | np.float32

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        normalised = jax.nn.log_softmax(log_probs)
        stays = (normalised >= jnp.log(self.epsilon)) | (
            log_probs == log_probs.max(-1, keepdims=True)
        )
        return state, jnp.where(stays, log_probs, -jnp.inf)
