"""The memory of a search that is estimated before it begins."""

from typing import Any

import jax
import numpy as np
import pytest

from encdec.config import AttentionConfig, ModelConfig, TransformerConfig
from encdec.config.search import SearchOptions
from encdec.data.tokens import tokens_of
from encdec.inference import segments
from encdec.inference.batch_search import BatchSearch
from encdec.inference.decoding import Model
from encdec.inference.translator import Translator
from encdec.parallel import pmap
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.runs.parameters import best_params, build_model
from tests.small_run import small_run

MODELS: dict[str, ModelConfig] = {
    "attention": AttentionConfig(embed=6, hidden=8),
    "wide": TransformerConfig(layers=2, width=64, feed_forward=12, heads=2),
}


@pytest.mark.slow  # each program is compiled twice, and as well as XLA can
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_near_what_the_compiler_counts(
    name: str, beam: int, tmp_path, monkeypatch: pytest.MonkeyPatch, full_optimization
) -> None:
    run = small_run(tmp_path / "run", MODELS[name], ending=-50.0)
    params, _ = best_params(run)
    counted, make = [], segments._program

    def measured(*arguments: Any, **how: Any) -> Any:
        program = make(*arguments, **how)

        def call(*args: Any) -> Any:
            counted.append(pmap.compile_step(program, *args)[1])
            return program(*args)

        return call

    monkeypatch.setattr(segments, "_program", measured)
    options = SearchOptions(beam=beam, max_ratio=0, max_extra=300)
    texts = ["3. Mai 1979"] * 16
    Translator(run, params).translate(texts, options)
    source = tokens_of(run.src_vocabulary.encode_all(texts), run.src_vocabulary.specials)
    batches = BatchSearch(
        (run,), Model((build_model(run),), "probabilities"), (), np.ones(1), SINGLE_DEVICE
    )
    monkeypatch.setattr("encdec.parallel.devices.core_count", lambda: 1)
    estimate = batches.memory(source, np.full(16, 300, np.int32), beam, 8192)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert 0.7 < estimate / (max(counted) - size) < 2
