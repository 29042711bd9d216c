"""Settings of the Transformer: the paper's by default, and a choice for each thing in which models
trained by others differ from it."""

import math
from dataclasses import dataclass
from typing import Literal

from encdec.config.checks import check_ranges, check_types, require
from encdec.config.models import ModelConfig
from encdec.types import InputError

Positions = Literal[
    "sinusoidal", "sinusoidal-halves", "sinusoidal-tensor2tensor", "learned", "relative"
]


@dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    """N encoder and N decoder layers of attention and feed-forward (Vaswani 2017)."""

    split_fields = ("heads", "feed_forward")
    supports_remat = True
    attention_kinds = ("encoder-decoder", "encoder", "decoder")
    formats = ("transformers", "ctranslate2")

    layers: int = 4
    """Layers of the encoder, and of the decoder (N in the paper)."""
    decoder_layers: int | None = None
    """Layers of the decoder; if left out, as many as the encoder has."""
    width: int = 128
    """Width of the residual stream (d_model in the paper)."""
    feed_forward: int = 256
    """Hidden size of the feed-forward sub-layer (d_ff in the paper)."""
    heads: int = 4
    """Attention heads (h in the paper); they must divide the width unless `head_width` is given."""
    head_width: int | None = None
    """Width of a head's queries, keys and values (d_k in the paper); if left out, width / heads."""
    dropout: float = 0.1
    """Dropout rate of the embeddings and of each sub-layer's output (section 5.4)."""
    embedding_dropout: float | None = None
    """Dropout rate of embeddings plus positions; if left out, that of `dropout`."""
    attention_dropout: float = 0.0
    """Dropout rate of the attention weights (not in the paper)."""
    activation_dropout: float = 0.0
    """Dropout rate inside the feed-forward sub-layer (not in the paper)."""
    stack_dropout: float = 0.0
    """Dropout rate of what each stack returns (T5; not in the paper)."""
    norm: Literal["post", "pre"] = "post"
    """post: a norm after each residual sum (as in the paper); pre: before each sub-layer, and one
    more at the end of each stack."""
    norm_type: Literal["layer", "rms"] = "layer"
    """layer: layer norm (Ba 2016); rms: no mean and no bias (Zhang 2019)."""
    norm_epsilon: float = 1e-5
    """What a norm adds to the variance."""
    embedding_norm: bool = False
    """A norm of embeddings plus positions (BART)."""
    activation: Literal["relu", "gelu", "gelu-tanh", "silu"] = "relu"
    """Nonlinearity of the feed-forward sub-layer; gelu-tanh approximates gelu (Hendrycks 2016)."""
    gated: bool = False
    """The feed-forward sub-layer multiplies its hidden units by a second, linear projection
    (Shazeer 2020)."""
    biases: Literal["feed-forward", "all", "none"] = "feed-forward"
    """Which linear layers have a bias: those of the feed-forward sub-layer (as in the paper), those
    of attention too, or none."""
    output_bias: bool | None = None
    """A bias of the logits; if left out, there is one unless `tie_embeddings`."""
    positions: Positions = "sinusoidal"
    """sinusoidal: sines and cosines in turn (section 3.5); sinusoidal-halves: all sines, then all
    cosines (Marian); sinusoidal-tensor2tensor: the same with the frequencies of Tensor2Tensor
    (M2M100); learned: a table (BART); relative: a bias of the attention scores by distance (T5)."""
    position_offset: int = 0
    """The position of the first token."""
    max_positions: int = 1024
    """Tokens of the longest sentence that learned positions have room for."""
    relative_buckets: int = 32
    """Distances that relative positions tell apart."""
    relative_max_distance: int = 128
    """The distance from which on all have one bucket of relative positions."""
    relative_every_layer: bool = False
    """Each layer has relative positions of its own (UMT5), instead of one table for each stack."""
    scale_embeddings: bool = True
    """Embeddings are multiplied by sqrt(width) (section 3.4)."""
    scale_scores: bool = True
    """Attention scores are divided by sqrt(head width) (equation 1); T5 does not."""
    scale_outputs: bool = False
    """What the output projection reads is divided by sqrt(width) (T5)."""
    tie_embeddings: bool = False
    """Target embedding and output projection share one matrix; with a joint vocabulary the source
    embedding shares it too (section 3.4)."""
    share_embeddings: bool = False
    """With a joint vocabulary source and target embedding share one matrix, whatever the output
    projection does."""

    def __post_init__(self) -> None:
        check_types(self)
        self.check_sizes(
            layers="layers decoder_layers",
            widths="width feed_forward heads head_width max_positions relative_buckets",
        )
        check_ranges(
            self,
            positive="relative_max_distance",
            fractions="dropout embedding_dropout attention_dropout activation_dropout "
            "stack_dropout",
        )
        require(self.norm_epsilon >= 0, self, "norm_epsilon", "at least 0")
        self._check_positions()
        if self.head_width is None and self.width % self.heads:
            low = [h for h in range(1, math.isqrt(self.width) + 1) if self.width % h == 0]
            fits = {*low, *(self.width // h for h in low)}
            near = sorted(sorted(fits, key=lambda h: abs(h - self.heads))[:3])
            raise InputError(
                f"heads = {self.heads} do not divide width = {self.width}: "
                f"heads of {', '.join(map(str, near))} would, or give head_width"
            )

    def _check_positions(self) -> None:
        if self.positions.startswith("sinusoidal") and self.width % 2:
            raise InputError(
                f"width = {self.width} cannot be used: sine and cosine need an even one"
            )
        if self.position_offset < 0:
            raise InputError(f"position_offset = {self.position_offset} must be at least 0")
        buckets = self.relative_buckets
        if buckets % 2 or buckets < 4 or self.relative_max_distance <= buckets // 2:
            raise InputError(
                f"relative_buckets = {buckets} cannot be used with relative_max_distance = "
                f"{self.relative_max_distance}: give an even number of at least 4 buckets, and a "
                "distance above half of it"
            )

    @property
    def layers_of_decoder(self) -> int:
        """The number of decoder layers."""
        return self.layers if self.decoder_layers is None else self.decoder_layers

    @property
    def alike_layers(self) -> int:
        return max(self.layers, self.layers_of_decoder)

    @property
    def width_of_head(self) -> int:
        """K, the width of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def has_output_bias(self) -> bool:
        """Whether the logits have a bias."""
        return not self.tie_embeddings if self.output_bias is None else self.output_bias

    @property
    def longest_sentence(self) -> int | None:
        return self.max_positions if self.positions == "learned" else None

    @property
    def attention_grid(self) -> tuple[int, int]:
        return self.layers_of_decoder, self.heads
