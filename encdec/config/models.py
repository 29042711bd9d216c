"""Sizes and choices of the three systems."""

from dataclasses import dataclass
from typing import Any, Literal

from encdec.config.checks import check_literals, check_ranges
from encdec.types import InputError

Cell = Literal["simple", "gru", "lstm"]


@dataclass(frozen=True)
class Seq2SeqConfig:
    """One fixed vector between two recurrent networks (Cho 2014, Sutskever 2014)."""

    cell: Cell = "gru"
    """Recurrence: tanh RNN, GRU (Cho 2014) or LSTM (Sutskever 2014)."""
    layers: int = 1
    """Layers of the encoder, and of the decoder."""
    embed: int = 128
    """Width of the token embeddings."""
    hidden: int = 256
    """Width of a recurrent state."""
    dropout: float = 0.1
    """Share of activations dropped between layers, and wherever no other share is given."""
    embedding_dropout: float | None = None
    """Share dropped of the embeddings; left out, as dropout."""
    output_dropout: float | None = None
    """Share dropped before the output projection; left out, as dropout."""
    recurrent_dropout: float = 0.0
    """Share dropped of the last state on its way into the cell, one mask for all time steps
    (variational: Gal 2016)."""
    context_every_step: bool = False
    """The decoder sees the fixed vector at every step (Cho 2014), not only at its start."""
    reverse_source: bool = True
    """The encoder reads the source backwards (Sutskever 2014, section 3.3)."""

    def __post_init__(self) -> None:
        check_literals(self)
        check_ranges(
            self,
            positive="layers embed hidden",
            fractions="dropout embedding_dropout output_dropout recurrent_dropout",
        )


@dataclass(frozen=True)
class AttentionConfig:
    """A bidirectional encoder and a decoder that looks back (Bahdanau 2015, Luong 2015)."""

    cell: Cell = "gru"
    """Recurrence: tanh RNN, GRU or LSTM."""
    layers: int = 1
    """Layers of the encoder (each in both directions), and of the decoder."""
    embed: int = 128
    """Width of the token embeddings."""
    hidden: int = 256
    """Width of a recurrent state, in each direction."""
    dropout: float = 0.1
    """Share of activations dropped between layers, and wherever no other share is given."""
    embedding_dropout: float | None = None
    """Share dropped of the embeddings; left out, as dropout."""
    memory_dropout: float | None = None
    """Share dropped of the encoder's states before they are looked at; left out, as dropout."""
    output_dropout: float | None = None
    """Share dropped before the output projection; left out, as dropout."""
    recurrent_dropout: float = 0.0
    """Share dropped of the last state on its way into the cell, one mask for all time steps
    (variational: Gal 2016)."""
    score: Literal["additive", "general", "dot"] = "additive"
    """Score of a state against a source state: additive (Bahdanau), general or dot (Luong)."""
    attention_type: Literal["bahdanau", "conditional", "luong"] = "bahdanau"
    """bahdanau: score with h(t-1), then the cell; conditional: a cell for the last token, the
    score, a cell for the context (Sennrich 2017); luong: the cell, then score with h(t)."""
    tie_embeddings: bool = False
    """Target embedding and output projection share one matrix (Press 2017)."""

    def __post_init__(self) -> None:
        check_literals(self)
        check_ranges(
            self,
            positive="layers embed hidden",
            fractions="dropout embedding_dropout memory_dropout output_dropout recurrent_dropout",
        )
        if self.tie_embeddings and self.attention_type == "luong" and self.embed != self.hidden:
            raise InputError(
                "tie_embeddings with attention_type = 'luong' needs embed = hidden: "
                f"{self.embed} is not {self.hidden}"
            )


@dataclass(frozen=True)
class TransformerConfig:
    """N encoder and N decoder layers of attention and feed-forward (Vaswani 2017)."""

    layers: int = 4
    """Layers of the encoder, and of the decoder (N in the paper)."""
    width: int = 128
    """Width of the residual stream (d_model in the paper)."""
    feed_forward: int = 256
    """Inner width of the feed-forward sub-layer (d_ff in the paper)."""
    heads: int = 4
    """Attention heads (h in the paper); they must divide the width."""
    dropout: float = 0.1
    """Share dropped from embeddings and from each sub-layer's output (section 5.4)."""
    embedding_dropout: float | None = None
    """Share dropped of the embeddings with their positions; left out, as dropout."""
    attention_dropout: float = 0.0
    """Share of attention weights dropped (not in the paper)."""
    activation_dropout: float = 0.0
    """Share dropped inside the feed-forward sub-layer (not in the paper)."""
    norm: Literal["post", "pre"] = "post"
    """Layer norm after each residual sum (the paper) or before each sub-layer."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Nonlinearity of the feed-forward sub-layer."""
    tie_embeddings: bool = False
    """Target embedding and output projection share one matrix; with a joint vocabulary the
    source embedding too (section 3.4)."""

    def __post_init__(self) -> None:
        check_literals(self)
        check_ranges(
            self,
            positive="layers width feed_forward heads",
            fractions="dropout embedding_dropout attention_dropout activation_dropout",
        )
        if self.width % self.heads:
            fits = [h for h in range(1, self.width + 1) if self.width % h == 0]
            near = sorted(sorted(fits, key=lambda h: abs(h - self.heads))[:3])
            raise InputError(
                f"heads = {self.heads} do not divide width = {self.width}: "
                f"heads of {', '.join(map(str, near))} would"
            )
        if self.width % 2:
            raise InputError(
                f"width = {self.width} cannot be used: sine and cosine need an even one"
            )


ModelConfig = Seq2SeqConfig | AttentionConfig | TransformerConfig

MODELS: dict[str, type[Any]] = {
    "seq2seq": Seq2SeqConfig,
    "attention": AttentionConfig,
    "transformer": TransformerConfig,
}
