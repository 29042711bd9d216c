"""A model family of one's own: the words of the source without their order, then a GRU."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

import encdec


@dataclass(frozen=True)
class BagOfWordsConfig(encdec.ModelConfig):
    """A bag-of-words encoder and a GRU decoder."""

    width: int = 64
    """Width of the embeddings and of the decoder's state."""


class BagOfWords(encdec.EncoderDecoder):
    """p(y | x) = prod_t p(y_t | y_<t, v) with v = tanh(sum_s E[x_s])."""

    def setup(self) -> None:
        """Declares the parameters."""
        width = self.config.width
        self.src_embedding = nn.Embed(self.src_vocabulary, width)
        self.tgt_embedding = nn.Embed(self.tgt_vocabulary, width)
        self.decoder = nn.RNN(nn.GRUCell(width))
        kernel = nn.initializers.glorot_uniform()
        self.kernel = self.param("kernel", kernel, (width, self.tgt_vocabulary))

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> encdec.LogitFactors:
        """All target tokens at once, for training: logits = h W."""
        bag, _ = self.encode(src, src_mask)
        h = self.decoder(self.tgt_embedding(tgt_in), initial_carry=bag)  # [B, T, D]
        return encdec.LogitFactors(h, self.kernel, None)

    def encode(self, src: Array, src_mask: Array) -> Any:
        """The memory: v [B, D], and the mask [B, S]."""
        embedded = self.src_embedding(src)  # [B, S, D]
        return jnp.tanh(embedded.sum(1, where=src_mask[..., None])), src_mask

    def init_cache(self, memory: Any, beams: int, max_len: int) -> Array:
        """The first state of W hypotheses, [B, W, D]; it does not grow with max_len."""
        return jnp.repeat(memory[0][:, None], beams, 1)

    def decode_step(self, memory: Any, cache: Array, tokens: Array) -> tuple[Array, Array, Array]:
        """One token of each hypothesis: tokens [B, W]."""
        cache, h = self.decoder.cell(cache, self.tgt_embedding(tokens))  # [B, W, D]
        no_attention = jnp.zeros((*tokens.shape, 0, memory[1].shape[1]))  # [B, W, M = 0, S]
        logits = encdec.LogitFactors(h, self.kernel, None).logits(self.precision)
        return logits, no_attention, cache


encdec.register("bag-of-words", BagOfWordsConfig, BagOfWords)
