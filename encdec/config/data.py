"""Corpus, vocabulary, batches."""

from dataclasses import dataclass
from typing import Literal

from encdec.config.checks import check_literals, check_ranges, require
from encdec.types import InputError

VocabularyKind = Literal["chars", "words", "bytes", "sentencepiece"]


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
    """Split of the corpus to validate on; of one without `validation` a part of the training split
    is held out instead."""
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
    holdout: int | float = 1000
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
    """Language whose rules lower-casing and the Moses tokenizer follow on the source side; where a
    corpus holds more than two languages, the one to translate from."""
    target_language: str = "en"
    """The same on the target side; the language to translate to."""
    vocabulary: VocabularyKind = "sentencepiece"
    """What a token is; words are what white space separates."""
    target_vocabulary: VocabularyKind | None = None
    """What a token is on the target side; left out, as on the source side."""
    sentencepiece_model: Literal["unigram", "bpe"] = "unigram"
    """How sentencepiece cuts: unigram language model (Kudo 2018) or byte pairs (Sennrich 2016)."""
    subword_regularization: float = 0.0
    """For unigram: in training, a sentence is split at random into one of its 64 likeliest
    segmentations, with their probabilities raised to this power, such as 0.2 (Kudo 2018). 0 always
    takes the likeliest."""
    bpe_dropout: float = 0.0
    """For bpe: in training, each merge is dropped with this probability, such as 0.1 (Provilkov
    2020)."""
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
    num_buckets: int = 12
    """Most batch shapes in a run; each is compiled once."""

    def __post_init__(self) -> None:
        check_literals(self)
        check_ranges(
            self,
            positive="date_sentences max_source_length max_target_length batch_tokens num_buckets "
            "vocabulary_sentences",
            fractions="bpe_dropout",
        )
        require(self.subword_regularization >= 0, self, "subword_regularization", "at least 0")
        whole = isinstance(self.holdout, int) and self.holdout >= 1
        require(whole or 0 < self.holdout < 1, self, "holdout", "at least 1, or a share below 1")
        require(min(self.tsv_columns) >= 1, self, "tsv_columns", "two columns, counted from 1")
        if self.corpus is not None and not self.corpus.startswith("tfds:"):
            raise InputError(f"corpus = {self.corpus!r} cannot be used: say tfds:NAME/CONFIG")
        self._check_vocabulary()
        self._check_pair("source", "target", "tsv")
        self._check_pair("valid_source", "valid_target", "valid_tsv")
        if self.corpus is not None and self.has_files:
            raise InputError("corpus and files given: give one of the two")
        if self.has_validation_files and not self.has_corpus:
            raise InputError("validation files need training files: give source and target too")

    def _check_vocabulary(self) -> None:
        kinds = {self.vocabulary, self.target_vocabulary or self.vocabulary}
        if self.vocabulary_size is not None:
            require(self.vocabulary_size > 4, self, "vocabulary_size", "at least 5")
            if kinds == {"bytes"}:
                raise InputError("vocabulary = 'bytes' has one size: leave vocabulary_size out")
        if self.joint_vocabulary and len(kinds) > 1:
            raise InputError(
                f"a joint vocabulary cannot be {self.vocabulary} on one side and "
                f"{self.target_vocabulary} on the other: leave target_vocabulary out"
            )
        for name, model, other in (
            ("subword_regularization", "unigram", "bpe_dropout"),
            ("bpe_dropout", "bpe", "subword_regularization"),
        ):
            if not getattr(self, name):
                continue
            if "sentencepiece" not in kinds:
                raise InputError(f"{name} needs vocabulary = 'sentencepiece'")
            if self.sentencepiece_model != model:
                raise InputError(
                    f"{name} needs sentencepiece_model = {model!r}: with "
                    f"{self.sentencepiece_model!r} use {other}"
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
    def has_corpus(self) -> bool:
        """Whether a corpus is named; if not, it is the dates."""
        return self.corpus is not None or self.has_files

    @property
    def has_files(self) -> bool:
        return bool(self.source or self.tsv)

    @property
    def has_validation_files(self) -> bool:
        return bool(self.valid_source or self.valid_tsv)
