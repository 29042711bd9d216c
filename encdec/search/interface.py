"""The hook between the model's log-probabilities and the choice of a token.

Greedy search, sampling and beam search call the same list of processors at every step, in order:

    state, log_probs = processor(state, log_probs, history)

A processor is a rule: it forbids a token by -inf, or makes it more or less likely. It is pure: what
it remembers of a hypothesis is its state, which beam search reorders together with the tokens.

Axes: see `encdec.types`; T is here the most tokens that a hypothesis may have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, dataclass_transform

import jax
import jax.numpy as jnp

from encdec.search.checks import check_same
from encdec.types import Array, InputError

State = Any
"""A pytree of arrays [B, W, ...]: what a processor remembers of each hypothesis."""

NO_TOKEN = -2
"""Stands in `History` before the first token; no id is negative."""


class History(NamedTuple):
    """The tokens so far.

    Attributes:
      tokens: int32 [B, W, T], the tokens of each hypothesis, then padding. The start token is not
        among them.
      length: int32 [], how many tokens each hypothesis has: the number of the step.
    """

    tokens: Array
    length: Array

    @property
    def last(self) -> Array:
        """The last token of each hypothesis, int32 [B, W]; -2 where there is none yet."""
        return self.latest(1)[..., 0]

    def latest(self, count: int) -> Array:
        """The last `count` tokens of each hypothesis, int32 [B, W, count]; -2 before the first."""
        padded = jnp.pad(self.tokens, [(0, 0), (0, 0), (count, 0)], constant_values=NO_TOKEN)
        return jax.lax.dynamic_slice_in_dim(padded, self.length, count, 2)

    @property
    def is_token(self) -> Array:
        """Which of the T places hold a token: bool [T]."""
        return jnp.arange(self.tokens.shape[-1]) < self.length


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Processor:
    """A rule of the search. A subclass is a frozen dataclass, and a pytree of its fields.

    Fields are arrays or numbers, which can change without compiling the search again; a field that
    shapes depend on is declared as `field(metadata={"static": True})`. Define the subclass once, at
    the top of a module: each new class compiles the search again.
    """

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))

    def init(self, history: History) -> State:
        """The state of hypotheses that have no token yet; `history.tokens` gives B, W and T.

        Its arrays have leading axes [B, W]. A rule that remembers nothing has the state ().
        """
        return ()

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        """The next state, and the log-probabilities that the next token is chosen by.

        Args:
          state: from `init`, or from the step before; it belongs to the same hypothesis.
          log_probs: float32 [B, W, V], nats, at most 0; -inf for a token that cannot be chosen.
          history: the tokens so far. What is returned for a hypothesis that has ended is ignored.

        Returns:
          The state, of the same shapes, and float32 [B, W, V], at most 0: beam search stops early
          because no step can raise a score. To favour a token, return
          `jax.nn.log_softmax(log_probs + bonus)`.
        """
        raise NotImplementedError


def check_processors(processors: Sequence[Processor]) -> None:
    """Raises InputError if something else than processors is among the processors."""
    if isinstance(processors, Processor):
        raise InputError("processors is one processor: give a list of them, [processor]")
    if not isinstance(processors, Iterable):
        kind = type(processors).__name__
        raise InputError(f"processors is a {kind}: give a list of encdec.Processor")
    for processor in processors:
        if isinstance(processor, type):
            raise InputError(
                f"processors has the class {processor.__name__}: give an instance of it, "
                f"{processor.__name__}()"
            )
        if not isinstance(processor, Processor):
            raise InputError(
                f"processors has {processor!r}, which is no encdec.Processor: make its class a "
                "subclass of that"
            )


def init_states(processors: Sequence[Processor], history: History) -> tuple[State, ...]:
    """The state of every processor before the first token."""
    states = tuple(processor.init(history) for processor in processors)
    leading = history.tokens.shape[:2]
    for processor, state in zip(processors, states, strict=True):
        for leaf in jax.tree.leaves(state):
            if jnp.shape(leaf)[:2] != leading:
                raise InputError(
                    f"{type(processor).__name__}.init returned an array of shape "
                    f"{jnp.shape(leaf)}: it must begin with [B, W] = {list(leading)}"
                )
    return states


def process(
    processors: Sequence[Processor],
    states: tuple[State, ...],
    log_probs: Array,
    history: History,
    end: int,
) -> tuple[tuple[State, ...], Array]:
    """One step of all processors, in order.

    Where they leave a hypothesis no token at all, it may only end: the end token then has the
    model's own log-probability.

    Args:
      processors, states: the rules, and what each remembers.
      log_probs: float32 [B, W, V], the model's own.
      history: the tokens so far.
      end: id of the end token.

    Returns:
      The next states, and float32 [B, W, V].
    """
    processed, next_states = log_probs, []
    for processor, state in zip(processors, states, strict=True):
        returned: Any = processor(state, processed, history)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise InputError(
                f"{type(processor).__name__} returned {type(returned).__name__}: it must return "
                "(state, log_probs)"
            )
        new_state, processed = returned
        check_same(type(processor).__name__, "state", state, new_state)
        next_states.append(new_state)
        if processed.shape != log_probs.shape or processed.dtype != jnp.float32:
            raise InputError(
                f"{type(processor).__name__} returned {processed.dtype}{list(processed.shape)}: "
                f"it must be float32{list(log_probs.shape)}"
            )
    nothing_left = jnp.isneginf(processed).all(-1, keepdims=True)
    is_end = jnp.arange(log_probs.shape[-1]) == end
    return tuple(next_states), jnp.where(nothing_left & is_end, log_probs, processed)
