"""T5 and its relatives in the hub library's format: T5 v1.1, Flan-T5, mT5, UMT5 and ByT5."""

from encdec.config import TransformerConfig
from encdec.interop.bart import ACTIVATIONS
from encdec.interop.names import Entry, Fields, embeddings
from encdec.types import InputError

MODEL_TYPES = ("t5", "mt5", "umt5")

SOURCES = ("encoder.embed_tokens.weight", "shared.weight")
TARGETS = ("decoder.embed_tokens.weight", "shared.weight", "lm_head.weight")
OUTPUT = "lm_head.weight"
"""The names of embeddings and output; of a shared matrix a file may have any."""


def model_config(fields: Fields) -> TransformerConfig:
    """The settings of a model.

    Whether the output projection is tied is seen from the arrays: see `encdec.interop.hub`.

    Raises:
      InputError: a field is missing, or has a value that we do not have.
    """
    kind = fields.require("model_type", str)
    dropout = fields.require("dropout_rate", float)
    layers = fields.require("num_layers", int)
    projection = fields.require("feed_forward_proj", str)
    *gate, name = projection.split("-")
    if gate not in ([], ["gated"]) or name not in ACTIVATIONS:
        raise InputError(f"{fields.path}: feed_forward_proj = {projection!r} is not supported")
    return TransformerConfig(
        layers=layers,
        decoder_layers=fields.get("num_decoder_layers", int, layers),
        width=fields.require("d_model", int),
        feed_forward=fields.require("d_ff", int),
        heads=fields.require("num_heads", int),
        head_width=fields.require("d_kv", int),
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        stack_dropout=dropout,
        norm="pre",
        norm_type="rms",
        norm_epsilon=fields.require("layer_norm_epsilon", float),
        # The published "gated-gelu" is the approximation by tanh.
        activation="gelu-tanh" if projection == "gated-gelu" else ACTIVATIONS[name],  # type: ignore[arg-type]
        gated=bool(gate),
        biases="none",
        output_bias=False,
        positions="relative",
        relative_buckets=fields.require("relative_attention_num_buckets", int),
        relative_max_distance=fields.require("relative_attention_max_distance", int),
        relative_every_layer=kind == "umt5",
        scale_embeddings=False,
        scale_scores=False,
        scale_outputs=_scales_outputs(fields),
        tie_embeddings=True,
    )


def _scales_outputs(fields: Fields) -> bool:
    """Whether features are divided by sqrt(D) before the output projection.

    Newer files say so; in older ones it follows from whether the projection is tied. mT5 never is.
    """
    if fields.require("model_type", str) == "mt5":
        return False
    is_tied = fields.get("tie_word_embeddings", bool, True)
    explicit: bool = fields.get("scale_decoder_outputs", bool, is_tied)
    return explicit


def table(config: TransformerConfig, joint: bool) -> list[Entry]:
    """The names of all parameters that a model of these settings may have (see `bart.table`)."""
    entries = [
        *embeddings(SOURCES, TARGETS, OUTPUT, config.tie_embeddings, joint),
        Entry("final_norms_0.scale", ("encoder.final_layer_norm.weight",)),
        Entry("final_norms_1.scale", ("decoder.final_layer_norm.weight",)),
    ]
    for i in range(config.layers):
        ours, theirs = f"encoder_{i}", f"encoder.block.{i}.layer"
        entries += _attention(f"{ours}.attention", f"{theirs}.0.SelfAttention")
        entries += _feed_forward(ours, f"{theirs}.1", config.gated)
        entries += _norms(ours, theirs, 2)
        entries += _relative(f"encoder_bias_{i}", f"{theirs}.0")
    for i in range(config.layers_of_decoder):
        ours, theirs = f"decoder_{i}", f"decoder.block.{i}.layer"
        entries += _attention(f"{ours}.self_attention", f"{theirs}.0.SelfAttention")
        entries += _attention(f"{ours}.cross_attention", f"{theirs}.1.EncDecAttention")
        entries += _feed_forward(ours, f"{theirs}.2", config.gated)
        entries += _norms(ours, theirs, 3)
        entries += _relative(f"decoder_bias_{i}", f"{theirs}.0")
    return entries


def _attention(ours: str, theirs: str) -> list[Entry]:
    return [
        Entry(f"{ours}.w{letter}", (f"{theirs}.{letter}.weight",), 2 if letter == "o" else 1)
        for letter in "qkvo"
    ]


def _feed_forward(ours: str, theirs: str, gated: bool) -> list[Entry]:
    names = {"Dense_0": "wi_0", "linear": "wi_1"} if gated else {"Dense_0": "wi"}
    return [
        Entry(f"{ours}.feed_forward.{name}.kernel", (f"{theirs}.DenseReluDense.{of}.weight",), 1)
        for name, of in (names | {"Dense_1": "wo"}).items()
    ]


def _norms(ours: str, theirs: str, count: int) -> list[Entry]:
    return [
        Entry(f"{ours}.add_norms_{j}.norm.scale", (f"{theirs}.{j}.layer_norm.weight",))
        for j in range(count)
    ]


def _relative(ours: str, theirs: str) -> list[Entry]:
    name = f"{theirs}.SelfAttention.relative_attention_bias.weight"
    return [Entry(f"{ours}.table", (name,))]
