"""`encdec.train` from Python: pairs, corpus objects, batches, callbacks and initial parameters."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import encdec
from encdec.config import (
    RunConfig,
    TrainingDeviceConfig,
)
from encdec.data.batches import TrainingBatches
from encdec.data.corpus import read_corpus
from encdec.data.given_batches import BatchCheck, with_first_checked
from encdec.data.pipeline import bucket_training, build_vocabularies
from encdec.data.sources import Pairs
from encdec.data.tokens import encode_pairs
from encdec.models import registry
from encdec.parallel.devices import keep_compiled_programs
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from encdec.runs.parameters import abstract_params, best_params, build_model
from encdec.training import session
from encdec.training.optimizer import optimizer
from encdec.training.step import init_state, train_step
from encdec.training.step_reports import DivergedError
from encdec.types import InputError

PAIRS = [(f"{a} + {b}", str(a + b)) for a in range(12) for b in range(11)]
OPTIONS = [
    *("--model", "seq2seq", "--embed", "4", "--hidden", "6", "--dropout", "0.1"),
    *("--vocabulary", "chars", "--joint-vocabulary", "--batch-tokens", "128"),
    *("--num-buckets", "1", "--max-steps", "8", "--evaluate-every", "3", "--log-every", "2"),
    *("--evaluate-sentences", "2", "--best-metric", "loss"),
]


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        yield


def config(data: dict[str, Any] | None = None, **training: Any) -> RunConfig:
    """What OPTIONS say, by the preset that the command takes for text."""
    preset = encdec.preset("tiny", "seq2seq")
    sizes = {"batch_tokens": 128, "num_buckets": 1, "joint_vocabulary": True}
    steps = {"max_steps": 8, "evaluate_every": 3, "log_every": 2, "evaluate_sentences": 2}
    return replace(
        preset,
        model=replace(preset.model, embed=4, hidden=6, dropout=0.1),
        data=replace(preset.data, vocabulary="chars", **sizes | (data or {})),
        training=replace(preset.training, **steps | {"best_metric": "loss"} | training),
    )


def train(settings: RunConfig, *arguments: Any, **keywords: Any) -> encdec.TrainResult:
    one_device = {"devices": TrainingDeviceConfig(layout="1x1"), "say": lambda line: None}
    return encdec.train(settings, *arguments, **one_device | keywords)


def latest(run: Path) -> Any:
    """The state to resume from."""
    opened = runs.load(run)
    training = opened.config.training
    like = jax.eval_shape(
        lambda: init_state(
            registry.init(build_model(opened), jax.random.key(0)), optimizer(training), training
        )
    )
    return checkpoints.load(run, "latest", like)[0]


def assert_same(one: Path, other: Path) -> None:
    """The states, the best parameters and all that was measured are equal to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, latest(one), latest(other))
    bests = [best_params(runs.load(run)) for run in (one, other)]
    assert bests[0][1] == bests[1][1]
    jax.tree.map(np.testing.assert_array_equal, bests[0][0], bests[1][0])
    losses = [
        [(r["kind"], r["step"], r["loss"]) for r in rows if r["kind"] in ("train", "valid")]
        for rows in (read_metrics(run / "metrics.jsonl") for run in (one, other))
    ]
    assert losses[0] == losses[1]


@pytest.fixture(scope="module", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Most tests compile the same steps."""
    keep_compiled_programs(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on PAIRS that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "pairs"
    with jax.numpy_dtype_promotion("standard"):
        result = train(config(), PAIRS, run=run)
    assert (result.step, result.trained_steps) == (8, 8)
    return run


# --- pairs ---------------------------------------------------------------------------------------


def test_pairs_train_what_the_command_trains_on_the_same_pairs_in_a_file(
    trained: Path, tmp_path: Path, encdec
) -> None:
    tsv, run = tmp_path / "pairs.tsv", tmp_path / "run"
    tsv.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
    done = encdec("train", *OPTIONS, "--tsv", tsv, "--run", run)
    assert done.code == 0, done.err
    assert_same(trained, run)
    one, other = runs.load(trained), runs.load(run)
    assert one.corpus == other.corpus
    assert one.held_out == other.held_out
    assert replace(one.config, data=replace(one.config.data, tsv=(str(tsv),))) == other.config


@pytest.mark.parametrize("kind", ["Pairs", "Corpus", "object", "stream"])
def test_every_form_of_a_corpus_is_the_same_text(trained: Path, kind: str) -> None:
    """A run that is there is not trained again: its text and settings were recognized."""

    class Stream:
        def __iter__(self) -> Iterator[tuple[str, str]]:
            return iter(PAIRS)

    corpus = {
        "Pairs": Pairs(*map(list, zip(*PAIRS, strict=True))),
        "Corpus": encdec.Corpus(PAIRS),
        "object": SimpleNamespace(train=PAIRS, valid=None),
        "stream": Stream(),
    }[kind]
    assert train(config(), corpus, run=trained).trained_steps == 0


def test_given_validation_pairs_are_used_and_the_text_is_in_the_digest() -> None:
    valid = encdec.Corpus(PAIRS, PAIRS[:3])
    text = read_corpus(config(), lambda line: None, valid)
    assert list(text.train) == PAIRS
    assert text.valid == text.held_out == Pairs(*map(list, zip(*PAIRS[:3], strict=True)))
    others = [
        replace(valid, train=PAIRS[1:]),
        replace(valid, valid=PAIRS[:2]),
        replace(valid, digest="mine"),
    ]
    digests = {read_corpus(config(), lambda line: None, o).digest for o in others}
    assert len(digests | {text.digest}) == 4
    ended = replace(valid, held_out=PAIRS[5:9])
    assert read_corpus(config(), lambda line: None, ended).held_out.tgt == ["5", "6", "7", "8"]


def test_a_run_left_unnamed_is_found_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config(max_steps=1)
    first = train(settings, PAIRS)
    assert first.run.path.parent == Path("runs")
    assert train(settings, PAIRS).trained_steps == 0
    assert train(settings, PAIRS[:-1]).run.path != first.run.path
    assert isinstance(first.translator("1 + 2").text, str)
    assert first.translator is first.translator


# --- callbacks -----------------------------------------------------------------------------------


def test_callbacks_see_each_row_with_the_state_of_its_step(tmp_path: Path) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []

    def see(step: int, metrics: dict[str, Any], state: Any) -> None:
        assert int(state.step) == step
        seen.append((step, metrics))

    train(config(), PAIRS, run=tmp_path / "run", callbacks=[see])
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row for _, row in seen] == [row for row in rows if row["kind"] != "start"]
    assert [(step, row["kind"]) for step, row in seen] == [
        *((2, "train"), (3, "valid"), (4, "train"), (6, "train"), (6, "valid")),
        *((8, "train"), (8, "valid")),
    ]


@pytest.mark.parametrize("stop_at", [4, 6])
def test_a_run_stopped_by_a_callback_resumes_as_if_never_stopped(
    trained: Path, tmp_path: Path, stop_at: int
) -> None:
    """Between two validations, and at one."""
    run = tmp_path / "run"
    result = train(config(), PAIRS, run=run, callbacks=[lambda step, *_: step == stop_at])
    assert (result.step, result.trained_steps) == (stop_at, stop_at)
    assert checkpoints.steps(run, "latest") == [stop_at]
    assert train(config(), PAIRS, run=run).trained_steps == 8 - stop_at
    assert_same(trained, run)


def test_what_a_callback_raises_comes_after_the_run_is_saved(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def fail(step: int, metrics: dict[str, Any], state: Any) -> None:
        if metrics["kind"] == "train" and step >= 4:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train(config(), PAIRS, run=run, callbacks=[fail])
    assert checkpoints.steps(run, "latest") == [4]
    train(config(), PAIRS, run=run)
    assert_same(trained, run)


# --- batches -------------------------------------------------------------------------------------


def batches_of(run: Path) -> tuple[RunConfig, list[encdec.Batch], int]:
    """The settings and batches of a run on PAIRS, and how many ids they have."""
    settings = config()
    text = read_corpus(settings, lambda line: None, encdec.Corpus(PAIRS))
    vocabularies = build_vocabularies(settings.data, text.train, settings.seed)
    examples = encode_pairs(Pairs(*zip(*text.train, strict=True)), *vocabularies)
    bucketing, _ = bucket_training(settings, examples, None, lambda line: None)
    made = TrainingBatches(examples, bucketing, settings.seed)
    return settings, [made[step] for step in range(8)], vocabularies[0].size


def test_the_same_batches_train_the_same_parameters(trained: Path, tmp_path: Path) -> None:
    """From a function, stopped in between; validation changes nothing."""
    settings, made, size = batches_of(trained)
    settings = replace(settings, data=replace(settings.data, vocabulary_size=size))
    run = tmp_path / "run"

    def following(done: int) -> Iterator[encdec.Batch]:
        return iter(made[done:])

    train(settings, following, run=run, callbacks=[lambda step, *_: step == 4])
    result = train(settings, following, run=run)
    assert result.trained_steps == 4
    jax.tree.map(np.testing.assert_array_equal, latest(trained), latest(run))
    assert best_params(result.run)[1] == 8
    assert all(4 <= int(token) < size for token in result.translator("4 5 6").text.split())
    with pytest.raises(InputError, match=r"'1' is not a token id.*no vocabulary to read text"):
        result.translator("1 + 2")


def test_a_list_is_repeated_an_iterator_ends(tmp_path: Path) -> None:
    _, made, size = batches_of(tmp_path)
    settings = config({"vocabulary_size": size}, log_every=1)
    seen: dict[str, list[float]] = {"list": [], "iterator": []}
    for kind, source in (("list", made[:3]), ("iterator", iter(made[:3]))):
        see = [lambda step, row, state, kind=kind: seen[kind].append(row["loss"])]
        result = train(settings, source, run=tmp_path / kind, callbacks=see)
        assert result.step == (8 if kind == "list" else 3)
        assert checkpoints.steps(tmp_path / kind, "latest") == [result.step]
    assert seen["list"][:3] == seen["iterator"]
    with pytest.raises(InputError, match="has 3 steps already, and an iterator cannot return"):
        train(settings, iter(made), run=tmp_path / "iterator")


def test_validation_on_batches_is_their_mean_loss(tmp_path: Path) -> None:
    _, made, size = batches_of(tmp_path)
    settings = config({"vocabulary_size": size}, max_steps=3)
    seen: list[dict[str, Any]] = []
    corpus = encdec.Corpus(made, valid=made[5:7])
    result = train(
        settings, corpus, run=tmp_path / "run", callbacks=[lambda _, row, __: seen.append(row)]
    )
    model, (params, _) = build_model(result.run), best_params(result.run)
    nll, tokens = 0.0, 0
    for batch in made[5:7]:
        arrays = (batch.src, batch.src_mask, batch.tgt[:, :-1])
        logits = np.asarray(model.apply({"params": params}, *arrays), np.float64)
        top = np.log(np.exp(logits).sum(-1))
        log_p = np.take_along_axis(logits, batch.tgt[:, 1:, None], -1)[..., 0] - top
        nll -= log_p[batch.tgt_mask].sum()
        tokens += batch.tgt_mask.sum()
    (valid,) = (row for row in seen if row["kind"] == "valid")
    assert valid["loss"] == pytest.approx(nll / tokens, rel=1e-5)


# --- initial parameters --------------------------------------------------------------------------


def test_a_new_run_starts_from_given_parameters(trained: Path, tmp_path: Path) -> None:
    """The first step is the pure step from them; the caller's arrays stay usable."""
    params = jax.tree.map(jnp.asarray, best_params(runs.load(trained))[0])
    settings, (first, *_), size = batches_of(trained)
    settings = config({"vocabulary_size": size}, max_steps=1)
    result = train(settings, [first], run=tmp_path / "run", init=params)
    training, model = settings.training, build_model(result.run)
    key = jax.random.key(settings.seed)
    state = init_state(params, optimizer(training), training)
    step = jax.jit(partial(train_step, model, optimizer(training), training))
    expected, _ = step(state, first, key)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6), latest(tmp_path / "run").params, expected[1]
    )


def test_parameters_of_another_model_are_refused(trained: Path, tmp_path: Path) -> None:
    params = best_params(runs.load(trained))[0]
    wider = replace(config(), model=replace(config().model, hidden=7))
    shapes = r"init has decoder_0\.bias = float32\[18\], but the model has float32\[21\]"
    with pytest.raises(InputError, match=shapes):
        train(wider, PAIRS, run=tmp_path / "run", init=params)
    name = next(iter(params))
    rest = {key: value for key, value in params.items() if key != name}
    with pytest.raises(InputError, match=f"init has no parameter {name}"):
        train(config(), PAIRS, run=tmp_path / "run", init=rest)
    with pytest.raises(
        InputError, match="init has a parameter mine, which the model does not have"
    ):
        train(config(), PAIRS, run=tmp_path / "run", init=params | {"mine": np.zeros(2)})
    assert not (tmp_path / "run").exists()
    assert jax.tree.structure(params) == jax.tree.structure(abstract_params(runs.load(trained)))


# --- bad input -----------------------------------------------------------------------------------


class MapStyle:
    """A data set as PyTorch has them, which cannot be iterated over."""

    def __getitem__(self, index: int) -> tuple[str, str]:
        return PAIRS[index]

    def __len__(self) -> int:
        return len(PAIRS)


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        (lambda *_: True, r"callbacks is a function: give a list of functions, \[callback\]"),
        ([17], r"callbacks has 17, which is no function of \(step, metrics, state\)"),
    ],
)
def test_what_is_no_callback_is_refused(callbacks: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        train(config(), PAIRS, run=tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ([*PAIRS[:4], ("1 + 1", 2)], r"train of the corpus: pair 4 .* is \('1 \+ 1', 2\), not a"),
        ([*PAIRS[:4], "12"], "pair 4 .* is '12', not a"),
        (Pairs(["a", "b"], ["c"]), "2 sources but 1 targets"),
        (encdec.Corpus(PAIRS, [*PAIRS[:2], ("a",)]), r"valid of the corpus: pair 2 .*\('a',\)"),
        (encdec.Corpus(PAIRS, []), "valid of the corpus has no pair"),
        (encdec.Corpus(PAIRS, iter(PAIRS)), "valid of the corpus is a list_iterator"),
        ([], "no pair of the corpus has text on both sides"),
        (SimpleNamespace(train=PAIRS), "SimpleNamespace, has no attribute 'valid'"),
        (SimpleNamespace(pairs=PAIRS), "SimpleNamespace, with no attribute 'train' or 'valid'"),
        ("a text", "the corpus is a str"),
        (17, "the corpus is a int"),
        (
            encdec.Corpus(MapStyle(), PAIRS),
            "train of the corpus is a MapStyle, which has no __iter",
        ),
    ],
)
def test_what_is_no_corpus_is_refused(corpus: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        train(config(), corpus, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def batch(**sides: np.ndarray) -> encdec.Batch:
    """Three sentences of five source and four target tokens."""
    good = encdec.Batch(
        src=np.full((3, 5), 4, np.int32),
        src_mask=np.ones((3, 5), bool),
        tgt=np.full((3, 5), 4, np.int32),
        tgt_mask=np.ones((3, 4), bool),
    )
    return good._replace(**sides)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            [batch(src=np.ones((3, 5), np.int64))],
            r"step 1: src is int64\[3, 5\], not int32",
        ),
        ([batch(tgt=np.ones(3, np.int32))], r"step 1: tgt is int32\[3\]"),
        ([batch(tgt_mask=np.ones((3, 5), bool))], r"tgt_mask is bool\[3, 5\], not bool\[3, 4\]"),
        ([batch(tgt_mask=np.zeros((3, 4), bool))], "step 1 has no target: tgt_mask is False"),
        ([batch(src_mask=np.ones((3, 5)))], r"src_mask is float64\[3, 5\], not bool\[3, 5\]"),
        ([batch(src=np.full((3, 5), 9, np.int32))], "src has ids from 9 to 9: .*size - 1 = 8"),
        (iter(PAIRS), "step 1 is a tuple, not an encdec.Batch.*as a list"),
        (iter([]), "no batch to train on"),
        (batch(), "the corpus is a Batch"),
        (
            encdec.Corpus([batch()], [batch(tgt=batch().tgt - 5)]),
            "validation batch 0 .*tgt has ids",
        ),
    ],
)
def test_batches_that_cannot_be_used_are_refused(given: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        train(config({"vocabulary_size": 9}), given, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [("tiny", r"config is a str, .*encdec.preset\(\"tiny\", \"transformer\"\)"), (3, "is a int,")],
    ids=str,
)
def test_what_is_no_config_is_refused(given: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        train(given, PAIRS, run=tmp_path / "run")


def test_a_result_is_shown_in_one_line(trained: Path) -> None:
    result = train(config(), PAIRS, run=trained)
    assert repr(result) == f"TrainResult(run={str(trained)!r}, step=8, trained_steps=0)"


def test_sources_without_an_end_token_are_told_of() -> None:
    """The translator of such a run ends each source with it."""
    for src, count in ((np.full((3, 5), 4, np.int32), 1), (np.full((3, 5), 2, np.int32), 0)):
        said: list[str] = []
        with_first_checked([batch(src=src)], (), BatchCheck(7, 1, "one device"), said.append)
        assert sum("no row of src has the end token 2" in line for line in said) == count


def test_rows_must_divide_among_devices_and_parts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 4)
    settings = config({"vocabulary_size": 9}, gradient_accumulation=3)
    says = "step 1 has 3 rows, which cannot be divided among 2 data shards x 3 parts.*multiple of 6"
    devices = TrainingDeviceConfig(layout="2x1")
    with pytest.raises(InputError, match=says):
        train(settings, [batch()], run=tmp_path / "run", devices=devices)


def test_settings_that_do_not_fit_batches_are_refused(tmp_path: Path) -> None:
    sized = {"vocabulary_size": 9}
    both = encdec.Corpus([batch()], [batch()])
    pairs = zip("ab", "cd", strict=True)
    cases: list[tuple[RunConfig, Any, Path | None, str]] = [
        (config(), pairs, tmp_path / "run", "the corpus is a zip: give pairs of text as a list"),
        (config(), [batch()], tmp_path / "run", "need vocabulary_size"),
        (config(sized), [batch()], None, "give one as run"),
        (config(sized, best_metric="bleu"), both, tmp_path / "run", "set best_metric to 'loss'"),
        (config(sized, patience=2), [batch()], tmp_path / "run", "patience needs batches"),
        (config({"tsv": ("some.tsv",)}), PAIRS, tmp_path / "run", "settings name some.tsv"),
    ]
    for settings, corpus, run, says in cases:
        with pytest.raises(InputError, match=says):
            train(settings, corpus, run=run)
    assert not (tmp_path / "run").exists()


def test_a_batch_found_wrong_in_mid_training_loses_no_step(tmp_path: Path) -> None:
    wrong = batch(src=np.ones((3, 5), np.int64))
    settings = config({"vocabulary_size": 9}, evaluate_every=100)
    with pytest.raises(InputError, match="the batch of step 3: src is int64"):
        train(settings, [batch(), batch(), wrong], run=tmp_path / "run")
    assert checkpoints.steps(tmp_path / "run", "latest") == [2]


def test_another_corpus_for_a_run_that_is_there_is_refused(trained: Path, encdec) -> None:
    with pytest.raises(
        InputError, match=r"was trained on another corpus .*passed to encdec\.train"
    ):
        train(config(), PAIRS[:-1], run=trained)
    with pytest.raises(InputError, match="hidden = 6, not 7"):
        train(replace(config(), model=replace(config().model, hidden=7)), PAIRS, run=trained)
    found = encdec("train", "--resume", trained)
    assert found.code == 2
    assert "passed to encdec.train" in found.err


def test_validation_that_comes_later_chooses_the_best(tmp_path: Path) -> None:
    given = [batch(tgt=np.random.default_rng(0).integers(4, 9, (3, 5), np.int32))] * 2
    settings = config({"vocabulary_size": 9}, max_steps=2, warmup=0, learning_rate=0.01)
    run = train(settings, given, run=tmp_path / "run").run.path
    assert checkpoints.steps(run, "best") == [2]
    more = replace(settings, training=replace(settings.training, max_steps=8))
    train(more, encdec.Corpus(given, given[:1]), run=run)
    losses = {
        row["step"]: row["loss"]
        for row in read_metrics(run / "metrics.jsonl")
        if row["kind"] == "valid"
    }
    assert checkpoints.steps(run, "best") == [min(losses, key=lambda step: losses[step])]
    assert min(losses) > 2


def test_a_loss_that_is_not_finite_on_features_is_told(trained: Path) -> None:
    features = batch(src=np.ones((3, 5, 2), np.float32))
    error = session._diverged(runs.load(trained), DivergedError(7, features, "the loss is nan"))
    assert str(error).startswith("step 7: the loss is nan; the checkpoint of step ")
    assert "is kept: look at the batch of this step, or train a new run" in str(error)
    assert not (trained / "diverged.jsonl").exists()


def test_corpus_settings_without_a_corpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reverse needs a corpus of two languages"):
        train(config({"reverse": True}), PAIRS, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
