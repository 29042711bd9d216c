"""A Transformer written in the format of CTranslate2, a fast translator for CPUs and GPUs.

    model.bin               the parameters, float32
    config.json             special tokens, and the epsilon of norms
    shared_vocabulary.json  the tokens; or source_vocabulary.json and target_vocabulary.json

`ctranslate2.Translator(folder)` reads the folder and translates lists of tokens. It computes what
our module computes, in every setting of `TransformerConfig`, and token ids stay the same.
`compute_type="int8"` makes it smaller and faster. What differs:

- A bias of -10,000 keeps the padding and the start token out of its translations. Our search
  excludes them as well, but leaves the other log-probabilities as they are.
- No sentence may be longer than the table of position encodings: `max_positions` where they are
  learned, 2,048 tokens where they are sinusoidal, any length where they are relative.
- It gives at least one token unless `min_decoding_length=0`, and its beam search has another rule
  for when to stop.
- Before version 4.8.3 it ignores `relative_every_layer` and uses the first layer's positions.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from encdec.config import TransformerConfig
from encdec.models.transformer_positions import SINUSOIDS
from encdec.types import InputError, Params, SpecialIds

ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu-tanh": "GELUTanh", "silu": "SWISH"}
"""Our names of activations, and theirs."""

SINUSOIDAL_POSITIONS = 2048
"""Rows of a table of sinusoidal encodings, which CTranslate2 reads; ours are for any length."""

EXCLUDED = -1e4
"""The bias of a token that no hypothesis may have; float16, which CTranslate2 can use, has it."""


def write_model(
    folder: Path,
    config: TransformerConfig,
    params: Params,
    src_tokens: list[str],
    tgt_tokens: list[str],
    *,
    src_specials: SpecialIds,
    tgt_specials: SpecialIds,
    add_source_bos: bool = False,
    add_source_eos: bool = True,
) -> None:
    """Writes the files that `ctranslate2.Translator` reads.

    The decoder starts with the start token of the target.

    Args:
      folder: an empty folder.
      config: settings of the model.
      params: its parameters, whole, not split over devices.
      src_tokens, tgt_tokens: the token of each id, the special ones included. Where both are the
        same list, the vocabulary is written once.
      src_specials, tgt_specials: ids of the special tokens. CTranslate2 has one name for the end
        token of both sides, one for the unknown token, and one for the start token of sources.
      add_source_bos: CTranslate2 puts the start token of the source before each source.
      add_source_eos: CTranslate2 puts the end token after each source, as our own pipeline does.

    Raises:
      InputError: CTranslate2 is not installed, or a vocabulary does not fit the parameters or the
        format.
      OSError: a file cannot be written.
    """
    spec = _empty_spec(config)
    params = _as_numpy(params)
    of_target = params["tgt_embedding"]["embedding"]
    of_source = params.get("src_embedding", params["tgt_embedding"])["embedding"]
    _check_tokens("src_tokens", src_tokens, of_source)
    _check_tokens("tgt_tokens", tgt_tokens, of_target)
    _check_specials(src_tokens, tgt_tokens, src_specials, tgt_specials)

    _set_encoder(spec.encoder, config, params, of_source)
    _set_decoder(spec.decoder, config, params, of_target)
    _set_projection(spec.decoder, config, params, tgt_specials)
    spec.register_source_vocabulary(src_tokens)
    spec.register_target_vocabulary(tgt_tokens)
    spec.config.bos_token = src_tokens[src_specials.start]
    spec.config.eos_token = tgt_tokens[tgt_specials.end]
    spec.config.unk_token = tgt_tokens[tgt_specials.unknown]
    spec.config.decoder_start_token = tgt_tokens[tgt_specials.start]
    spec.config.add_source_bos = add_source_bos
    spec.config.add_source_eos = add_source_eos
    spec.config.layer_norm_epsilon = config.norm_epsilon
    spec.validate()
    spec.optimize(None)  # what is equal, such as tied matrices, is written once
    spec.save(str(folder))


def _empty_spec(config: TransformerConfig) -> Any:
    """What CTranslate2 calls the specification of a model, with no arrays yet."""
    try:
        from ctranslate2.specs import common_spec, transformer_spec
    except ImportError as error:
        raise InputError(
            "CTranslate2 is not installed: pip install 'encdec[ctranslate2]'"
        ) from error
    return transformer_spec.TransformerSpec.from_config(
        (config.layers, config.layers_of_decoder),
        config.heads,
        pre_norm=config.norm == "pre",
        activation=common_spec.Activation[ACTIVATIONS[config.activation]],
        layernorm_embedding=config.embedding_norm,
        relative_attention_bias=config.positions == "relative",
        ffn_glu=config.gated,
        rms_norm=config.norm_type == "rms",
    )


def _as_numpy(params: Params) -> dict[str, Any]:
    """A tree of float32 NumPy arrays in plain dictionaries."""
    return {
        name: _as_numpy(value) if isinstance(value, Mapping) else np.asarray(value, np.float32)
        for name, value in params.items()
    }


def _check_tokens(name: str, tokens: list[str], embedding: np.ndarray) -> None:
    if len(tokens) != len(embedding):
        raise InputError(
            f"{name} has {len(tokens)} tokens, but the model has {len(embedding)}: give one for "
            "each id"
        )
    ((commonest, count),) = Counter(tokens).most_common(1)
    if count > 1:
        raise InputError(
            f"{name} has {commonest!r} more than once: CTranslate2 needs a different token for "
            "each id"
        )


def _check_specials(
    src_tokens: list[str], tgt_tokens: list[str], src_specials: SpecialIds, tgt_specials: SpecialIds
) -> None:
    """Checks that special tokens are known to both sides by one name.

    To a vocabulary that lacks one of them CTranslate2 would add it, beyond the last row of the
    embedding.
    """
    for kind in ("end", "unknown"):
        source = src_tokens[getattr(src_specials, kind)]
        target = tgt_tokens[getattr(tgt_specials, kind)]
        if source != target:
            raise InputError(
                f"the {kind} token is {source!r} in src_tokens and {target!r} in tgt_tokens: "
                "CTranslate2 needs one name for both sides"
            )
    start = src_tokens[src_specials.start]
    if start not in tgt_tokens:
        raise InputError(
            f"the start token of the source, {start!r}, is not in tgt_tokens: CTranslate2 needs it "
            "in both vocabularies"
        )


def _set_encoder(
    spec: Any, config: TransformerConfig, params: dict[str, Any], embedding: np.ndarray
) -> None:
    (of_embedding,) = spec.embeddings
    of_embedding.weight = embedding
    _set_stack(spec, config, params, 0)
    for i, layer in enumerate(spec.layer):
        ours = params[f"encoder_{i}"]
        _set_attention(layer.self_attention, config, ours["attention"], ours["add_norms_0"])
        _set_relative(layer.self_attention, config, params, "encoder", i)
        _set_feed_forward(layer.ffn, ours["feed_forward"], ours["add_norms_1"])


def _set_decoder(
    spec: Any, config: TransformerConfig, params: dict[str, Any], embedding: np.ndarray
) -> None:
    spec.embeddings.weight = embedding
    _set_stack(spec, config, params, 1)
    for i, layer in enumerate(spec.layer):
        ours = params[f"decoder_{i}"]
        _set_attention(layer.self_attention, config, ours["self_attention"], ours["add_norms_0"])
        _set_relative(layer.self_attention, config, params, "decoder", i)
        _set_attention(layer.attention, config, ours["cross_attention"], ours["add_norms_1"])
        _set_feed_forward(layer.ffn, ours["feed_forward"], ours["add_norms_2"])


def _set_projection(
    spec: Any, config: TransformerConfig, params: dict[str, Any], specials: SpecialIds
) -> None:
    """The output projection, with a bias that excludes what our search excludes."""
    logits = params.get("logits", {})
    tied = params["tgt_embedding"]["embedding"]
    weight = tied if config.tie_embeddings else logits["kernel"].T
    bias = np.array(logits["bias"]) if config.has_output_bias else np.zeros(len(weight), np.float32)
    # A vocabulary may start a sentence with its end token, which must stay possible.
    bias[list({specials.pad, specials.start} - {specials.end})] = EXCLUDED
    spec.projection.weight, spec.projection.bias = weight, bias
    if config.scale_outputs:
        spec.scale_outputs = np.float32(config.width**-0.5)


def _set_stack(spec: Any, config: TransformerConfig, params: dict[str, Any], stack: int) -> None:
    """What is around the layers of the encoder (stack 0) or the decoder (stack 1)."""
    spec.scale_embeddings = config.scale_embeddings
    first, side = config.position_offset, ("src", "tgt")[stack]
    if config.positions == "learned":
        spec.position_encodings.encodings = params[f"{side}_positions"]["table"][first:]
    elif config.positions != "relative":
        rows = SINUSOIDS[config.positions](first + SINUSOIDAL_POSITIONS, config.width)
        spec.position_encodings.encodings = rows[first:]
    if config.embedding_norm:
        _set_norm(spec.layernorm_embedding, params[f"embedding_norms_{stack}"])
    if config.norm == "pre":
        _set_norm(spec.layer_norm, params[f"final_norms_{stack}"])


def _set_attention(
    spec: Any, config: TransformerConfig, params: dict[str, Any], add_norm: dict[str, Any]
) -> None:
    """Attention and the norm around it.

    CTranslate2 has one matrix for queries, keys and values in self-attention; in encoder-decoder
    attention, one for queries and one for keys and values.
    """
    # Kernels [D, H, K] become [D, H K], as those of other linear layers.
    layers = [
        {"kernel": params[f"w{letter}"].reshape(config.width, -1)}
        | ({"bias": params[f"b{letter}"].reshape(-1)} if config.biases == "all" else {})
        for letter in "qkv"
    ]
    output = {"kernel": params["wo"].reshape(-1, config.width)}
    if config.biases == "all":
        output["bias"] = params["bo"]
    groups = [layers] if len(spec.linear) == 2 else [layers[:1], layers[1:]]
    for linear, group in zip(spec.linear, [*groups, [output]], strict=True):
        _set_linear(linear, group)
    spec.queries_scale = np.float32(config.width_of_head**-0.5 if config.scale_scores else 1)
    _set_norm(spec.layer_norm, add_norm["norm"])


def _set_relative(
    spec: Any, config: TransformerConfig, params: dict[str, Any], side: str, layer: int
) -> None:
    """The relative positions of a layer; where all layers have one table, each refers to it."""
    if config.positions == "relative":
        table = params[f"{side}_bias_{layer if config.relative_every_layer else 0}"]["table"]
        spec.relative_attention_bias = table
        spec.relative_attention_max_distance = np.int32(config.relative_max_distance)


def _set_feed_forward(spec: Any, params: dict[str, Any], add_norm: dict[str, Any]) -> None:
    _set_linear(spec.linear_0, [params["Dense_0"]])
    _set_linear(spec.linear_1, [params["Dense_1"]])
    if "linear" in params:
        _set_linear(spec.linear_0_noact, [params["linear"]])
    _set_norm(spec.layer_norm, add_norm["norm"])


def _set_linear(spec: Any, layers: Iterable[dict[str, np.ndarray]]) -> None:
    """One matrix [outputs, inputs] of several layers that read the same, and its bias, if any."""
    spec.weight = np.concatenate([layer["kernel"].T for layer in layers])
    biases = [layer["bias"] for layer in layers if "bias" in layer]
    if biases:
        spec.bias = np.concatenate(biases)


def _set_norm(spec: Any, params: dict[str, np.ndarray]) -> None:
    spec.gamma = params["scale"]
    if "bias" in params:
        spec.beta = params["bias"]
