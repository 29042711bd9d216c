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

MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(embed=24, hidden=32),
    "attention": AttentionConfig(embed=24, hidden=32),
    "transformer": TransformerConfig(layers=2, width=32, feed_forward=64, heads=4),
}
# As batches of 2,000 tokens have them: many short sentences, or few long ones.
SHAPES = [(240, 7, 8), (96, 23, 17), (42, 31, 47), (12, 160, 150)]


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
@pytest.mark.parametrize("vocabulary", [50, 8000])
@pytest.mark.parametrize("name", MODELS)
def test_the_batch_that_needs_the_most_is_among_those_that_are_measured(
    name: str, vocabulary: int, full_optimization: None
) -> None:
    buckets = tuple(Bucket(*shape, 1, np.zeros(0, np.int32)) for shape in SHAPES)
    model = replace(MODELS[name], dropout=0.1)
    every = [largest_batches(Bucketing((bucket,)))[0] for bucket in buckets]
    bytes_of = {batch.src.shape: needed(model, vocabulary, batch) for batch in every}
    measured = [batch.src.shape for batch in largest_batches(Bucketing(buckets))]
    assert len(measured) <= 2
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
