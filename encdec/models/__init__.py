"""The three systems, as Linen modules with one interface (see `encdec.models.build`)."""

import flax.linen as nn

from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.models.attentional import Attentional
from encdec.models.seq2seq import Seq2Seq
from encdec.models.transformer import Transformer


def build(
    config: ModelConfig, src_vocabulary: int, tgt_vocabulary: int, *, joint: bool = False
) -> nn.Module:
    """The module of a configuration.

    Each has `__call__(src, src_mask, tgt_in) -> logits`, the same but for the last product as
    `logit_factors` for training, and for search `encode`, `init_cache` and `decode_step`.

    Args:
      config: sizes and choices.
      src_vocabulary, tgt_vocabulary: sizes, in tokens.
      joint: both sides have one vocabulary.
    """
    if isinstance(config, Seq2SeqConfig):
        return Seq2Seq(config, src_vocabulary, tgt_vocabulary)
    if isinstance(config, AttentionConfig):
        return Attentional(config, src_vocabulary, tgt_vocabulary)
    return Transformer(config, src_vocabulary, tgt_vocabulary, joint)
