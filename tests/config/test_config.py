"""Settings: JSON both ways, and errors that name the field and what it accepts."""

import json
import math
import typing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from encdec.config import (
    AttentionConfig,
    DataConfig,
    FineTuningConfig,
    RunConfig,
    SearchOptions,
    Seq2SeqConfig,
    TrainingConfig,
    TrainingDeviceConfig,
    TransformerConfig,
    from_json,
    to_json,
)
from encdec.config.presets import PRESETS, for_steps, preset
from encdec.types import InputError


@pytest.mark.parametrize("model", ["seq2seq", "attention", "transformer"])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str, model: str) -> None:
    if (name, model) == ("big", "seq2seq"):
        with pytest.raises(InputError, match=r"preset big has no seq2seq: one of attention, tr"):
            preset(name, model)
        return
    config = preset(name, model)
    assert config.model_name == model
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_a_short_run_warms_up_within_it_and_compiles_few_shapes() -> None:
    whole = preset("tiny", "transformer")
    assert preset("tiny", "transformer", 20_000).data == whole.data
    assert preset("tiny", "transformer", 20_000).training.warmup == whole.training.warmup
    for steps, buckets in ((1, 1), (60, 1), (150, 2), (1000, 5), (8000, 12)):
        short = preset("tiny", "transformer", steps)
        assert short.training.max_steps == steps
        assert short.training.warmup == min(steps // 4, 2000) < steps
        assert short.data.num_buckets == buckets
    assert for_steps(whole, 150) == preset("tiny", "transformer", 150)
    assert preset("dates", "seq2seq", 50_000).data.num_buckets == 2


def test_the_papers_sizes() -> None:
    base, big = (preset(name, "transformer").model for name in ("base", "big"))
    assert isinstance(base, TransformerConfig)
    assert isinstance(big, TransformerConfig)
    assert (base.layers, base.width, base.feed_forward, base.heads) == (6, 512, 2048, 8)
    assert (big.layers, big.width, big.feed_forward, big.heads) == (6, 1024, 4096, 16)
    rate = preset("base", "transformer").training.learning_rate
    assert rate == pytest.approx(512**-0.5 * 4000**-0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "owner",
    [
        *(DataConfig(), TrainingConfig(), SearchOptions(), FineTuningConfig(lora_rank=1)),
        *(Seq2SeqConfig(), AttentionConfig(), TransformerConfig()),
    ],
    ids=lambda owner: type(owner).__name__,
)
def test_no_number_may_be_infinite_or_nan(owner: Any, value: float) -> None:
    hints = typing.get_type_hints(type(owner))
    numbers = [n for n, hint in hints.items() if float in (hint, *typing.get_args(hint))]
    assert numbers
    for name in numbers:
        with pytest.raises(InputError, match=name):
            replace(owner, **{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TransformerConfig(width=512, heads=12), "heads = 12 .* width = 512: .*8.*16"),
        (lambda: TransformerConfig(width=15, heads=5), "width = 15 .* even"),
        (lambda: TransformerConfig(layers=0), "layers = 0 .* at least 1"),
        (lambda: TrainingConfig(max_steps=2**31), "max_steps = 2147483648 .* at most 2147483647"),
        (lambda: TrainingConfig(warmup=10**20), "warmup = 1.* at most 2147483647"),
        (lambda: DataConfig(date_sentences=10**20), "date_sentences = 1.* at most 2147483647"),
        *(
            (partial(TrainingDeviceConfig, None, coordinator=name, processes=2, process=0), name)
            for name in ("bogus", "host:", ":1234", "host:0", "host:65536", "host:x")
        ),
        (lambda: TransformerConfig(norm="mid"), "norm = 'mid' .* one of post, pre"),
        (
            lambda: Seq2SeqConfig(cell="gru2"),
            "cell = 'gru2' .* one of simple, gru, gru-reset-after, lstm",
        ),
        (lambda: AttentionConfig(dropout=1.0), "dropout = 1.0 .* below 1"),
        (lambda: AttentionConfig(score="cosine"), "score = 'cosine' .* additive, general, dot"),
        (lambda: DataConfig(source=("a",)), "source given: give source and target, or only tsv"),
        (lambda: DataConfig(tsv=("a",), target=("b",)), "target and tsv given"),
        (lambda: DataConfig(valid_tsv=("a",)), "validation files need training files"),
        (lambda: DataConfig(vocabulary_size=4), "vocabulary_size = 4 .* at least 5"),
        (lambda: DataConfig(vocabulary="bytes", vocabulary_size=99), "leave vocabulary_size out"),
        (lambda: DataConfig(vocabulary="chars", subword_regularization=0.1), "'sentencepiece'"),
        (lambda: DataConfig(subword_regularization=-1.0), "regularization = -1.0 .* at least 0"),
        (lambda: DataConfig(bpe_dropout=0.1), "bpe_dropout needs sentencepiece_model = 'bpe'"),
        (
            lambda: DataConfig(sentencepiece_model="bpe", subword_regularization=0.2),
            "subword_regularization needs sentencepiece_model = 'unigram': .* bpe_dropout",
        ),
        (
            lambda: DataConfig(sentencepiece_model="bpe", bpe_dropout=1.0),
            "bpe_dropout = 1.0 .* below 1",
        ),
        (lambda: TrainingConfig(learning_rate=0.0), "learning_rate = 0.0 .* above 0"),
        (lambda: TrainingConfig(learning_rate=1e39), "learning_rate = 1e.39 .* finite in float32"),
        (lambda: TrainingConfig(clip_norm=math.inf), "clip_norm = inf .* finite"),
        (lambda: TransformerConfig(norm_epsilon=-1.0), "norm_epsilon = -1.0 .* at least 0"),
        (lambda: FineTuningConfig(lora_rank=1, lora_alpha=math.inf), "lora_alpha = inf .* finite"),
        (lambda: AttentionConfig(score="dot", hidden=9), "hidden = 9 .* even"),
        (lambda: SearchOptions(max_extra=10**11), "max_extra = 100000000000 .* at most 2.30"),
        (lambda: DataConfig(tsv=("a",), valid_split="b"), "valid_split = 'b' needs a corpus"),
        (lambda: TrainingConfig(clip_norm=-1.0), "clip_norm = -1.0 .* at least 0"),
        (lambda: TrainingConfig(weight_decay=0.1), "weight_decay needs optimizer = 'adamw'"),
        (lambda: RunConfig(seed=-1), "seed = -1"),
        (partial(TrainingConfig, max_steps="3"), "max_steps = '3' .* of type int"),
        (partial(TrainingConfig, max_steps=1e3), "max_steps = 1000.0 .* of type int"),
        (partial(TrainingConfig, max_steps=True), "max_steps = True .* of type int"),
        (partial(TrainingConfig, bleu_tokenizer=3), "bleu_tokenizer = 3 .* one of 13a, intl"),
        (partial(FineTuningConfig, freeze="enc*"), r"freeze = 'enc\*' is one text: .*\('enc\*',\)"),
        (partial(DataConfig, tsv="a.tsv"), "tsv = 'a.tsv' is one text"),
        (partial(DataConfig, tsv_columns=(1,)), r"tsv_columns = \(1,\) .* tuple\[int, int\]"),
        (partial(SearchOptions, max_extra="3"), r"max_extra = '3' .* of type int \| None"),
        (partial(RunConfig, model="transformer"), "model = 'transformer' .* of type ModelConfig"),
        (lambda: preset("dats", "attention"), "unknown preset 'dats'; did you mean dates"),
        (lambda: preset("dates", "transfomer"), "unknown model .* did you mean transformer"),
    ],
)
def test_what_cannot_be_used_is_named(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sead": 1}, "unknown field sead; did you mean seed"),
        ({"data": {"vocabulry": "words"}}, "unknown field data.vocabulry; .* vocabulary"),
        ({"training": {"max_steps": 1.5}}, "training.max_steps = 1.5 is not of type"),
        ({"training": {"max_steps": True}}, "training.max_steps = True is not of type"),
        ({"data": {"tsv": 3}}, "data.tsv = 3 is not of type"),
        ({"model": {"kind": "rnn"}}, "unknown model 'rnn' .*seq2seq"),
        ({"model": {"kind": "transformer", "hidden": 4}}, "unknown field model.hidden"),
    ],
)
def test_json_from_elsewhere_is_checked(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_json(to_json(preset("dates", "transformer")) | change)


def test_a_list_will_do_for_a_tuple() -> None:
    given: Any = ["a.tsv", "b.tsv"]
    assert DataConfig(tsv=given) == DataConfig(tsv=("a.tsv", "b.tsv"))
    assert hash(DataConfig(tsv=given)) == hash(DataConfig(tsv=("a.tsv", "b.tsv")))


def test_numbers_of_numpy_will_do_for_those_of_python() -> None:
    given: Any = SearchOptions(beam=np.int64(3), temperature=np.float64(0.5), sample=np.bool_(True))
    expected = SearchOptions(beam=3, temperature=0.5, sample=True)
    assert (given, hash(given), repr(given)) == (expected, hash(expected), repr(expected))
    with pytest.raises(InputError, match="beam = 0 cannot be used"):
        SearchOptions(beam=np.int64(0))


def test_an_int_will_do_for_a_float() -> None:
    tree = to_json(RunConfig())
    tree["training"]["clip_norm"] = 1
    assert from_json(tree) == replace(RunConfig(), training=TrainingConfig(clip_norm=1.0))
