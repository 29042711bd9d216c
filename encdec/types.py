"""Glossary: the letters of array axes, and the types that the parts of the library share.

B sentences · S source length · T target length · W beam width · D model width · H heads ·
K head width · F feed-forward width · V vocabulary · L layers · M attention maps (0 where a model
has none, 1 for a recurrent decoder, L·H for a Transformer) · N devices.

Lengths are in tokens, losses in nats, times in seconds. A mask is bool and True means keep.
Papers are cited by first author and year; PAPERS.md has their titles and links.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from jax import Array
else:  # settings and the help of commands do without JAX, which takes a second to import
    Array = Any


class SpecialIds(NamedTuple):
    """The ids of a vocabulary that are not part of any text.

    The defaults are those of the vocabularies that this package builds; a model that was trained
    elsewhere has others.

    Attributes:
      pad: fills a row after the end of the sentence.
      start: what the decoder reads before the first target token; it may be the same as `pad`.
      end: the last token of a sentence.
      unknown: stands for every token that the vocabulary does not have.
    """

    pad: int = 0
    start: int = 1
    end: int = 2
    unknown: int = 3


MapKind = Literal["encoder-decoder", "encoder", "decoder"]
"""Kinds of attention maps: target tokens over the source, the source over itself, the target over
itself."""

Precision = Literal["float32", "tf32", "bfloat16"]
"""Of matrix products. What is multiplied is float32; or rounded to TensorFloat-32, with 10 bits (on
a GPU; a TPU multiplies three parts in bfloat16); or to bfloat16, with 7. All sums are float32."""

Weights = Literal["float32", "int8"]
"""Of the matrices of a model that translates on a CPU: as they were trained, or 8-bit integers, see
`encdec.ops.int8`."""

Params = Any
"""A pytree of float32 arrays: the parameters of one model."""
Memory = Any
"""A pytree of arrays with leading axis B: all that depends on the source only."""
Cache = Any
"""A pytree of arrays with leading axes [B, W], and of `Kept`: what one hypothesis carries from step
to step."""


class Kept(NamedTuple):
    """The part of a cache that all hypotheses of a sentence share.

    A search that puts hypotheses in other places leaves it as it is.

    Attributes:
      tree: a pytree of arrays with leading axis B.
    """

    tree: Any


class InputError(ValueError):
    """Bad input of a person: one line that names it and says what would do."""


class Batch(NamedTuple):
    """Sentence pairs padded to one shape.

    A row whose masks are False everywhere is an empty pair, which changes no loss and no gradient.

    Attributes:
      src: int32 [B, S], each row source tokens, the end token, then padding; or, for a family
        that takes features, float32 [B, S, D].
      src_mask: bool [B, S], False where `src` is padding.
      tgt: int32 [B, T + 1], each row the start token, target tokens, the end token, then padding.
      tgt_mask: bool [B, T], False where `tgt[:, 1:]`, the tokens to predict, is padding.
    """

    src: "np.ndarray | Array"
    src_mask: "np.ndarray | Array"
    tgt: "np.ndarray | Array"
    tgt_mask: "np.ndarray | Array"


DecodeStep = Callable[[Memory, Cache, Array], tuple[Array, Array, Cache]]
"""(memory, cache, tokens int32 [B, W]) -> (logits [B, W, V], attention [B, W, M, S], cache).

Adds one token to each hypothesis, with the parameters bound: all that search knows of a model."""
