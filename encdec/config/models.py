"""Settings of the model families, and what each family can do."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from encdec.config.checks import check_ranges, check_types, require
from encdec.types import InputError, MapKind

_MOST_LAYERS = 1000
_MOST_WIDTH = 2**20

Cell = Literal["simple", "gru", "gru-reset-after", "lstm"]


@dataclass(frozen=True)
class ModelConfig:
    """Base class of every family's settings.

    The class variables and `attention_grid` declare what the family can do; a subclass overrides
    those that differ. The fields of a subclass are its options on the command line.
    """

    split_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that the number of model shards in a layout must divide; none if the parameters of the
    family cannot be split over devices."""
    supports_remat: ClassVar[bool] = False
    """Whether the backward pass can compute layers again instead of keeping their activations."""
    supports_scheduled_sampling: ClassVar[bool] = False
    """Whether training may feed the decoder tokens that the model drew itself."""
    attention_kinds: ClassVar[tuple[MapKind, ...]] = ()
    """The kinds of attention maps that the model has."""
    formats: ClassVar[tuple[str, ...]] = ()
    """The formats of other libraries that a model can be written in."""

    def check_sizes(self, *, layers: str, widths: str) -> None:
        """Raises InputError if a size is one that no machine has room for.

        A model of other sizes is cheap to describe, so that its parameters can be counted.

        Args:
          layers, widths: names of fields, with spaces between them.
        """
        for names, most in ((layers, _MOST_LAYERS), (widths, _MOST_WIDTH)):
            for name in names.split():
                size = getattr(self, name)
                ok = size is None or 1 <= size <= most
                require(ok, self, name, f"at least 1 and at most {most}")

    @property
    def attention_grid(self) -> tuple[int, int]:
        """Layers, and heads in each, of the encoder-decoder maps; layer by layer they are the axis
        M of the attention that `decode_step` returns."""
        return (1, 1) if "encoder-decoder" in self.attention_kinds else (0, 0)

    @property
    def alike_layers(self) -> int:
        """The most layers in a row that are alike, which can be a loop of a program; 0 for none."""
        return 0

    @property
    def longest_sentence(self) -> int | None:
        """The most tokens, the end token included, that a sentence may have; None for any."""
        return None

    @property
    def map_names(self) -> list[str]:
        """A name for each of the M encoder-decoder maps."""
        layers, heads = self.attention_grid
        if layers * heads == 1:
            return ["attention"]
        return [f"layer {l}, head {h}" for l in range(1, layers + 1) for h in range(1, heads + 1)]


@dataclass(frozen=True)
class Seq2SeqConfig(ModelConfig):
    """One fixed vector between two recurrent networks (Cho 2014, Sutskever 2014)."""

    supports_scheduled_sampling = True

    cell: Cell = "gru"
    """Recurrence: tanh RNN, GRU (Cho 2014), GRU as PyTorch and Keras have it (the reset gate acts
    after the product), or LSTM (Sutskever 2014)."""
    layers: int = 1
    """Layers of the encoder, and of the decoder."""
    embed: int = 128
    """Width of the token embeddings."""
    hidden: int = 256
    """Width of a recurrent state."""
    dropout: float = 0.1
    """Dropout rate between layers, and wherever no other rate is given."""
    embedding_dropout: float | None = None
    """Dropout rate of the embeddings; if left out, that of `dropout`."""
    output_dropout: float | None = None
    """Dropout rate before the output projection; if left out, that of `dropout`."""
    recurrent_dropout: float = 0.0
    """Dropout rate of the previous state where it enters the cell, with one mask for all time
    steps (variational dropout, Gal 2016)."""
    context_every_step: bool = False
    """The decoder reads the fixed vector at every step (Cho 2014), not only at the first."""
    reverse_source: bool = True
    """The encoder reads the source backwards (Sutskever 2014, section 3.3)."""

    def __post_init__(self) -> None:
        check_types(self)
        self.check_sizes(layers="layers", widths="embed hidden")
        check_ranges(
            self,
            fractions="dropout embedding_dropout output_dropout recurrent_dropout",
        )


@dataclass(frozen=True)
class AttentionConfig(ModelConfig):
    """A bidirectional encoder and a decoder with attention (Bahdanau 2015, Luong 2015)."""

    supports_scheduled_sampling = True
    attention_kinds = ("encoder-decoder",)

    cell: Cell = "gru"
    """Recurrence: tanh RNN, GRU, GRU whose reset gate acts after the product, or LSTM."""
    layers: int = 1
    """Layers of the encoder (each in both directions), and of the decoder."""
    embed: int = 128
    """Width of the token embeddings."""
    hidden: int = 256
    """Width of a recurrent state, in each direction."""
    dropout: float = 0.1
    """Dropout rate between layers, and wherever no other rate is given."""
    embedding_dropout: float | None = None
    """Dropout rate of the embeddings; if left out, that of `dropout`."""
    memory_dropout: float | None = None
    """Dropout rate of the encoder states that attention reads; if left out, that of `dropout`."""
    output_dropout: float | None = None
    """Dropout rate before the output projection; if left out, that of `dropout`."""
    recurrent_dropout: float = 0.0
    """Dropout rate of the previous state where it enters the cell, with one mask for all time
    steps (variational dropout, Gal 2016)."""
    score: Literal["additive", "general", "dot"] = "additive"
    """How a decoder state is scored against an encoder state: additive (Bahdanau), general or dot
    (Luong)."""
    attention_type: Literal["bahdanau", "conditional", "luong"] = "bahdanau"
    """bahdanau: attention with h(t-1), then the cell; conditional: a cell for the last token,
    attention, a cell for the context (Sennrich 2017); luong: the cell, then attention with h(t)."""
    tie_embeddings: bool = False
    """Target embedding and output projection share one matrix (Press 2017)."""

    def __post_init__(self) -> None:
        check_types(self)
        self.check_sizes(layers="layers", widths="embed hidden")
        check_ranges(
            self,
            fractions="dropout embedding_dropout memory_dropout output_dropout recurrent_dropout",
        )
        if self.score == "dot" and self.hidden % 2:
            raise InputError(
                f"hidden = {self.hidden} cannot be used with score = 'dot': it must be even, since "
                "each direction of the encoder gets half of it"
            )
        if self.tie_embeddings and self.attention_type == "luong" and self.embed != self.hidden:
            raise InputError(
                "tie_embeddings with attention_type = 'luong' needs embed = hidden: "
                f"{self.embed} is not {self.hidden}"
            )
