"""CTranslate2 computes with an exported Transformer what our module computes."""

import re
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from encdec.config import TransformerConfig
from encdec.interop.ctranslate2 import write_model
from encdec.models import registry
from encdec.types import InputError, Params, SpecialIds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ctranslate2 = pytest.importorskip("ctranslate2")

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # those of CTranslate2 are its own
]

SRC, TGT = 31, 37
MAX_LEN = 20
RANDOM, TRANSLATED = 24, 200
"""Sentences with random targets, and sentences that CTranslate2 translates."""


class Dialect(NamedTuple):
    """Settings, and the special tokens of source and target."""

    config: TransformerConfig
    src_specials: SpecialIds = SpecialIds()
    tgt_specials: SpecialIds = SpecialIds()
    joint: bool = True
    add_source_bos: bool = False


SIZES: dict[str, Any] = {
    "layers": 2,
    "decoder_layers": 3,
    "width": 12,
    "feed_forward": 20,
    "heads": 3,
    "max_positions": 64,
}
PAPER = TransformerConfig(**SIZES)
BART = TransformerConfig(
    **SIZES,
    norm_epsilon=1e-5,
    embedding_norm=True,
    activation="gelu",
    biases="all",
    output_bias=True,
    positions="learned",
    position_offset=2,
    scale_embeddings=False,
    tie_embeddings=True,
)
MBART = replace(BART, norm="pre", scale_embeddings=True)
MARIAN = TransformerConfig(
    **SIZES,
    norm_epsilon=1e-5,
    activation="silu",
    biases="all",
    output_bias=True,
    positions="sinusoidal-halves",
    tie_embeddings=True,
)
PEGASUS = replace(MARIAN, norm="pre", activation="relu")
M2M100 = replace(
    PEGASUS, positions="sinusoidal-tensor2tensor", position_offset=2, output_bias=False
)
T5 = TransformerConfig(
    **SIZES,
    head_width=5,
    norm="pre",
    norm_type="rms",
    biases="none",
    output_bias=False,
    positions="relative",
    relative_buckets=8,
    relative_max_distance=12,
    scale_embeddings=False,
    scale_scores=False,
    scale_outputs=True,
    tie_embeddings=True,
)
GATED_T5 = replace(
    T5, gated=True, activation="gelu-tanh", scale_outputs=False, tie_embeddings=False
)

LAST = TGT - 1
OF_MARIAN = SpecialIds(pad=LAST, start=LAST, end=0, unknown=1)
OF_BART = SpecialIds(pad=1, start=0, end=2, unknown=3)
STARTS_WITH_END = OF_BART._replace(start=2)
OF_T5 = SpecialIds(pad=0, start=0, end=1, unknown=2)

DIALECTS = {
    "paper": Dialect(PAPER, joint=False),
    "paper-tied": Dialect(replace(PAPER, tie_embeddings=True)),
    "paper-tied-target": Dialect(replace(PAPER, tie_embeddings=True), joint=False),
    "paper-shared": Dialect(replace(PAPER, share_embeddings=True, output_bias=False)),
    "paper-rms-embedding-norm": Dialect(
        replace(PAPER, norm_type="rms", norm_epsilon=0.1, embedding_norm=True, head_width=7)
    ),
    "marian": Dialect(MARIAN, OF_MARIAN, OF_MARIAN),
    "marian-untied": Dialect(replace(MARIAN, tie_embeddings=False), OF_MARIAN, OF_MARIAN),
    "bart": Dialect(BART, OF_BART, STARTS_WITH_END, add_source_bos=True),
    "bart-untied": Dialect(replace(BART, tie_embeddings=False), OF_BART, STARTS_WITH_END),
    "mbart": Dialect(MBART, OF_BART, OF_BART._replace(start=5)),
    "mbart-untied": Dialect(replace(MBART, tie_embeddings=False), OF_BART, STARTS_WITH_END),
    "pegasus": Dialect(PEGASUS, OF_T5, OF_T5),
    "pegasus-untied": Dialect(replace(PEGASUS, tie_embeddings=False), OF_T5, OF_T5),
    "m2m100": Dialect(M2M100, STARTS_WITH_END, STARTS_WITH_END),
    "m2m100-untied": Dialect(
        replace(M2M100, tie_embeddings=False), STARTS_WITH_END, STARTS_WITH_END
    ),
    "t5": Dialect(T5, OF_T5, OF_T5),
    "t5-gated": Dialect(GATED_T5, OF_T5, OF_T5),
    "umt5": Dialect(replace(GATED_T5, relative_every_layer=True), OF_T5, OF_T5),
    "t5-scaled": Dialect(
        replace(GATED_T5, scale_scores=True, biases="feed-forward", norm="post", activation="silu"),
        OF_T5,
        OF_T5,
    ),
}


def tokens_of(count: int, specials: SpecialIds) -> list[str]:
    names = {specials.pad: "<pad>", specials.unknown: "<unk>", specials.end: "</s>"}
    names = {specials.start: "<s>"} | names
    return [names.get(i, f"t{i}") for i in range(count)]


class Exported(NamedTuple):
    """One model on either side, and sources without special tokens."""

    dialect: Dialect
    apply: Any
    translator: Any
    src_tokens: list[str]
    tgt_tokens: list[str]
    sources: list[list[int]]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The sources with special tokens, int32 [B, S], and their mask."""
        specials = self.dialect.src_specials
        first = [specials.start] if self.dialect.add_source_bos else []
        rows = [[*first, *source, specials.end] for source in self.sources]
        src = np.full((len(rows), max(map(len, rows))), specials.pad, np.int32)
        for row, tokens in zip(src, rows, strict=True):
            row[: len(tokens)] = tokens
        return src, np.arange(src.shape[1]) < np.array([[len(row)] for row in rows])

    def their_sources(self) -> list[list[str]]:
        return [[self.src_tokens[i] for i in source] for source in self.sources]


def random_params(model: Any, dialect: Dialect) -> Params:
    """No bias is 0, and encoder-decoder attention is strong, so that translations differ."""
    rng = np.random.default_rng(1)
    width = dialect.config.width

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        name, shape = path[-1].key, leaf.shape
        mean, deviation = float(name == "scale"), 0.1
        if name in ("kernel", "wq", "wk", "wv", "wo"):
            gain = 4 if path[-2].key == "cross_attention" else 0.7
            deviation = gain * (np.prod(shape[:-1]) if name == "wo" else shape[0]) ** -0.5
        elif name == "embedding" and dialect.config.scale_embeddings:
            deviation = width**-0.5
        elif name in ("embedding", "table"):
            deviation = 1
        return rng.normal(mean, deviation, shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, registry.abstract(model))
    if dialect.tgt_specials == OF_MARIAN:  # Marian starts from zero, not from an embedding
        params["tgt_embedding"]["embedding"][LAST] = 0
    return params


def export(name: str, folder: Path) -> Exported:
    dialect = DIALECTS[name]
    config, src_specials, tgt_specials, joint, add_source_bos = dialect
    sizes = (TGT if joint else SRC, TGT)
    model = registry.build(config, *sizes, joint=joint)
    params = random_params(model, dialect)
    tokens = [tokens_of(size, src_specials) for size in sizes]
    (folder / "model").mkdir(parents=True)
    write_model(
        folder / "model",
        config,
        params,
        *tokens,
        src_specials=src_specials,
        tgt_specials=tgt_specials,
        add_source_bos=add_source_bos,
    )
    translator = ctranslate2.Translator(
        str(folder / "model"), device="cpu", compute_type="float32", intra_threads=1
    )
    rng = np.random.default_rng(2)
    plain = sorted(set(range(sizes[0])) - {*src_specials, *tgt_specials})
    sources = [rng.choice(plain, rng.integers(1, 13)).tolist() for _ in range(RANDOM + TRANSLATED)]
    return Exported(dialect, partial(model.apply, {"params": params}), translator, *tokens, sources)


def our_log_probs(exported: Exported, targets: list[list[int]]) -> np.ndarray:
    """[B, T, V] with the start token before each target; excluded tokens have -inf."""
    specials = exported.dialect.tgt_specials
    tgt_in = np.full((len(targets), MAX_LEN + 1), specials.pad, np.int32)
    for row, target in zip(tgt_in, targets, strict=True):
        row[: len(target) + 1] = [specials.start, *target]
    logits = np.array(jax.jit(exported.apply)(*exported.arrays(), tgt_in))
    logits[..., list({specials.pad, specials.start} - {specials.end})] = -np.inf
    return np.array(jax.nn.log_softmax(logits))


@pytest.mark.parametrize("name", DIALECTS)
def test_scores_and_greedy_tokens_are_ours(name: str, tmp_path: Path) -> None:
    """Log-probabilities of random targets and of their translations, each token of which is ours.

    A search of ours takes seconds to compile. Where each token of a translation is the likeliest to
    our module after those before it, greedy search gives the same.
    """
    exported = export(name, tmp_path)
    translator, tgt_tokens = exported.translator, exported.tgt_tokens
    specials, sources = exported.dialect.tgt_specials, exported.their_sources()
    ids = {token: i for i, token in enumerate(tgt_tokens)}
    results = translator.translate_batch(
        sources[RANDOM:],
        beam_size=1,
        min_decoding_length=0,
        max_decoding_length=MAX_LEN,
        max_batch_size=32,
    )
    translations = [[ids[token] for token in result.hypotheses[0]] for result in results]
    rng = np.random.default_rng(3)
    plain = sorted(set(range(TGT)) - {*specials})
    targets = [rng.choice(plain, rng.integers(1, MAX_LEN)).tolist() for _ in range(RANDOM)]
    targets += translations
    ours = our_log_probs(exported, targets)

    scored = translator.score_batch(sources, [[tgt_tokens[i] for i in t] for t in targets])
    expected = [
        row[i, token]
        for row, target in zip(ours, targets, strict=True)
        for i, token in enumerate([*target, specials.end])
    ]
    differences = np.abs(np.subtract(expected, [p for r in scored for p in r.log_probs]))
    # Where attention is sharp, a rounding error grows: a few tokens differ by more than the rest.
    assert np.quantile(differences, 0.99) < 1e-4
    assert differences.max() < 5e-3
    equal = 0
    for row, target in zip(ours[RANDOM:], translations, strict=True):
        whole = target if len(target) == MAX_LEN else [*target, specials.end]
        equal += row[: len(whole)].argmax(-1).tolist() == whole
    assert equal >= 0.99 * len(translations)
    assert len({tuple(target) for target in translations}) > len(translations) / 2


def write_tiny(folder: Path, src: list[str], tgt: list[str], **changes: Any) -> None:
    """Writes a model of 5 source and 6 target tokens, or fails to."""
    config = TransformerConfig(layers=1, width=4, feed_forward=4, heads=2)
    shapes = registry.abstract(registry.build(config, 5, 6))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    specials = {"src_specials": SpecialIds(), "tgt_specials": SpecialIds()} | changes
    write_model(folder, config, params, src, tgt, **specials)


@pytest.mark.parametrize(
    ("src", "tgt", "message"),
    [
        (4, 6, "src_tokens has 4 tokens, but the model has 5: give one for each id"),
        (5, 7, "tgt_tokens has 7 tokens, but the model has 6"),
        (["<pad>", "<s>", "</s>", "<unk>", "<s>"], 6, "src_tokens has '<s>' more than once"),
        (["<pad>", "<s>", "<end>", "<unk>", "a"], 6, "the end token is '<end>' in src_tokens and"),
        (
            ["<pad>", "<s>", "</s>", "?", "a"],
            6,
            "the unknown token is '?' in src_tokens and '<unk>",
        ),
        (
            ["<pad>", "<go>", "</s>", "<unk>", "a"],
            6,
            "start token of the source, '<go>', is not in",
        ),
    ],
    ids=str,
)
def test_vocabularies_that_do_not_fit_are_refused(
    src: int | list[str], tgt: int, message: str, tmp_path: Path
) -> None:
    src_tokens = tokens_of(src, SpecialIds()) if isinstance(src, int) else src
    with pytest.raises(InputError, match=re.escape(message)):
        write_tiny(tmp_path, src_tokens, tokens_of(tgt, SpecialIds()))
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = (tokens_of(5, SpecialIds()), tokens_of(6, SpecialIds()))
    monkeypatch.setitem(sys.modules, "ctranslate2.specs", None)
    with pytest.raises(InputError, match=r"CTranslate2 is not installed: pip install 'encdec\["):
        write_tiny(tmp_path, *tokens)


def test_matrices_that_are_one_are_written_once(tmp_path: Path) -> None:
    """An untied model has two matrices more, but for some bytes of names."""
    sizes = {}
    for name in ("m2m100", "m2m100-untied"):
        export(name, tmp_path / name)
        model = tmp_path / name / "model"
        sizes[name] = (model / "model.bin").stat().st_size
        assert (model / "shared_vocabulary.json").is_file()
    assert sizes["m2m100-untied"] - sizes["m2m100"] > 1.9 * TGT * SIZES["width"] * 4
