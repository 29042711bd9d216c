"""Imported models find what the hub library's `generate` finds under their own settings."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import SearchOptions
from encdec.inference.decoding import Model, Shared
from encdec.inference.limits import max_target_lengths
from encdec.interop import hub
from encdec.interop.generation import search_options
from encdec.interop.names import Fields
from encdec.search.constraints import check_min_length, prefix_table
from encdec.search.loop import unroll
from encdec.search.methods import Sentences, split
from encdec.types import InputError, SpecialIds
from tests.interop.hub_models import V, make, save, torch

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

B, S = 200, 9
SETTINGS: dict[str, dict[str, Any]] = {
    "marian": {
        "num_beams": 4,
        "max_length": 17,
        "bad_words_ids": [[V - 1]],
        "forced_eos_token_id": 0,
    },
    "marian-two-vocabularies": {
        "num_beams": 6,
        "max_length": 13,
        "bad_words_ids": [[V - 1], [7, 9], [11]],
        "length_penalty": 0.0,
    },
    "bart": {
        "num_beams": 4,
        "max_length": 19,
        "min_length": 6,
        "no_repeat_ngram_size": 3,
        "length_penalty": 2.0,
        "early_stopping": True,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
    },
    "mbart-wide": {
        "num_beams": 2,
        "max_length": 9,
        "min_length": 9,
        "decoder_start_token_id": 8,
    },
    "bart-untied": {"num_beams": 3, "max_new_tokens": 14, "repetition_penalty": 1.3},
    "mbart": {
        "num_beams": 5,
        "max_length": 12,
        "early_stopping": True,
        "min_new_tokens": 3,
        "decoder_start_token_id": 8,
    },
    "pegasus": {"num_beams": 8, "max_length": 15, "length_penalty": 0.6},
    "m2m100": {"num_beams": 5, "max_length": 15, "forced_bos_token_id": 9},
    "t5": {
        "num_beams": 4,
        "max_length": 18,
        "early_stopping": "never",
        "decoder_start_token_id": 0,
    },
    "t5-untied": {
        "num_beams": 4,
        "max_length": 18,
        "early_stopping": True,
        "decoder_start_token_id": 0,
    },
    "umt5": {
        "num_beams": 2,
        "length_penalty": 1.4,
        "suppress_tokens": [5, 6],
        "decoder_start_token_id": 0,
    },
}


def sources(pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources of uneven lengths and their mask."""
    rng = np.random.default_rng(2)
    mask = np.arange(S) < rng.integers(1, S + 1, B)[:, None]
    return np.where(mask, rng.integers(3, V - 1, (B, S)), pad).astype(np.int32), mask


def theirs(model: Any, **changes: Any) -> list[list[int]]:
    """What `generate` finds: tokens up to and with the end token, without the start token."""
    src, mask = map(torch.tensor, sources(model.config.pad_token_id))
    with torch.no_grad():
        found = model.generate(input_ids=src, attention_mask=mask.long(), **changes)
    return [until_end(row[1:].tolist(), model.config.eos_token_id) for row in found]


def until_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def ours(folder: Path, **changes: Any) -> list[list[int]]:
    opened = hub.open_folder(folder)
    fields = opened.fields.values
    config = hub.read_fields(folder / "config.json").values
    settings = hub.read_fields(folder / "generation_config.json").values | changes
    specials = SpecialIds(
        config["pad_token_id"], settings["decoder_start_token_id"], config["eos_token_id"], 3
    )
    forced = settings.get("forced_bos_token_id")
    before = () if forced is None else (forced,)
    options = search_options(
        Fields(settings, "generation_config.json"),
        specials,
        before,
        has_languages=False,
        say=print,
    )
    src, mask = sources(fields["pad_token_id"])
    limits = max_target_lengths(mask.sum(1), options.max_ratio, options.max_extra or 0)
    banned = [[*map(int, ids.split())] for ids in options.ban_ids]
    static, arrays = split(options, specials, max_len=int(limits.max()), banned=banned)
    prefix = prefix_table([before if options.force_first else ()] * B, len(before))
    sentences = Sentences(jnp.asarray(limits), jnp.arange(B), jnp.asarray(prefix))
    params = jax.tree.map(jnp.asarray, hub.read_params(opened))
    model = Model((hub.build(opened),), "probabilities")
    shared = Shared(arrays, jnp.ones(1))

    @jax.jit
    def find(params: Any) -> Any:
        memory = model.encode((params,), ((src, mask),))
        return unroll(model.search((params,), memory, sentences, shared, static))

    found = jax.device_get(find(params))
    return [row[0, : n[0]].tolist() for row, n in zip(found.tokens, found.lengths, strict=True)]


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_those_of_generate(name: str, tmp_path: Path) -> None:
    model = make(name)
    for setting, value in SETTINGS[name].items():
        setattr(model.generation_config, setting, value)
    save(model, tmp_path)
    # A repetition penalty of theirs acts on logits, not on log-probabilities, where it is greedy.
    greedy = () if "repetition_penalty" in SETTINGS[name] else (1,)
    for beams in (*greedy, SETTINGS[name]["num_beams"]):
        expected = theirs(model, num_beams=beams)
        found = ours(tmp_path, num_beams=beams)
        same = sum(a == b for a, b in zip(expected, found, strict=True))
        assert same == B, f"{same} of {B} with {beams} beams"
    assert len({tuple(row) for row in found}) > 5


def test_lengths_and_what_is_not_followed() -> None:
    said: list[str] = []
    specials = SpecialIds(0, 0, 1, 2)

    def options(settings: dict[str, Any]) -> SearchOptions:
        fields = Fields(settings, "g.json")
        return search_options(fields, specials, (), has_languages=False, say=said.append)

    assert options({}).max_extra == 20
    assert said == [
        "g.json names no max_length: translations have at most 20 tokens, as the hub library has "
        "it; --max-extra gives another limit"
    ]
    said.clear()
    given = options({"max_length": 30, "diversity_penalty": 0.5, "temperature": 0.3})
    assert (given.max_extra, given.temperature, given.ban_special) == (29, 1.0, False)
    for least in (20, 21, 99):  # the hub library warns, and ends at the limit
        fixed = options({"max_length": 21, "min_length": least})
        assert (fixed.max_extra, fixed.min_length) == (20, min(least, 21))
        check_min_length(fixed, np.full(3, 20))
    assert said == ["g.json: diversity_penalty = 0.5 is not followed"]
    assert options({"max_length": 30, "min_length": 9, "min_new_tokens": 2}).min_length == 3
    assert options({"max_length": 30, "min_length": 9}).min_length == 9
    sampled = {"do_sample": True, "temperature": 0.3, "top_p": 0.9, "epsilon_cutoff": 3e-4}
    drawn = options({"max_new_tokens": 30, **sampled})
    assert (drawn.max_extra, drawn.sample, drawn.temperature) == (30, True, 0.3)
    assert (drawn.top_k, drawn.top_p, drawn.epsilon_cutoff) == (50, 0.9, 3e-4)
    for bad, message in (
        ({"eos_token_id": [1, 5]}, r"g.json: eos_token_id = \[1, 5\] is not supported"),
        ({"forced_eos_token_id": 4}, "forced_eos_token_id = 4 is not the end token, 1"),
        ({"forced_bos_token_id": 4}, "forced_bos_token_id = 4 cannot be used"),
        ({"length_penalty": -1.0}, "g.json: length_penalty = -1.0 cannot be used"),
        ({"early_stopping": "yes"}, "g.json: early_stopping = 'yes' is not supported: give true,"),
        *(
            ({name: value}, f"^g.json: {name} = .* cannot be used: it must be of type {kind}")
            for name, value, kind in (
                ("max_length", "12", "int"),
                ("max_new_tokens", 9.5, "int"),
                ("min_length", [3], "int"),
                ("num_beams", "4", "int"),
                ("length_penalty", "x", "float"),
                ("repetition_penalty", "x", "float"),
                ("early_stopping", [1], "bool"),
                ("bad_words_ids", 7, "tuple"),
                ("bad_words_ids", [7], "tuple"),
                ("suppress_tokens", "x", "tuple"),
                ("forced_bos_token_id", "x", "int"),
                ("eos_token_id", "x", "int"),
            )
        ),
    ):
        with pytest.raises(InputError, match=message):
            options({"max_length": 30, **bad})
