"""Families from outside the package: what they need, and what all the rest then does with them."""

import ast
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import encdec as library
from encdec import config as configs
from encdec.config import DataConfig, RunConfig, TrainingConfig, TrainingDeviceConfig
from encdec.config.families import register
from encdec.config.presets import preset
from encdec.models import registry
from encdec.parallel.layout import Layout
from encdec.search.sampling import greedy
from encdec.training.family_check import check_family
from encdec.training.step import init_state, train_step
from encdec.types import Array, Batch, InputError, SpecialIds
from tests.commands import refused
from tests.models import bag_of_words
from tests.models.bag_of_words import BagOfWords, BagOfWordsConfig

WORDS = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
PAIRS = [(word, str(digit)) for digit, word in enumerate(WORDS)]


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        yield


def settings() -> RunConfig:
    data = DataConfig(vocabulary="words", batch_tokens=64, num_buckets=1)
    training = TrainingConfig(
        max_steps=60,
        learning_rate=0.02,
        schedule="constant",
        warmup=0,
        label_smoothing=0.0,
        evaluate_every=60,
    )
    return RunConfig(BagOfWordsConfig(width=16), data, training)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on four devices, each with a quarter of the sentences."""
    folder: Path = tmp_path_factory.mktemp("own") / "run"
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("encdec.parallel.devices.device_count", lambda: 4)
        layout = TrainingDeviceConfig(layout="4x1")
        corpus = library.Corpus(train=PAIRS * 3, valid=PAIRS)
        library.train(settings(), corpus, run=folder, devices=layout, say=lambda line: None)
    return folder


def test_a_family_of_ones_own_translates_on_one_device_and_on_four(run: Path) -> None:
    for layout in (Layout(), Layout(4, 1)):
        translator = library.load(run, layout)
        found = translator.translate(WORDS)
        assert [one.text for one in found] == [digit for _, digit in PAIRS]
    with pytest.raises(InputError, match="bag-of-words, which has no attention"):
        translator.attention(found[0])


@pytest.mark.slow
def test_commands_and_settings_know_it_by_its_name(encdec, run: Path, tmp_path: Path) -> None:
    assert library.load(run).run.config == settings()
    assert configs.from_json(configs.to_json(settings())) == settings()
    assert preset("tiny", "bag-of-words").model == BagOfWordsConfig()
    found = encdec("translate", run, "--beam", 2, stdin=b"drei\n")
    assert found.out == "3\n"
    start = ["train", "--model", "bag-of-words", "--run", tmp_path / "new"]
    assert "Width of the embeddings" in " ".join(encdec(*start, "--help").out.split())
    refused(encdec(*start, "--layout", "1x1", "--remat"), "bag-of-words has no layers for remat")
    refused(encdec(*start, "--scheduled-sampling", "0.5"), "scheduled_sampling = 0.5")
    with pytest.raises(InputError, match=r"layout 1x4 .* bag-of-words cannot be split: 4x1 would"):
        library.load(run, Layout(1, 4))
    trained = encdec(*start, "--width", 8, "--date-sentences", 300, "--max-steps", 1)
    assert trained.code == 0, trained


def test_the_example_is_short() -> None:
    assert len(Path(bag_of_words.__file__).read_text(encoding="utf-8").splitlines()) <= 70


@dataclass(frozen=True)
class NoDefaultConfig(library.ModelConfig):
    width: int


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("seq2seq", BagOfWordsConfig, "'seq2seq' is registered already"),
        (5, BagOfWordsConfig, "name = 5 is a int"),
        ("mine", 5, "config = 5 is no class"),
        ("mine", NoDefaultConfig, "every field needs a default"),
        ("mine", DataConfig, "must be a frozen dataclass and a ModelConfig"),
    ],
)
def test_what_cannot_be_registered(name, config, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register(name, config, BagOfWords)
    register("bag-of-words", BagOfWordsConfig, BagOfWords)  # again, as a notebook does


def test_nobody_asks_which_family_a_model_is_of() -> None:
    """Outside the registry no code tests the class of a model's settings or compares a family's
    name; only importers make settings of the family that they import."""
    root = Path(library.__file__).parent
    names = {"seq2seq", "attention", "transformer"}
    classes = {"Seq2SeqConfig", "AttentionConfig", "TransformerConfig"}
    files = [f for f in root.rglob("*.py") if f.relative_to(root).parts[0] != "config"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = (file.relative_to(root).as_posix(), getattr(node, "lineno", 0))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "isinstance",
                "issubclass",
            ):
                asked = ast.unparse(node).replace("isinstance(config, RunConfig)", "")
                assert not re.search(r"config\b|Config\b", asked), where
            if isinstance(node, ast.Compare):
                literals = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not literals & names, where
            if isinstance(node, ast.Name) and node.id in classes:
                assert file.parent.name in ("models", "interop"), where


class TwoResults(BagOfWords):
    def decode_step(self, memory, cache, tokens):
        return super().decode_step(memory, cache, tokens)[:2]


class NoBeams(BagOfWords):
    def init_cache(self, memory, beams: int, max_len: int) -> Array:
        return memory[0]


class NoRows(BagOfWords):
    def encode(self, src: Array, src_mask: Array):
        bag, mask = super().encode(src, src_mask)
        return bag, mask[0]


class Logits(BagOfWords):
    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array):
        return super().logit_factors(src, src_mask, tgt_in).logits("float32")


class Unfinished(library.EncoderDecoder):
    def encode(self, src: Array, src_mask: Array) -> Array:
        return src


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (TwoResults, r"TwoResults: the step returned 2 values: .*\(logits, attention, cache\)"),
        (NoBeams, r"NoBeams: init_cache returned float32\[2, 8\]: .*\[B, W\] = \[2, 3\]"),
        (NoRows, r"NoRows: encode returned bool\[1\] for B = 2 sentences"),
        (Logits, r"Logits.logit_factors returned .*: it must return encdec.LogitFactors"),
    ],
)
def test_a_family_that_cannot_be_searched_is_refused(module, says: str) -> None:
    check_family(BagOfWords(BagOfWordsConfig(width=8), 7, 7))
    with pytest.raises(InputError, match=says):
        check_family(module(BagOfWordsConfig(width=8), 7, 7))


def test_it_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BagOfWords, "init_cache", lambda self, memory, *_: memory[0])
        with pytest.raises(InputError, match="the model cannot be searched: BagOfWords: init_cac"):
            library.train(settings(), library.Corpus(PAIRS, PAIRS), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_method_that_is_missing_is_named() -> None:
    model = Unfinished(BagOfWordsConfig(), 7, 7)
    with pytest.raises(NotImplementedError, match="Unfinished must define logit_factors"):
        registry.abstract(model)


# --- a source of features ------------------------------------------------------------------------

D, S, V, B = 5, 3, 4 + 5, 16


@dataclass(frozen=True)
class FeaturesConfig(BagOfWordsConfig):
    features: int = D


class Features(BagOfWords):
    """Reads float features in place of token ids."""

    def setup(self) -> None:
        super().setup()
        self.projection = nn.Dense(self.config.width)

    def encode(self, src: Array, src_mask: Array):
        return jnp.tanh(self.projection(src).sum(1, where=src_mask[..., None])), src_mask

    def example_source(self) -> Array:
        return jnp.ones((1, 1, self.config.features))


register("features", FeaturesConfig, Features)


def feature_batch(seed: int) -> Batch:
    """The target says which feature is 1 in every position, then the end; padding is loud."""
    rng = np.random.default_rng(seed)
    mask = np.arange(S) < rng.integers(1, S + 1, (B, 1))
    which = rng.integers(D, size=B)
    features = np.eye(D)[which, None] + 0.1 * rng.normal(size=(B, S, D))
    src = np.where(mask[..., None], features, 100.0).astype(np.float32)
    tgt = np.stack([np.full(B, 1), 4 + which, np.full(B, 2)], 1).astype(np.int32)
    return Batch(src, mask, tgt, np.ones((B, 2), bool))


def test_a_family_may_read_float_features() -> None:
    model = registry.build(FeaturesConfig(width=16), 0, V)
    adam, training = optax.adam(0.02), TrainingConfig(label_smoothing=0.0, gradient_accumulation=2)
    state = init_state(registry.init(model, jax.random.key(0)), adam, training)
    step = jax.jit(partial(train_step, model, adam, training))
    for seed in range(100):
        state, report = step(state, feature_batch(seed), jax.random.key(1))
    assert report.sums.loss / report.sums.tokens < 0.2
    whole = replace(training, gradient_accumulation=1)
    one = jax.jit(partial(train_step, model, adam, whole))(
        state, feature_batch(0), jax.random.key(1)
    )[1]
    np.testing.assert_allclose(
        one.sums, step(state, feature_batch(0), jax.random.key(1))[1].sums, rtol=1e-4
    )
    src, src_mask, tgt, _ = feature_batch(1000)
    apply = partial(model.apply, {"params": state.params})
    memory = apply(src, src_mask, method="encode")
    init_cache = partial(apply, memory, 1, method="init_cache")
    decode_step = partial(apply, method="decode_step")
    found = greedy(
        decode_step, memory, init_cache, jnp.full(B, 4), max_len=4, specials=SpecialIds()
    )
    assert (found.lengths == 2).all()
    np.testing.assert_array_equal(np.asarray(found.tokens)[:, 0, :2], tgt[:, 1:])
