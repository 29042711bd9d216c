"""Imported models compute the logits that the hub library computes."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from encdec.interop import hub
from encdec.interop.array_files import stored_arrays
from encdec.types import InputError
from tests.interop.hub_models import MODELS, V, make, save, torch

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # those of PyTorch and the hub library are their own
]

B, S, T = 4, 11, 9
LENGTHS = (11, 7, 3, 1)


def sentences(pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources of uneven lengths, their mask, and decoder inputs."""
    rng = np.random.default_rng(1)
    mask = np.arange(S) < np.array(LENGTHS)[:, None]
    src = np.where(mask, rng.integers(3, V - 1, (B, S)), pad).astype(np.int32)
    return src, mask, rng.integers(3, V - 1, (B, T)).astype(np.int32)


def their_logits(model: Any) -> np.ndarray:
    src, mask, tgt_in = map(torch.tensor, sentences(model.config.pad_token_id))
    with torch.no_grad():
        return model(
            input_ids=src, attention_mask=mask.long(), decoder_input_ids=tgt_in.long()
        ).logits.numpy()


def our_logits(folder: Path) -> np.ndarray:
    opened = hub.open_folder(folder)
    params = hub.read_params(opened)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    src, mask, tgt_in = sentences(opened.fields.values["pad_token_id"])
    apply = jax.jit(hub.build(opened).apply)
    return np.asarray(apply({"params": params}, src, mask, tgt_in))


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save(make("bart"), tmp_path_factory.mktemp("hub") / "bart")


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_theirs(name: str, tmp_path: Path) -> None:
    model = make(name)
    theirs = their_logits(model)
    np.testing.assert_allclose(our_logits(save(model, tmp_path)), theirs, rtol=0, atol=1e-4)
    assert np.abs(theirs).max() > 1


def test_steps_are_the_full_pass(tmp_path: Path) -> None:
    """With relative positions of a token in the middle of a sentence."""
    opened = hub.open_folder(save(make("umt5"), tmp_path))
    model, variables = hub.build(opened), {"params": hub.read_params(opened)}
    src, mask, tgt_in = sentences(0)
    expected = model.apply(variables, src, mask, tgt_in)
    memory: Any = model.apply(variables, src, mask, method="encode")
    cache: Any = model.apply(variables, memory, 1, T + 2, method="init_cache")
    step = jax.jit(lambda cache, t: model.apply(variables, memory, cache, t, method="decode_step"))
    for t in range(T):
        logits, _, cache = step(cache, tgt_in[:, t, None])
        np.testing.assert_allclose(logits[:, 0], expected[:, t], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_other_float_types_become_float32(kind: str, tmp_path: Path) -> None:
    model = make("marian").to(getattr(torch, kind))
    ours = our_logits(save(model, tmp_path))
    same = type(model).from_pretrained(tmp_path, dtype=torch.float32).eval()
    np.testing.assert_allclose(ours, their_logits(same), rtol=0, atol=1e-4)


def test_several_files_and_pickles_hold_the_same(bart: Path, tmp_path: Path) -> None:
    expected = our_logits(bart)
    several = save(make("bart"), tmp_path / "several", max_shard_size="10KB")
    assert len(list(several.glob("*.safetensors"))) > 2
    np.testing.assert_array_equal(our_logits(several), expected)
    (tmp_path / "pickle").mkdir()
    torch.save(make("bart").state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    shutil.copy(bart / "config.json", tmp_path / "pickle")
    np.testing.assert_array_equal(our_logits(tmp_path / "pickle"), expected)
    next(several.glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"index.json lists .*, but it is not there"):
        hub.open_folder(several)


def test_a_missing_bias_of_the_logits_is_zero(bart: Path, tmp_path: Path) -> None:
    arrays = {name: array.read() for name, array in stored_arrays(bart).items()}
    bias = arrays.pop("final_logits_bias")
    write(tmp_path, bart, arrays)
    np.testing.assert_allclose(our_logits(tmp_path) + bias, our_logits(bart), atol=1e-5)


def write(folder: Path, like: Path, arrays: dict[str, np.ndarray], **changes: Any) -> None:
    """A folder like another one, with other arrays and other fields; None leaves a field out."""
    tree = json.loads((like / "config.json").read_text()) | changes
    tree = {name: value for name, value in tree.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(tree))
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    torch.save(tensors, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"model_type": "bert"}, "model_type = 'bert' is not supported (marian, bart,"),
        ({"model_type": None}, "has no model_type"),
        ({"d_model": None}, "has no d_model: an importer cannot guess it"),
        ({"activation_function": "mish"}, "activation_function = 'mish' is not supported"),
        ({"decoder_ffn_dim": 24}, "encoder_ffn_dim = 20 and decoder_ffn_dim = 24"),
        ({"encoder_layers": 4}, "has no model.encoder.layers.3."),
        ({"decoder_layers": 1}, "has model.decoder.layers.1."),
        ({"max_position_embeddings": 63}, "has the shape [66, 12], but the settings want [65, 12]"),
        (
            {"encoder_ffn_dim": 19, "decoder_ffn_dim": 19},
            "fc1.weight has the shape [20, 12], but the settings want [19, 12]",
        ),
        ({"vocab_size": V + 1}, f"has the shape [{V}, 12], but "),
        ({"d_model": "12"}, "config.json: d_model = '12' cannot be used: it must be of type int"),
        ({"d_model": 0}, "config.json: width = 0 cannot be used: it must be at least 1"),
        ({"model_type": ["bart"]}, "config.json: model_type = ['bart'] cannot be used"),
        ({"activation_function": ["gelu"]}, "config.json: activation_function = ['gelu'] cannot"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(
    bart: Path, tmp_path: Path, fields: dict[str, Any], parts: str
) -> None:
    write(tmp_path, bart, {n: array.read() for n, array in stored_arrays(bart).items()}, **fields)
    with pytest.raises(InputError) as caught:
        hub.read_params(hub.open_folder(tmp_path))
    assert parts in str(caught.value)


def test_arrays_that_are_no_parameters_are_refused(bart: Path, tmp_path: Path) -> None:
    """Of integers, as quantization makes them, not finite, or without names."""
    from safetensors.torch import save_file  # needs PyTorch

    name = "model.encoder.layers.0.fc1.weight"
    arrays = {n: array.read() for n, array in stored_arrays(bart).items()}
    for value, error in (
        (arrays[name].astype(np.int8), f"{name} is of type int8, but parameters must be of float"),
        (np.full_like(arrays[name], np.nan), f"{name} has numbers that are not finite"),
        (np.full(arrays[name].shape, 1e300), f"{name} has numbers that are not finite in float32"),
    ):
        write(tmp_path, bart, {**arrays, name: value})
        with pytest.raises(InputError, match=error):
            hub.read_params(hub.open_folder(tmp_path))
    for tree in ([1], {"a": 3}, {"model": {name: torch.zeros(3)}}, torch.zeros(3)):
        torch.save(tree, tmp_path / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"model.bin does not hold arrays by their names"):
            hub.open_folder(tmp_path)
    quantized = {name: torch.zeros(3, dtype=torch.float8_e4m3fn)}
    save_file(quantized, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"{name} is of type F8_E4M3, but parameters"):
        hub.open_folder(tmp_path)


@pytest.mark.parametrize("index", [{"weight_map": {"a": 3}}, {"weight_map": ["a"]}, ["a"], {}])
def test_a_damaged_index_is_named(index: Any, bart: Path, tmp_path: Path) -> None:
    shutil.copy(bart / "config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model.safetensors.index.json is damaged"):
        hub.open_folder(tmp_path)


def test_damaged_and_missing_files_are_named(bart: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config.json cannot be read"):
        hub.open_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json is damaged"):
        hub.open_folder(tmp_path)
    shutil.copy(bart / "config.json", tmp_path)
    with pytest.raises(InputError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        hub.open_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(InputError, match=r"model.safetensors cannot be read"):
        hub.open_folder(tmp_path)
