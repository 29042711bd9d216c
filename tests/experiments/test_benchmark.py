"""The benchmark compares like with like: both frameworks compute the same thing."""

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TransformerConfig,
)
from encdec.models import registry
from encdec.training.optimizer import optimizer
from encdec.training.step import TrainState, train_step
from encdec.types import InputError, Params, SpecialIds

END = SpecialIds().end

FOLDER = Path(__file__).parents[2] / "experiments"
CONFIGS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(embed=6, hidden=10, dropout=0.0),
    "attention": AttentionConfig(embed=6, hidden=10, dropout=0.0),
    "transformer": TransformerConfig(layers=1, width=12, feed_forward=14, heads=4, dropout=0.0),
}
SIZES = {"sentences": 3, "source_length": 5, "target_length": 7, "vocabulary": 23, "rounds": 2}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("benchmark")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("torch").set_num_threads(1)
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("torch_peers")


def _pair(peers: ModuleType, name: str) -> tuple[Any, Params, Any]:
    """Our model, its parameters, and its peer with the same parameters.

    With nothing between its candidate and the last state, a GRU of either kind is the same.
    """
    vocabulary = SIZES["vocabulary"]
    model = registry.build(CONFIGS[name], vocabulary, vocabulary)
    shapes = registry.abstract(model)
    random = np.random.default_rng(5)
    params: Any = jax.tree.map(lambda x: random.normal(0, 0.4, x.shape).astype(np.float32), shapes)
    for layer in params.values():
        if "candidate" in layer:
            layer["candidate"] = np.zeros_like(layer["candidate"])
    peer = peers.build(CONFIGS[name], vocabulary, 7)
    _load(peer, THEIRS[name](params))
    return model, params, peer


def _load(peer: Any, values: dict[str, Any]) -> None:
    """Sets the parameters given; the others, which our models lack, must be biases: zero."""
    import torch

    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if name not in values:
                assert "bias" in name
                parameter.zero_()
            else:
                parameter.copy_(torch.tensor(np.asarray(values.pop(name))).reshape(parameter.shape))
    assert not values


def _dense(name: str, p: Params) -> dict[str, Any]:
    bias = {f"{name}.bias": p["bias"]} if "bias" in p else {}
    return {f"{name}.weight": p["kernel"].T} | bias


def _gru(name: str, p: Params, suffix: str = "_l0", inputs: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {
        f"{name}.weight_ih{suffix}": np.concatenate([p["kernel"], *inputs]).T,
        f"{name}.weight_hh{suffix}": np.concatenate([p["gates"], p["candidate"]], 1).T,
        f"{name}.bias_ih{suffix}": p["bias"],
    }


def _ends(p: Params) -> dict[str, Any]:
    tables = {
        f"{side}_embedding.weight": p[f"{side}_embedding"]["embedding"] for side in ("src", "tgt")
    }
    return tables | _dense("logits", p["logits"])


def _seq2seq(p: Params) -> dict[str, Any]:
    return _ends(p) | _gru("encoder", p["encoder_0"]) | _gru("decoder", p["decoder_0"])


def _attention(p: Params) -> dict[str, Any]:
    readout = np.concatenate([p[f"readout_{i}"]["kernel"] for i in range(3)]).T
    return (
        _ends(p)
        | _gru("encoder", p["forwards_0"])
        | _gru("encoder", p["backwards_0"], "_l0_reverse")
        | _gru("cell", p["decoder_0"], "", (p["context"],))
        | _dense("bridge", p["bridges_0"])
        | _dense("keys", p["keys"])
        | {"query.weight": p["query"].T, "v.weight": p["v"]}
        | {"readout.weight": readout, "readout.bias": p["readout_0"]["bias"]}
    )


def _transformer(p: Params) -> dict[str, Any]:
    values = _ends(p)
    attentions = {
        "encoder": {"self_attn": "attention"},
        "decoder": {"self_attn": "self_attention", "multihead_attn": "cross_attention"},
    }
    for side, kinds in attentions.items():
        ours, theirs = p[f"{side}_0"], f"transformer.{side}.layers.0"
        for kind, name in kinds.items():
            heads = ours[name]
            joined = [heads[w].reshape(12, 12).T for w in ("wq", "wk", "wv")]
            values[f"{theirs}.{kind}.in_proj_weight"] = np.concatenate(joined)
            values[f"{theirs}.{kind}.out_proj.weight"] = heads["wo"].reshape(12, 12).T
        for i in range(2):
            values |= _dense(f"{theirs}.linear{i + 1}", ours["feed_forward"][f"Dense_{i}"])
        for i in range(len(kinds) + 1):
            norm = ours[f"add_norms_{i}"]["norm"]
            values[f"{theirs}.norm{i + 1}.weight"] = norm["scale"]
            values[f"{theirs}.norm{i + 1}.bias"] = norm["bias"]
    return values


THEIRS = {"seq2seq": _seq2seq, "attention": _attention, "transformer": _transformer}


@pytest.mark.parametrize("name", CONFIGS)
def test_peer_computes_what_the_model_does(
    benchmark: ModuleType, peers: ModuleType, name: str
) -> None:
    import torch

    options = benchmark.Options(**SIZES)
    src, _, tgt, _ = benchmark.random_batch(options)
    their_src, their_tgt = (torch.from_numpy(x).long() for x in (src, tgt))
    model, params, peer = _pair(peers, name)
    logits = jax.jit(model.apply)({"params": params}, src, src > 0, tgt[:, :-1])
    np.testing.assert_allclose(logits, peer(their_src, their_tgt[:, :-1]).detach(), atol=2e-5)

    found = benchmark.search(model, params, src, beams=4, max_len=7)
    tokens, totals = peers.beam_search(peer, their_src, 7, 4)
    np.testing.assert_array_equal(found.tokens, tokens)
    np.testing.assert_allclose(found.log_probs, totals, rtol=1e-5)
    assert END not in tokens
    assert tokens.shape == (3, 4, 7)
    one, _ = peers.beam_search(peer, their_src, 7, 1)
    np.testing.assert_array_equal(one[:, 0], peers.greedy(peer, their_src, 7))


def test_updates_are_the_same(benchmark: ModuleType, peers: ModuleType) -> None:
    import torch

    training = replace(benchmark.TRAINING, warmup=2, learning_rate=0.01)
    batch = benchmark.random_batch(benchmark.Options(**SIZES))
    model, params, peer = _pair(peers, "transformer")
    for name, parameter in peer.named_parameters():
        parameter.requires_grad_(not name.endswith(("in_proj_bias", "out_proj.bias")))
    sides = (torch.from_numpy(x).long() for x in (batch.src, batch.tgt))
    update = peers.trainer(peer, training, *sides)
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        adam = optimizer(training)
        state = TrainState(jnp.zeros((), jnp.int32), params, adam.init(params), None)
        step = jax.jit(lambda s: train_step(model, adam, training, s, batch, jax.random.key(1)))
        for _ in range(4):
            state, (sums, _) = step(state)
            np.testing.assert_allclose(sums.loss / sums.tokens, update(), rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_those_that_torch_counts(
    benchmark: ModuleType, peers: ModuleType, name: str
) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    options = benchmark.Options(**SIZES)
    batch = benchmark.random_batch(options)
    src, tgt = (torch.from_numpy(x).long() for x in (batch.src, batch.tgt))
    peer = peers.build(CONFIGS[name], options.vocabulary, 7)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        peer(src, tgt[:, :-1])
    assert benchmark.forward_flops(CONFIGS[name], options) == counted.get_total_flops()


@pytest.mark.parametrize("name", CONFIGS)
def test_peer_has_our_parameters(peers: ModuleType, name: str) -> None:
    """But for a second bias in each of torch's GRUs, and biases in its attention."""
    _, params, peer = _pair(peers, name)
    extra = {"seq2seq": 2 * 3 * 10, "attention": 3 * 3 * 10, "transformer": 3 * 4 * 12}[name]
    ours = sum(x.size for x in jax.tree.leaves(params))
    assert sum(x.numel() for x in peer.parameters()) == ours + extra


def test_a_small_run_gives_finite_figures(
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(benchmark, "model_config", CONFIGS.__getitem__)
    monkeypatch.setattr(benchmark, "matmul_peak", lambda _: 1e9)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        benchmark.main(benchmark.Options(models=("seq2seq",), **SIZES, json=tmp_path / "b.json"))
    table = capsys.readouterr().out
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert {row["task"] for row in rows} == {"training", "greedy", "beam 5"}
    for row in rows:
        median = sum(row["seconds"]) / 2
        units = 3 * 7 if row["task"] == "training" else 3
        assert row["per_second"] == pytest.approx(units / median)
        assert math.isfinite(row["first_call"])
        assert f"{row['per_second']:.0f}" in table


def test_sizes_that_cannot_be_used_are_named(benchmark: ModuleType) -> None:
    with pytest.raises(InputError, match="rounds = 0"):
        benchmark.Options(rounds=0)
