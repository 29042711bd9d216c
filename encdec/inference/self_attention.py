"""Self-attention maps of a translation, which the search does not compute."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from encdec.data.batches import round_length
from encdec.inference.translation import Translation
from encdec.models.interface import EncoderDecoder, bind
from encdec.types import Array, MapKind, Params


def self_attention_maps(
    params: Params, translation: Translation, start: int, kind: MapKind, model: EncoderDecoder
) -> np.ndarray:
    """Computes the self-attention of one side for a translation.

    Args:
      params: as the one device holds them.
      translation: a translation by the same model.
      start: the id of the start token of the target vocabulary.
      kind: "encoder" or "decoder".
      model: of these parameters, one that has self-attention.

    Returns:
      float32 [M, S, S] for the encoder, [M, T, T] for the decoder, layer by layer.
    """
    src, tgt_in = translation.src_ids, [start, *translation.tgt_ids[:-1]]
    padded_src = _padded(src)[None]
    src_mask = np.arange(padded_src.shape[1])[None] < len(src)
    program = _self_attention_program(model)
    maps = program(params, padded_src, src_mask, _padded(tgt_in)[None])[kind][0]
    side = len(src) if kind == "encoder" else len(tgt_in)
    return np.asarray(maps[..., :side, :side]).reshape(-1, side, side)


def self_attention(
    params: Params, src: Array, src_mask: Array, tgt_in: Array, *, model: EncoderDecoder
) -> dict[MapKind, Array]:
    """Self-attention maps of encoder and decoder for given target tokens.

    Args:
      params: float32 pytree; one device holds all of it.
      src, src_mask: as in `Batch`.
      tgt_in: int32 [B, T], the start token before each target.
      model: static; one that has self-attention.

    Returns:
      By kind, float32: "encoder" [B, L, H, S, S] and "decoder" [B, L, H, T, T].
    """
    _, captured = bind(model, params)(
        src, src_mask, tgt_in, method="logit_factors", mutable=["intermediates"]
    )
    return model.self_attention_maps(captured["intermediates"])


@lru_cache(maxsize=8)
def _self_attention_program(model: EncoderDecoder) -> Any:
    """`self_attention` compiled for one device; once for each model."""
    return jax.jit(partial(self_attention, model=model))


def _padded(ids: Sequence[int]) -> np.ndarray:
    """Ids as int32, padded with 0 to one of a few lengths."""
    return np.pad(np.asarray(ids, np.int32), (0, round_length(len(ids)) - len(ids)))
