"""BART and its relatives in the hub library's format: Marian, mBART, Pegasus, M2M100 and NLLB.

They share the names of their arrays. What differs is in the settings below: the norm, positions,
activation, and which matrices are tied.
"""

from encdec.config import TransformerConfig
from encdec.interop.names import Entry, Fields, embeddings
from encdec.types import InputError

MODEL_TYPES = ("marian", "bart", "mbart", "pegasus", "m2m_100")

ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_fast": "gelu-tanh",
    "silu": "silu",
    "swish": "silu",
}
"""Their names of activations, and ours."""

SOURCES = ("model.encoder.embed_tokens.weight", "model.shared.weight")
TARGETS = ("model.decoder.embed_tokens.weight", "model.shared.weight", "lm_head.weight")
OUTPUT = "lm_head.weight"
"""The names of embeddings and output; of a shared matrix a file may have any."""

_POSITIONS = {
    "marian": ("sinusoidal-halves", 0),
    "pegasus": ("sinusoidal-halves", 0),
    "bart": ("learned", 2),
    "mbart": ("learned", 2),
    # Positions count from one more than the id of padding, which is 1.
    "m2m_100": ("sinusoidal-tensor2tensor", 2),
}


def activation(fields: Fields, name: str) -> str:
    """Our name of the activation in a field.

    Raises:
      InputError: we do not have it.
    """
    theirs = fields.require(name, str)
    if theirs not in ACTIVATIONS:
        raise InputError(
            f"{fields.path}: {name} = {theirs!r} is not supported ({', '.join(ACTIVATIONS)})"
        )
    return ACTIVATIONS[theirs]


def model_config(fields: Fields) -> TransformerConfig:
    """The settings of a model.

    Raises:
      InputError: a field is missing, or has a value that we do not have.
    """
    kind = fields.require("model_type", str)
    for ours in ("attention_heads", "ffn_dim"):
        encoder, decoder = (
            fields.require(f"{side}_{ours}", int) for side in ("encoder", "decoder")
        )
        if encoder != decoder:
            raise InputError(
                f"{fields.path}: encoder_{ours} = {encoder} and decoder_{ours} = {decoder}: a "
                "model whose sides differ in that is not supported"
            )
    positions, offset = _POSITIONS[kind]
    if kind == "m2m_100":
        offset = fields.require("pad_token_id", int) + 1
    return TransformerConfig(
        layers=fields.require("encoder_layers", int),
        decoder_layers=fields.require("decoder_layers", int),
        width=fields.require("d_model", int),
        feed_forward=fields.require("encoder_ffn_dim", int),
        heads=fields.require("encoder_attention_heads", int),
        dropout=fields.require("dropout", float),
        attention_dropout=fields.require("attention_dropout", float),
        activation_dropout=fields.require("activation_dropout", float),
        norm="post" if kind in ("marian", "bart") else "pre",
        norm_epsilon=1e-5,
        embedding_norm=kind in ("bart", "mbart"),
        activation=activation(fields, "activation_function"),  # type: ignore[arg-type]
        biases="all",
        output_bias=kind != "m2m_100",
        positions=positions,  # type: ignore[arg-type]
        position_offset=offset,
        max_positions=fields.require("max_position_embeddings", int),
        scale_embeddings=fields.require("scale_embedding", bool),
        tie_embeddings=True,
    )


def table(config: TransformerConfig, joint: bool) -> list[Entry]:
    """The names of all parameters that a model of these settings may have.

    A parameter that a model lacks, such as an embedding of the source that is also the target's, is
    left out by who uses the table.

    Args:
      config: numbers of layers, and whether the output is tied.
      joint: both sides have one embedding.
    """
    entries = [
        *embeddings(SOURCES, TARGETS, OUTPUT, config.tie_embeddings, joint),
        Entry("logits.bias", ("final_logits_bias",)),
    ]
    for stack, (side, ours) in enumerate((("encoder", "src"), ("decoder", "tgt"))):
        theirs = f"model.{side}"
        entries += [
            Entry(f"{ours}_positions.table", (f"{theirs}.embed_positions.weight",)),
            *_norm(f"embedding_norms_{stack}", f"{theirs}.layernorm_embedding"),
            *_norm(f"final_norms_{stack}", f"{theirs}.layer_norm"),
        ]
    for i in range(config.layers):
        ours, theirs = f"encoder_{i}", f"model.encoder.layers.{i}"
        entries += _attention(f"{ours}.attention", f"{theirs}.self_attn")
        entries += _norm(f"{ours}.add_norms_0.norm", f"{theirs}.self_attn_layer_norm")
        entries += _feed_forward(ours, theirs)
        entries += _norm(f"{ours}.add_norms_1.norm", f"{theirs}.final_layer_norm")
    for i in range(config.layers_of_decoder):
        ours, theirs = f"decoder_{i}", f"model.decoder.layers.{i}"
        entries += _attention(f"{ours}.self_attention", f"{theirs}.self_attn")
        entries += _norm(f"{ours}.add_norms_0.norm", f"{theirs}.self_attn_layer_norm")
        entries += _attention(f"{ours}.cross_attention", f"{theirs}.encoder_attn")
        entries += _norm(f"{ours}.add_norms_1.norm", f"{theirs}.encoder_attn_layer_norm")
        entries += _feed_forward(ours, theirs)
        entries += _norm(f"{ours}.add_norms_2.norm", f"{theirs}.final_layer_norm")
    return entries


def _attention(ours: str, theirs: str) -> list[Entry]:
    letters = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    return [
        entry
        for letter, name in letters.items()
        for entry in (
            Entry(f"{ours}.w{letter}", (f"{theirs}.{name}.weight",), 2 if letter == "o" else 1),
            Entry(f"{ours}.b{letter}", (f"{theirs}.{name}.bias",)),
        )
    ]


def _feed_forward(ours: str, theirs: str) -> list[Entry]:
    return [
        entry
        for i in range(2)
        for entry in (
            Entry(f"{ours}.feed_forward.Dense_{i}.kernel", (f"{theirs}.fc{i + 1}.weight",), 1),
            Entry(f"{ours}.feed_forward.Dense_{i}.bias", (f"{theirs}.fc{i + 1}.bias",)),
        )
    ]


def _norm(ours: str, theirs: str) -> list[Entry]:
    return [
        Entry(f"{ours}.scale", (f"{theirs}.weight",)),
        Entry(f"{ours}.bias", (f"{theirs}.bias",)),
    ]
