"""Every setting of a run: frozen dataclasses, named presets, JSON both ways.

Field docstrings are the command line's help. Each check names the field and what it accepts.
"""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from encdec.types import InputError

Cell = Literal["simple", "gru", "lstm"]
VocabularyKind = Literal["chars", "words", "bytes", "sentencepiece"]
BleuTokenizer = Literal["13a", "intl", "char", "zh", "none"]


def _require(ok: bool, owner: object, name: str, accepts: str) -> None:
    if not ok:
        value = getattr(owner, name)
        raise InputError(f"{name} = {value!r} cannot be used: it must be {accepts}")


def _check_literals(owner: Any) -> None:
    """Refuses a value that the field's Literal does not list, with the nearest that it does."""
    hints = typing.get_type_hints(type(owner))
    for spec in dataclasses.fields(owner):
        hint = hints[spec.name]
        if typing.get_origin(hint) is Literal:
            accepts = "one of " + ", ".join(map(str, typing.get_args(hint)))
            _require(getattr(owner, spec.name) in typing.get_args(hint), owner, spec.name, accepts)


def _check_ranges(owner: Any, *, positive: str = "", fractions: str = "") -> None:
    for name in positive.split():
        _require(getattr(owner, name) >= 1, owner, name, "at least 1")
    for name in fractions.split():
        value = getattr(owner, name)
        _require(value is None or 0 <= value < 1, owner, name, "at least 0 and below 1")


@dataclass(frozen=True)
class Seq2SeqConfig:
    """One fixed vector between two recurrent networks (Cho 2014, Sutskever 2014)."""

    cell: Cell = "gru"
    """Recurrence: tanh RNN, GRU (Cho 2014) or LSTM (Sutskever 2014)."""
    layers: int = 1
    """Layers of the encoder, and of the decoder."""
    embed: int = 128
    """Width of the token embeddings."""
    hidden: int = 256
    """Width of a recurrent state."""
    dropout: float = 0.1
    """Share of activations dropped between layers, and wherever no other share is given."""
    embedding_dropout: float | None = None
    """Share dropped of the embeddings; left out, as dropout."""
    output_dropout: float | None = None
    """Share dropped before the output projection; left out, as dropout."""
    recurrent_dropout: float = 0.0
    """Share dropped of the last state on its way into the cell, one mask for all time steps
    (variational: Gal 2016)."""
    context_every_step: bool = False
    """The decoder sees the fixed vector at every step (Cho 2014), not only at its start."""
    reverse_source: bool = True
    """The encoder reads the source backwards (Sutskever 2014, section 3.3)."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_ranges(
            self,
            positive="layers embed hidden",
            fractions="dropout embedding_dropout output_dropout recurrent_dropout",
        )


@dataclass(frozen=True)
class AttentionConfig:
    """A bidirectional encoder and a decoder that looks back (Bahdanau 2015, Luong 2015)."""

    cell: Cell = "gru"
    """Recurrence: tanh RNN, GRU or LSTM."""
    layers: int = 1
    """Layers of the encoder (each in both directions), and of the decoder."""
    embed: int = 128
    """Width of the token embeddings."""
    hidden: int = 256
    """Width of a recurrent state, in each direction."""
    dropout: float = 0.1
    """Share of activations dropped between layers, and wherever no other share is given."""
    embedding_dropout: float | None = None
    """Share dropped of the embeddings; left out, as dropout."""
    memory_dropout: float | None = None
    """Share dropped of the encoder's states before they are looked at; left out, as dropout."""
    output_dropout: float | None = None
    """Share dropped before the output projection; left out, as dropout."""
    recurrent_dropout: float = 0.0
    """Share dropped of the last state on its way into the cell, one mask for all time steps
    (variational: Gal 2016)."""
    score: Literal["additive", "general", "dot"] = "additive"
    """Score of a state against a source state: additive (Bahdanau), general or dot (Luong)."""
    order: Literal["bahdanau", "conditional", "luong"] = "bahdanau"
    """bahdanau: score with h(t-1), then the cell; conditional: a cell for the last token, the
    score, a cell for the context (Sennrich 2017); luong: the cell, then score with h(t)."""
    tie_embeddings: bool = False
    """Target embedding and output projection share one matrix (Press 2017)."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_ranges(
            self,
            positive="layers embed hidden",
            fractions="dropout embedding_dropout memory_dropout output_dropout recurrent_dropout",
        )
        if self.tie_embeddings and self.order == "luong" and self.embed != self.hidden:
            raise InputError(
                f"tie_embeddings with order = 'luong' needs embed = hidden: {self.embed} is not "
                f"{self.hidden}"
            )


@dataclass(frozen=True)
class TransformerConfig:
    """N encoder and N decoder layers of attention and feed-forward (Vaswani 2017)."""

    layers: int = 4
    """Layers of the encoder, and of the decoder (N in the paper)."""
    width: int = 128
    """Width of the residual stream (d_model in the paper)."""
    feed_forward: int = 256
    """Inner width of the feed-forward sub-layer (d_ff in the paper)."""
    heads: int = 4
    """Attention heads (h in the paper); they must divide the width."""
    dropout: float = 0.1
    """Share dropped from embeddings and from each sub-layer's output (section 5.4)."""
    embedding_dropout: float | None = None
    """Share dropped of the embeddings with their positions; left out, as dropout."""
    attention_dropout: float = 0.0
    """Share of attention weights dropped (not in the paper)."""
    activation_dropout: float = 0.0
    """Share dropped inside the feed-forward sub-layer (not in the paper)."""
    norm: Literal["post", "pre"] = "post"
    """Layer norm after each residual sum (the paper) or before each sub-layer."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Nonlinearity of the feed-forward sub-layer."""
    tie_embeddings: bool = False
    """Target embedding and output projection share one matrix; with a joint vocabulary the
    source embedding too (section 3.4)."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_ranges(
            self,
            positive="layers width feed_forward heads",
            fractions="dropout embedding_dropout attention_dropout activation_dropout",
        )
        if self.width % self.heads:
            fits = [h for h in range(1, self.width + 1) if self.width % h == 0]
            near = sorted(sorted(fits, key=lambda h: abs(h - self.heads))[:3])
            raise InputError(
                f"heads = {self.heads} do not divide width = {self.width}: "
                f"heads of {', '.join(map(str, near))} would"
            )
        if self.width % 2:
            raise InputError(
                f"width = {self.width} cannot be used: sine and cosine need an even one"
            )


ModelConfig = Seq2SeqConfig | AttentionConfig | TransformerConfig

MODELS: dict[str, type[Any]] = {
    "seq2seq": Seq2SeqConfig,
    "attention": AttentionConfig,
    "transformer": TransformerConfig,
}


@dataclass(frozen=True)
class DataConfig:
    """Where sentences come from, how they become tokens, how tokens become batches."""

    corpus: str | None = None
    """A translation corpus of TensorFlow Datasets, `tfds:NAME/CONFIG`, as `encdec prepare` left
    it. With neither this nor files: the dates corpus."""
    corpus_folder: str | None = None
    """Where TensorFlow Datasets keeps corpora; left out, its own default."""
    train_split: str = "train"
    """Split of the corpus to train on; `train[:10%]` is a tenth of it."""
    valid_split: str = "validation"
    """Split of the corpus to validate on."""
    reverse: bool = False
    """Translate from the second language of the corpus to the first."""
    source: tuple[str, ...] = ()
    """Source sentences, one a line, in one file or several (.gz too)."""
    target: tuple[str, ...] = ()
    """Target sentences, one a line, in as many files, each as long as its source."""
    tsv: tuple[str, ...] = ()
    """Instead: files with tab-separated columns, a pair in each line (.gz too)."""
    tsv_columns: tuple[int, int] = (1, 2)
    """Columns of the source and of the target, counted from 1."""
    valid_source: tuple[str, ...] = ()
    """Source sentences to validate on."""
    valid_target: tuple[str, ...] = ()
    """Target sentences to validate on."""
    valid_tsv: tuple[str, ...] = ()
    """Instead: tab-separated files to validate on."""
    held_out: int | float = 1000
    """What is held out to validate on when no validation files are given: so many sentences, or a
    share below 1; a tenth of all at most."""
    date_sentences: int = 50_000
    """Size of the dates corpus."""
    lowercase: bool = False
    """Text is lower-cased before it becomes tokens."""
    normalization: Literal["none", "nfkc"] = "none"
    """Unicode normalisation before text becomes tokens."""
    tokenizer: Literal["none", "moses"] = "none"
    """moses: text is split as the Moses scripts do and translations are joined again. Text that is
    tokenised already needs none."""
    source_language: str = "en"
    """Language whose rules the Moses tokenizer follows on the source side."""
    target_language: str = "en"
    """Language whose rules the Moses tokenizer follows on the target side."""
    vocabulary: VocabularyKind = "sentencepiece"
    """What a token is; words are what white space separates."""
    target_vocabulary: VocabularyKind | None = None
    """What a token is on the target side; left out, as on the source side."""
    pieces: Literal["unigram", "bpe"] = "unigram"
    """How sentencepiece cuts: unigram language model (Kudo 2018) or byte pairs (Sennrich 2016)."""
    subword_sampling: float = 0.0
    """Subword regularisation (Kudo 2018): the exponent of a segmentation's probability among the
    64 best, such as 0.2; 0 always trains on the best. Unigram pieces only."""
    vocabulary_size: int | None = None
    """Tokens in a vocabulary. Left out: all chars or words there are; 8,000 sentencepieces, or
    fewer where the text has not as many."""
    vocabulary_sentences: int = 1_000_000
    """Most sentences that a vocabulary is made from, drawn at random from the training side."""
    joint_vocabulary: bool = False
    """One vocabulary for both sides."""
    max_source_length: int = 256
    """Longest source in tokens; longer pairs are left out of training, with a count."""
    max_target_length: int = 256
    """Longest target in tokens; longer pairs are left out of training, with a count."""
    batch_tokens: int = 4096
    """Cells of the longer side in one training step: rows times padded length."""
    shapes: int = 12
    """Most batch shapes in a run; each is compiled once."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_ranges(
            self,
            positive="date_sentences max_source_length max_target_length batch_tokens shapes "
            "vocabulary_sentences",
        )
        whole = isinstance(self.held_out, int) and self.held_out >= 1
        _require(whole or 0 < self.held_out < 1, self, "held_out", "at least 1, or a share below 1")
        _require(self.subword_sampling >= 0, self, "subword_sampling", "at least 0")
        _require(min(self.tsv_columns) >= 1, self, "tsv_columns", "two columns, counted from 1")
        if self.corpus is not None and not self.corpus.startswith("tfds:"):
            raise InputError(f"corpus = {self.corpus!r} cannot be used: say tfds:NAME/CONFIG")
        self._check_vocabulary()
        self._check_pair("source", "target", "tsv")
        self._check_pair("valid_source", "valid_target", "valid_tsv")
        if self.corpus is not None and self.has_files:
            raise InputError("corpus and files given: give one of the two")
        if self.has_validation_files and not (self.has_files or self.corpus):
            raise InputError("validation files need training files: give source and target too")

    def _check_vocabulary(self) -> None:
        kinds = {self.vocabulary, self.target_vocabulary or self.vocabulary}
        if self.vocabulary_size is not None:
            _require(self.vocabulary_size > 4, self, "vocabulary_size", "at least 5")
            if kinds == {"bytes"}:
                raise InputError("vocabulary = 'bytes' has one size: leave vocabulary_size out")
        if self.joint_vocabulary and len(kinds) > 1:
            raise InputError(
                f"a joint vocabulary cannot be {self.vocabulary} on one side and "
                f"{self.target_vocabulary} on the other: leave target_vocabulary out"
            )
        if self.subword_sampling and (self.pieces != "unigram" or "sentencepiece" not in kinds):
            raise InputError(
                "subword_sampling needs vocabulary = 'sentencepiece' with pieces = 'unigram'"
            )

    def _check_pair(self, source: str, target: str, tsv: str) -> None:
        given = [name for name in (source, target, tsv) if getattr(self, name)]
        if given not in ([], [source, target], [tsv]):
            raise InputError(
                f"{' and '.join(given)} given: give {source} and {target}, or {tsv} alone"
            )
        sources, targets = getattr(self, source), getattr(self, target)
        if len(sources) != len(targets):
            raise InputError(
                f"{source} names {len(sources)} files but {target} {len(targets)}: file i of one "
                "must translate file i of the other"
            )

    @property
    def has_files(self) -> bool:
        return bool(self.source or self.tsv)

    @property
    def has_validation_files(self) -> bool:
        return bool(self.valid_source or self.valid_tsv)


@dataclass(frozen=True)
class TrainingConfig:
    """Loss, optimiser, schedule, validation."""

    max_steps: int = 20_000
    """Updates of the parameters."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or Adam with decoupled weight decay."""
    learning_rate: float = 7e-4
    """Highest rate: where the warm-up ends."""
    schedule: Literal["inverse-sqrt", "cosine", "constant"] = "inverse-sqrt"
    """After the warm-up: 1/sqrt(step) (Vaswani 2017), half a cosine to 0, or constant."""
    warmup: int = 4000
    """Steps of linear warm-up from 0."""
    weight_decay: float = 0.0
    """Decay a step of AdamW, times the learning rate."""
    decayed: Literal["matrices", "not-embeddings", "all"] = "matrices"
    """What decays: all matrices, matrices but embeddings, or every parameter."""
    beta1: float = 0.9
    """Adam's decay of the mean gradient."""
    beta2: float = 0.98
    """Adam's decay of the mean squared gradient."""
    epsilon: float = 1e-9
    """Adam's guard against division by 0."""
    clip: float = 1.0
    """Largest global norm of a gradient; 0 for no limit."""
    label_smoothing: float = 0.1
    """Probability spread evenly over the vocabulary (Szegedy 2016)."""
    accumulate: int = 1
    """Equal parts that a batch is split into to save memory; the result is the same."""
    scheduled_sampling: float = 0.0
    """Share of the target inputs that the model draws itself (Bengio 2015): rises evenly from 0 to
    this at max_steps. For the recurrent decoders."""
    average_last: int = 1
    """Checkpoints, the latest ones, whose mean is validated and translated with."""
    ema_decay: float = 0.0
    """Where above 0: an exponential moving average of the parameters with this decay a step is
    validated and translated with."""
    evaluate_every: int = 1000
    """Steps between two validations; each leaves a checkpoint."""
    log_every: int = 50
    """Steps between two rows of metrics."""
    select: Literal["loss", "bleu", "chrf", "ter", "exact_match", "symbol_errors"] = "bleu"
    """Validation score that picks the best checkpoint."""
    patience: int = 0
    """Validations in a row without a better score after which training ends; 0 for never."""
    bleu_tokenizer: BleuTokenizer = "13a"
    """How sacreBLEU splits text; none where references are tokenised, as papers had them."""
    evaluate_sentences: int = 1000
    """Validation sentences that are decoded each time."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_ranges(
            self,
            positive="max_steps accumulate evaluate_every log_every evaluate_sentences "
            "average_last",
            fractions="label_smoothing beta1 beta2 ema_decay",
        )
        for name in ("learning_rate", "epsilon"):
            _require(getattr(self, name) > 0, self, name, "above 0")
        for name in ("warmup", "weight_decay", "clip", "patience"):
            _require(getattr(self, name) >= 0, self, name, "at least 0")
        _require(0 <= self.scheduled_sampling <= 1, self, "scheduled_sampling", "from 0 to 1")
        if self.ema_decay and self.average_last > 1:
            raise InputError("ema_decay and average_last are two ways to average: give one")
        if self.weight_decay and self.optimizer != "adamw":
            raise InputError("weight_decay needs optimizer = 'adamw'")


@dataclass(frozen=True)
class RunConfig:
    """All that decides what a run computes."""

    model: ModelConfig = field(default_factory=TransformerConfig)
    """Sizes and choices of the model."""
    data: DataConfig = field(default_factory=DataConfig)
    """Corpus, vocabulary, batches."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Loss, optimiser, schedule, validation."""
    seed: int = 0
    """The one seed that every random number comes from."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**31, self, "seed", "at least 0 and below 2^31")
        if self.training.scheduled_sampling and isinstance(self.model, TransformerConfig):
            raise InputError("scheduled_sampling is for the recurrent decoders, not a transformer")

    @property
    def model_name(self) -> str:
        return next(name for name, kind in MODELS.items() if isinstance(self.model, kind))


def to_json(config: RunConfig) -> dict[str, Any]:
    """A RunConfig as JSON values; the model's kind stands in `model.kind`."""
    tree = dataclasses.asdict(config)
    tree["model"] = {"kind": config.model_name, **tree["model"]}
    return tree


def from_json(tree: dict[str, Any]) -> RunConfig:
    """The inverse of `to_json`. Raises InputError with the field that is unknown or wrong."""
    tree = dict(tree)
    model = dict(tree.pop("model", {}))
    kind = model.pop("kind", None)
    if kind not in MODELS:
        raise InputError(f"model.kind = {kind!r} cannot be used: one of {', '.join(MODELS)}")
    parts = {
        "model": _build(MODELS[kind], model, "model."),
        "data": _build(DataConfig, tree.pop("data", {}), "data."),
        "training": _build(TrainingConfig, tree.pop("training", {}), "training."),
    }
    return _build(RunConfig, {**tree, **parts}, "")


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise InputError(f"unknown field {where}{name}{nearest(name, hints)}")
        if not _fits(value, hints[name]):
            raise InputError(f"{where}{name} = {value!r} is not of type {hints[name]}")
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return True  # the dataclass checks it and names what it accepts
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        of = typing.get_args(hint)
        many = of[-1] is Ellipsis
        fits = isinstance(value, list | tuple) and (many or len(value) == len(of))
        return fits and all(_fits(v, of[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def nearest(word: str, options: typing.Iterable[str], prefix: str = "") -> str:
    """`; did you mean X?` with the option closest to the word, behind a prefix, or nothing."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
