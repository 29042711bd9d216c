"""Small random models of the hub library, in every dialect that we import."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")

V = 37


def _bart_like(kind: str, **changes: Any) -> Callable[[], Any]:
    settings = {
        "vocab_size": V,
        "d_model": 12,
        "encoder_layers": 3,  # with fewer than the decoder has, `generate` of theirs fails
        "decoder_layers": 2,
        "encoder_ffn_dim": 20,
        "decoder_ffn_dim": 20,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "max_position_embeddings": 64,
        "init_std": 0.5,
    }
    if kind == "Marian":
        settings |= {"pad_token_id": V - 1, "decoder_start_token_id": V - 1, "eos_token_id": 0}
    suffix = "MTModel" if kind == "Marian" else "ForConditionalGeneration"
    return lambda **more: getattr(transformers, kind + suffix)(
        getattr(transformers, f"{kind}Config")(**settings | changes | more)
    )


def _t5_like(kind: str, **changes: Any) -> Callable[[], Any]:
    settings = {
        "vocab_size": V,
        "d_model": 12,
        "d_kv": 5,
        "d_ff": 20,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
    }
    return lambda **more: getattr(transformers, f"{kind}ForConditionalGeneration")(
        getattr(transformers, f"{kind}Config")(**settings | changes | more)
    )


MODELS = {
    "marian": _bart_like("Marian", scale_embedding=True, activation_function="swish"),
    "marian-two-vocabularies": _bart_like(
        "Marian",
        scale_embedding=True,
        activation_function="relu",
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=41,
    ),
    "bart": _bart_like("Bart", activation_function="gelu"),
    "bart-untied": _bart_like(
        "Bart", activation_function="gelu_new", scale_embedding=True, tie_word_embeddings=False
    ),
    "mbart": _bart_like("MBart", activation_function="gelu", scale_embedding=True),
    "mbart-wide": _bart_like("MBart", activation_function="relu", d_model=24),
    "pegasus": _bart_like("Pegasus", activation_function="relu", scale_embedding=True),
    "pegasus-gelu": _bart_like("Pegasus", activation_function="gelu"),
    "m2m100": _bart_like("M2M100", scale_embedding=True),
    "m2m100-unscaled": _bart_like("M2M100", scale_embedding=False, activation_function="gelu"),
    "t5": _t5_like("T5"),
    "t5-untied": _t5_like("T5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5-silu": _t5_like("T5", feed_forward_proj="gated-silu"),
    "mt5": _t5_like("MT5", tie_word_embeddings=False),
    "umt5": _t5_like("UMT5"),
}
"""By name; each is a function, as making one takes a moment."""


def make(name: str, **settings: Any) -> Any:
    """A model in evaluation, with biases and norms that are not 0 and 1, and its own output where
    the name says so; `settings` are further fields of its config.json."""
    torch.manual_seed(0)
    model = MODELS[name](**settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
        if "untied" in name or name == "mt5":
            weight = torch.randn_like(model.lm_head.weight) * 0.3
            model.lm_head.weight = torch.nn.Parameter(weight)
    return model


def save(model: Any, folder: Path, **how: Any) -> Path:
    """Saves a model as the hub library does."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model.save_pretrained(folder, **how)
    return folder
