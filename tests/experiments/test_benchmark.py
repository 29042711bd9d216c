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
from encdec.types import Batch, InputError, Params
from experiments import benchmark
from experiments.workload import END, Shape, forward_flops, random_batch, shape_of, text_batches

CONFIGS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(embed=6, hidden=10, dropout=0.0),
    "attention": AttentionConfig(embed=6, hidden=10, dropout=0.0),
    "transformer": TransformerConfig(layers=1, width=12, feed_forward=14, heads=4, dropout=0.0),
}
SHAPE = Shape(sentences=3, source=5, target=7, vocabulary=23)


@pytest.fixture
def peers() -> ModuleType:
    pytest.importorskip("torch").set_num_threads(1)
    return importlib.import_module("experiments.torch_peers")


@pytest.fixture
def loops(peers: ModuleType) -> ModuleType:
    return importlib.import_module("experiments.torch_loops")


def uneven_batch() -> Batch:
    """Sentences of 5, 2 and 4 tokens, their targets of 3, 7 and 1."""
    src, _, tgt, _ = (np.array(x) for x in random_batch(SHAPE))
    src_mask = np.arange(5) < np.array([5, 2, 4])[:, None]
    tgt_mask = np.arange(7) < np.array([3, 7, 1])[:, None]
    tgt[:, 1:] = np.where(tgt_mask, tgt[:, 1:], 0)
    return Batch(np.where(src_mask, src, 0), src_mask, tgt, tgt_mask)


BATCHES = {"even": random_batch(SHAPE), "uneven": uneven_batch()}


def _pair(peers: ModuleType, name: str) -> tuple[Any, Params, Any]:
    """Our model, its parameters, and its peer with the same parameters.

    With nothing between its candidate and the last state, a GRU of either kind is the same.
    """
    vocabulary = SHAPE.vocabulary
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


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", CONFIGS)
def test_peer_computes_what_the_model_does(
    peers: ModuleType, loops: ModuleType, name: str, kind: str
) -> None:
    import torch

    batch = BATCHES[kind]
    src, tgt = (torch.from_numpy(np.array(x)).long() for x in (batch.src, batch.tgt))
    model, params, peer = _pair(peers, name)
    logits = jax.jit(model.apply)({"params": params}, batch.src, batch.src_mask, batch.tgt[:, :-1])
    theirs = peer(src, tgt[:, :-1]).detach()
    np.testing.assert_allclose(logits[batch.tgt_mask], theirs[batch.tgt_mask], atol=2e-5)

    params = benchmark.endless(jax.tree.map(jnp.asarray, params))
    loops.make_endless(peer, benchmark.NEVER)
    limits = peers.lengths(tgt[:, 1:])
    found = benchmark.search(model, params, batch, 4)
    tokens, totals = loops.beam_search(peer, src, limits, 4)
    np.testing.assert_array_equal(found.tokens, tokens)
    np.testing.assert_allclose(found.log_probs, totals, rtol=1e-5)
    assert END not in tokens
    assert tokens.shape == (3, 4, 7)
    assert ((found.tokens > 0).sum(-1) == limits.numpy()[:, None]).all()
    one, _ = loops.beam_search(peer, src, limits, 1)
    np.testing.assert_array_equal(one[:, 0], loops.greedy(peer, src, limits))
    np.testing.assert_array_equal(one, benchmark.search(model, params, batch, 1).tokens)


@pytest.mark.parametrize("kind", BATCHES)
def test_updates_are_the_same(peers: ModuleType, loops: ModuleType, kind: str) -> None:
    import torch

    training = replace(benchmark.TRAINING, warmup=2, learning_rate=0.01)
    batch = BATCHES[kind]
    model, params, peer = _pair(peers, "transformer")
    for name, parameter in peer.named_parameters():
        parameter.requires_grad_(not name.endswith(("in_proj_bias", "out_proj.bias")))
    pair = tuple(torch.from_numpy(np.array(x)).long() for x in (batch.src, batch.tgt))
    update = loops.trainer(peer, training)
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        adam = optimizer(training)
        state = TrainState(jnp.zeros((), jnp.int32), params, adam.init(params), None)
        step = jax.jit(lambda s: train_step(model, adam, training, s, batch, jax.random.key(1)))
        for _ in range(4):
            state, (sums, _) = step(state)
            np.testing.assert_allclose(sums.loss / sums.tokens, update(pair), rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_those_that_torch_counts(peers: ModuleType, name: str) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    batch = BATCHES["even"]
    assert shape_of(batch, SHAPE.vocabulary) == SHAPE
    src, tgt = (torch.from_numpy(np.array(x)).long() for x in (batch.src, batch.tgt))
    peer = peers.build(CONFIGS[name], SHAPE.vocabulary, 7)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        peer(src, tgt[:, :-1])
    assert forward_flops(CONFIGS[name], SHAPE) == counted.get_total_flops()


@pytest.mark.parametrize("name", CONFIGS)
def test_peer_has_our_parameters(peers: ModuleType, name: str) -> None:
    """But for a second bias in each of torch's GRUs, and biases in its attention."""
    _, params, peer = _pair(peers, name)
    extra = {"seq2seq": 2 * 3 * 10, "attention": 3 * 3 * 10, "transformer": 3 * 4 * 12}[name]
    ours = sum(x.size for x in jax.tree.leaves(params))
    assert sum(x.numel() for x in peer.parameters()) == ours + extra


TEXT = (
    ["a b", "c d e f", "b b a c", "d", "f e d", "c a"],
    ["A B C", "C D", "B C A C D", "D E", "F", "C A"],
)


def text_files(folder: Path) -> dict[str, Path]:
    files = {side: folder / f"{side}.txt" for side in ("source", "target")}
    for path, lines in zip(files.values(), TEXT, strict=True):
        path.write_text("\n".join(lines) + "\n")
    return files


def test_batches_of_text_are_sorted_and_hold_its_pairs(tmp_path: Path) -> None:
    found = text_batches(**text_files(tmp_path), sentences=2, batches=2, vocabulary=12)
    lengths = [x.src_mask.sum(1) for x in found]
    assert [*np.concatenate(lengths)] == sorted(np.concatenate(lengths))
    for batch, counts in zip(found, lengths, strict=True):
        assert batch.src.shape == (2, max(counts))
        assert batch.tgt.shape == (2, max(batch.tgt_mask.sum(1)) + 1)
        # Each row begins with the start token, and its real tokens end with the end token.
        assert (batch.tgt[:, 0] == 1).all()
        for ids, mask in ((batch.src, batch.src_mask), (batch.tgt[:, 1:], batch.tgt_mask)):
            np.testing.assert_array_equal(ids == END, mask & ~np.pad(mask, ((0, 0), (0, 1)))[:, 1:])
            assert not ids[~mask].any()
    with pytest.raises(InputError, match="has 6 pairs, but the workload needs 8"):
        text_batches(**text_files(tmp_path), sentences=2, batches=4, vocabulary=12)


@pytest.mark.parametrize("from_text", [False, True])
def test_a_small_run_gives_finite_figures(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    from_text: bool,
) -> None:
    monkeypatch.setattr(benchmark, "model_config", CONFIGS.__getitem__)
    monkeypatch.setattr(benchmark, "matmul_peak", lambda _: 1e9)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    given: dict[str, Any] = {"sentences": 3, "source_length": 5, "target_length": 7}
    if from_text:
        given = {"sentences": 3, "batches": 2, **text_files(tmp_path)}
    options = benchmark.Options(
        models=("seq2seq",), vocabulary=12, rounds=2, json=tmp_path / "b.json", **given
    )
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        benchmark.main(options)
    table = capsys.readouterr().out
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert {row["task"] for row in rows} == {"training", "greedy", "beam 5"}
    tokens = sum(batch.tgt_mask.sum() for batch in benchmark.make_batches(options))
    for row in rows:
        median = sum(row["seconds"]) / 2
        units = tokens if row["task"] == "training" else 6 if from_text else 3
        assert row["per_second"] == pytest.approx(units / median)
        assert math.isfinite(row["first_call"])
        assert f"{row['per_second']:.0f}" in table


@pytest.mark.parametrize(
    ("given", "part"),
    [({"rounds": 0}, "rounds = 0"), ({"source": Path("x")}, "source and target go together")],
)
def test_options_that_cannot_be_used_are_named(given: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        benchmark.Options(**given)
