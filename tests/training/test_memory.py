"""The memory that is checked before training begins."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from encdec.config import AttentionConfig, Seq2SeqConfig, TrainingConfig, TransformerConfig
from encdec.config.models import ModelConfig
from encdec.config.search import SearchOptions
from encdec.data.batches import largest_batches, round_length
from encdec.data.bucketing import Bucket, Bucketing
from encdec.inference.batch_search import BatchSearch
from encdec.inference.decoding import encoding_bytes
from encdec.models import registry
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.runs.parameters import best_params, build_model
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.training.validation import translation_metrics
from encdec.types import Batch, InputError
from tests.small_run import small_run

SHAPES = [(156, 23, 26), (48, 47, 85), (27, 24, 149), (20, 198, 26)]
"""Sentences, source and target tokens of batches of 4,096 tokens, of a corpus in which some pairs
have long sources, some long targets, and most neither."""


def model_of(name: str, width: int) -> ModelConfig:
    """A model with few layers, which compile fast."""
    if name == "transformer":
        return TransformerConfig(layers=2, width=width, feed_forward=4 * width, heads=width // 16)
    family = {"seq2seq": Seq2SeqConfig, "attention": AttentionConfig}[name]
    return family(embed=width, hidden=width, dropout=0.1)


def needed(model: ModelConfig, vocabulary: int, batch: Batch) -> int:
    """The bytes of a training step, as the compiler counts them."""
    built, training = registry.build(model, vocabulary, vocabulary), TrainingConfig()
    states = StateSharding(built, built, optimizer(training), training, SINGLE_DEVICE)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        found = states.compiled(states.shapes, batch, key, measure=True)[1]
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "vocabulary"), [(32, 8000), (32, 256_000), (256, 8000), (512, 256_000)]
)
@pytest.mark.parametrize("name", ["seq2seq", "attention", "transformer"])
def test_the_batch_that_needs_the_most_is_among_those_that_are_measured(
    name: str, width: int, vocabulary: int, full_optimization: None
) -> None:
    buckets = tuple(Bucket(*shape, 1, np.zeros(0, np.int32)) for shape in SHAPES)
    model = model_of(name, width)
    every = [largest_batches(Bucketing((bucket,)))[0] for bucket in buckets]
    bytes_of = {batch.src.shape: needed(model, vocabulary, batch) for batch in every}
    measured = [batch.src.shape for batch in largest_batches(Bucketing(buckets))]
    assert len(measured) < len(SHAPES)
    assert max(bytes_of[shape] for shape in measured) >= 0.95 * max(bytes_of.values())


def test_a_validation_fits_beside_the_state_or_is_refused_before_the_first_step(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rows = small_run(tmp_path / "run"), []
    run = replace(run, config=replace(run.config, search=SearchOptions(max_extra=20)))
    searched = BatchSearch._find

    def noted(self: BatchSearch, sources, *others):
        rows.append(len(sources[0][0]))
        return searched(self, sources, *others)

    monkeypatch.setattr(BatchSearch, "_find", noted)
    monkeypatch.setattr("encdec.parallel.devices.core_count", lambda: 1)

    def validate(free: int) -> dict[str, float]:
        rows.clear()
        monkeypatch.setattr("encdec.parallel.devices.device_memory", lambda: 10**6 + free)
        valid = translation_metrics(run, run.held_out, SINGLE_DEVICE, "float32", reserved=10**6)
        return valid(best_params(run)[0])

    wide = validate(2**30)
    assert max(rows) == 8  # 7 sentences
    # A hypothesis needs about 16 bytes a token of the vocabulary, and 2.5 caches and 36 bytes for
    # each of its own: 2 layers of 2 x 8 float32. Batches fill seven tenths of what is free.
    longest = round_length(max(map(len, run.held_out.src)) + 1)
    one = 16 * run.tgt_vocabulary.size + (36 + 5 * 2 * 2 * 8 * 4 // 2) * (2 * longest + 20)
    one += encoding_bytes(build_model(run), longest)
    narrow = validate(int(3 * one / 0.7))
    assert rows[0] == 2  # of the longest
    assert narrow["bleu"] == wide["bleu"]
    np.testing.assert_allclose(narrow["loss"], wide["loss"], rtol=1e-5)
    with pytest.raises(InputError, match=r"a validation does not fit .* shorter sentences"):
        validate(int(0.9 * one / 0.7))


def test_a_validation_is_greedy_whatever_the_run_searches_with(tmp_path) -> None:
    run = small_run(tmp_path / "run")
    params = best_params(run)[0]

    def measured(search: SearchOptions) -> dict[str, float]:
        changed = replace(run, config=replace(run.config, search=search))
        metrics = translation_metrics(changed, run.held_out, SINGLE_DEVICE, "float32")(params)
        return {name: value for name, value in metrics.items() if name != "seconds"}

    greedy = measured(SearchOptions(beam=1))
    assert measured(SearchOptions(beam=4, beam_groups=2)) == greedy
    assert measured(SearchOptions(beam=2, mbr=2)) == greedy
    assert measured(SearchOptions(sample=True, mbr=8)) == greedy
