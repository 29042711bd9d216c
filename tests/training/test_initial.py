"""Runs that begin from another run, or from parameters."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from encdec.cli.info import info
from encdec.config import (
    DataConfig,
    FineTuningConfig,
    RunConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TrainingDeviceConfig,
    TransformerConfig,
)
from encdec.data.corpus import Corpus
from encdec.inference import translator as translators
from encdec.inference.translator import Translator
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.parameters import best_params, digest, parameter_count
from encdec.runs.run import Run
from encdec.training.fine_tuning import merge, roles_of_run
from encdec.training.initial import Initial
from encdec.training.start import begin
from encdec.training.trainer import train
from encdec.types import InputError

CONFIG = RunConfig(
    TransformerConfig(layers=1, width=8, feed_forward=12, heads=2, dropout=0.0),
    DataConfig(date_sentences=60, vocabulary="chars", batch_tokens=256, num_buckets=1),
    TrainingConfig(
        max_steps=2,
        evaluate_every=2,
        evaluate_sentences=2,
        log_every=1,
        warmup=0,
        learning_rate=0.05,
    ),
)
LORA = FineTuningConfig(lora_rank=2)


def silent(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        yield


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with jax.numpy_dtype_promotion("standard"):
        return train(CONFIG, run=tmp_path_factory.mktemp("runs") / "origin", say=silent).run


@pytest.mark.slow
def test_low_rank_additions_from_a_run_to_translations(origin: Run, tmp_path: Path) -> None:
    """Before the first step the run is the one that it begins from; afterwards the merged matrices
    translate as additions that are merged inside the search. It resumes without its origin."""
    moved = tmp_path / "origin"
    shutil.copytree(origin.path, moved)
    config = replace(CONFIG, seed=5, fine_tuning=LORA)
    stopped = train(
        config, run=tmp_path / "run", init=moved, say=silent, callbacks=[lambda *_: True]
    )
    run = stopped.run
    assert stopped.step == 1
    assert run.config.fine_tuning.init_from == str(moved)
    assert run.init == digest(best_params(origin)[0])
    assert run.src_vocabulary.to_json() == origin.src_vocabulary.to_json()
    assert best_params(run)[1] == 1  # no validation yet: the latest are the best
    shutil.rmtree(moved)
    assert train(run.config, run=run.path, say=silent).trained_steps == 1

    params, step = best_params(run)
    assert step == 2
    before = best_params(origin)[0]
    assert not np.allclose(
        params["encoder_0"]["attention"]["wq"], before["encoder_0"]["attention"]["wq"], atol=1e-4
    )
    np.testing.assert_array_equal(params["logits"]["kernel"], before["logits"]["kernel"])
    state = begin(run, SINGLE_DEVICE, TrainingDeviceConfig(), None)[1].state
    unmerged = jax.jit(partial(merge, roles_of_run(run)))(state.params, state.frozen)
    texts = run.held_out.src[:20]
    translate = Translator(run, unmerged, None, SINGLE_DEVICE, "float32")
    merged = translators.load(run.path)
    assert [translate(text).text for text in texts] == [merged(text).text for text in texts]
    row = info(run)
    assert row["init"] == {"from": str(moved), "sha256": run.init[:12]}
    assert 0 < row["trainable"] < parameter_count(run) == row["parameters"]


def test_tokens_that_the_first_vocabulary_does_not_know_are_counted(
    origin: Run, tmp_path: Path
) -> None:
    said: list[str] = []
    pairs = [("3. Mai 1979", "1979-05-ω3"), ("3. Mai 1980", "1980-05-03")]
    corpus = Corpus(pairs, valid=pairs)
    train(CONFIG, corpus, run=tmp_path / "run", init=origin, say=said.append)
    assert any("1 of 22 target tokens are unknown" in line for line in said)
    assert not any("source tokens are unknown" in line for line in said)


def test_frozen_parameters_are_those_of_the_run_to_begin_from(origin: Run, tmp_path: Path) -> None:
    """Dropout may differ; a mean of checkpoints has every parameter."""
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, dropout=0.1),
        training=replace(CONFIG.training, average_last=2, evaluate_every=1),
        fine_tuning=FineTuningConfig(freeze=("encoder*", "*embedding*")),
    )
    run = train(config, run=tmp_path / "run", init=origin, say=silent).run
    params, before = (checkpoints.flat(best_params(r)[0]) for r in (run, origin))
    for name in before:
        is_frozen = name.startswith("encoder") or "embedding" in name
        assert np.array_equal(params[name], before[name]) == is_frozen, name


def test_parameters_begin_a_run_and_are_checked_when_it_resumes(
    origin: Run, tmp_path: Path
) -> None:
    params, _ = best_params(origin)
    begin = partial(train, CONFIG, run=tmp_path / "run", say=silent)
    with pytest.raises(InputError, match="init has no parameter"):
        begin(init={"logits": params["logits"]})
    assert not (tmp_path / "run").exists()
    run = begin(init=params, callbacks=[lambda *_: True]).run
    assert run.init == digest(params)
    assert run.config.fine_tuning.init_from is None
    with pytest.raises(InputError, match="began with other parameters: to resume it as it is"):
        begin(init=jax.tree.map(lambda p: p + 1, params))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": replace(CONFIG.model, width=16)}, r"width = 16 cannot .* has width = 8; leave"),
        ({"model": replace(CONFIG.model, activation="gelu")}, "activation = 'gelu' cannot"),
        ({"model": Seq2SeqConfig(embed=4, hidden=6)}, "model = 'seq2seq' .* model = 'transformer'"),
        ({"data": replace(CONFIG.data, vocabulary="bytes")}, "vocabulary = 'bytes' cannot"),
        ({"data": replace(CONFIG.data, lowercase=True)}, "lowercase = True .* lowercase = False"),
        ({"fine_tuning": FineTuningConfig(init_from="other")}, "give one of them"),
        ({"fine_tuning": FineTuningConfig(freeze=("encodr*",))}, "did you mean encoder_0"),
        ({"fine_tuning": FineTuningConfig(lora_rank=9)}, "lora_rank = 9 cannot be used"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(
    origin: Run, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(replace(CONFIG, **change), run=tmp_path / "run", init=origin.path, say=silent)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_and_additions_to_random_parameters_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        train(CONFIG, run=tmp_path / "run", init=tmp_path, say=silent)
    with pytest.raises(InputError, match="name a run to begin from with --init-from"):
        train(replace(CONFIG, fine_tuning=LORA), run=tmp_path / "run", say=silent)


def test_a_run_that_began_otherwise_is_not_resumed(origin: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(origin.path, other)
    with pytest.raises(InputError, match="began with random parameters: to resume it as it is"):
        train(CONFIG, run=other, init=best_params(origin)[0], say=silent)


def test_another_run_that_the_settings_name_is_compared_on_resume(
    origin: Run, tmp_path: Path
) -> None:
    tuned = replace(CONFIG, fine_tuning=FineTuningConfig(init_from=str(origin.path)))
    train(tuned, run=tmp_path / "run", say=silent)
    moved = tmp_path / "moved"
    shutil.copytree(origin.path, moved)
    same = replace(CONFIG, fine_tuning=FineTuningConfig(init_from=str(moved)))
    assert train(same, run=tmp_path / "run", say=silent).trained_steps == 0
    other = train(replace(CONFIG, seed=1), run=tmp_path / "other", say=silent).run
    named = replace(CONFIG, fine_tuning=FineTuningConfig(init_from=str(other.path)))
    with pytest.raises(InputError, match="began with other parameters"):
        train(named, run=tmp_path / "run", say=silent)
    with pytest.raises(InputError, match="began with random parameters"):
        train(replace(named, seed=1), run=other.path, say=silent)


def test_given_vocabularies_prepare_text_as_the_settings_say(origin: Run, tmp_path: Path) -> None:
    vocabularies = origin.src_vocabulary, origin.tgt_vocabulary
    initial = Initial(best_params(origin)[0], vocabularies)
    settings = replace(CONFIG, data=replace(CONFIG.data, lowercase=True))
    run = train(settings, run=tmp_path / "run", init=initial, say=silent).run
    assert run.src_vocabulary.encode("MAI") == vocabularies[0].encode("mai")
    assert runs.load(run.path).src_vocabulary.encode("MAI") == vocabularies[0].encode("mai")


def test_settings_without_their_corpus_begin_from_the_run(origin: Run, tmp_path: Path) -> None:
    tsv = tmp_path / "pairs.tsv"
    tsv.write_text("".join(f"{day} Mai\t05-{day}\n" for day in range(60)))
    data = replace(CONFIG.data, tsv=(str(tsv),), holdout=2)
    first = train(replace(CONFIG, data=data), run=tmp_path / "first", say=silent).run
    pairs = [(f"{day} Juni", f"06-{day}") for day in range(40)]
    for number, name in enumerate(("second", "third")):
        config = runs.load(first.path).config.without_corpus()
        assert (config.model, config.training) == (CONFIG.model, CONFIG.training)
        second = train(config, pairs, run=tmp_path / name, init=first.path, say=silent)
        assert second.trained_steps == 2
        first = second.run
        assert not first.config.data.tsv, number
