"""The pipeline of training: from text or batches to a run folder and an iterator of batches.

All input is checked before the run folder is made.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from encdec.config import RunConfig
from encdec.config.data import CORPUS_FILES
from encdec.data.batches import Rows, training_iterator
from encdec.data.bucketing import Bucketing
from encdec.data.corpus import (
    Corpus,
    TrainingText,
    as_corpus,
    check_only_corpus,
    has_batches,
    read_corpus,
)
from encdec.data.given_batches import BatchCheck, GivenBatches, batches_from, with_first_checked
from encdec.data.pipeline import (
    bucket_training,
    build_vocabularies,
    encode_training,
    note_long_sources,
    note_unknown_tokens,
    subword_sampling,
)
from encdec.data.simple_vocabularies import IdVocabulary
from encdec.data.sources import Pairs
from encdec.evaluation.compute import compute_metrics, text_metrics
from encdec.evaluation.metrics import METRICS
from encdec.evaluation.options import metric_options
from encdec.parallel import processes
from encdec.parallel.layout import Layout
from encdec.runs import run as runs
from encdec.runs.parameters import abstract_params, digest
from encdec.runs.run import Run
from encdec.training.fine_tuning import roles_of_run
from encdec.training.initial import Initial, check_params, check_same_start
from encdec.training.memory import check_rows
from encdec.types import Batch, InputError

Say = Callable[[str], None]


class Pipeline(NamedTuple):
    """The run and the batches that the training loop reads.

    Attributes:
      run: the run, whose folder exists.
      batches: from the number of steps done to an iterator over this process's rows of the
        following batches.
      bucketing: the shapes of the batches; None if they are not known in advance.
      valid: the pairs or batches to validate on.
      is_new: whether the run was created just now, by this process.
    """

    run: Run
    batches: Callable[[int], Iterator[Batch]]
    bucketing: Bucketing | None
    valid: Pairs | tuple[Batch, ...]
    is_new: bool


def read_data(
    config: RunConfig, given: Any, layout: Layout, say: Say
) -> TrainingText | GivenBatches:
    """Reads and checks the training data; writes nothing.

    Args:
      config: settings; they name a corpus if none is given.
      given: the corpus that the caller passes to `encdec.train`, or None.
      layout: the devices over which batches are split.
      say: is called with lines about the data, such as pairs that are left out.

    Raises:
      InputError: the data cannot be read or used.
    """
    if config.data.reverse and config.data.corpus is None:
        raise InputError(
            "reverse needs a corpus of two languages: exchange source and target of files, or give "
            "tsv_columns = 2 1"
        )
    corpus = None if given is None else as_corpus(given)
    if corpus is None or not has_batches(corpus):
        return read_corpus(config, say, corpus)
    return _given_batches(config, corpus, layout, say)


def open_pipeline(
    config: RunConfig,
    folder: Path,
    data: TrainingText | GivenBatches,
    layout: Layout,
    initial: Initial | None,
    note: Say,
    say: Say,
) -> Pipeline:
    """Opens the run in the folder, or creates it, with its batches.

    Args:
      config: settings.
      folder: the run folder.
      data: the training data.
      layout: the devices.
      initial: the initial parameters of a new run; None for random ones.
      note: is called with lines that may be shown once all input has been checked.
      say: is called with lines to show at once: that the token cache waits for another process.

    Raises:
      InputError: the folder holds another run, or the settings do not fit the data.
    """
    corpus = data.digest if isinstance(data, TrainingText) else None
    run = _existing(folder, config, corpus)
    if run:
        check_same_start(run, initial)
        for name in CORPUS_FILES:
            has, asks = getattr(run.config.data, name), getattr(config.data, name)
            if has != asks:
                moved = f"{', '.join(asks) or 'nowhere'} instead of {', '.join(has) or 'nowhere'}"
                note(f"{name} is {moved}; all of the text is the same")
    if run is None and not processes.is_main_process():
        raise InputError(
            f"process {jax.process_index()} does not see {folder.absolute()}, which process 0 has "
            "made: name a run folder (--run) that all processes can read"
        )
    if isinstance(data, TrainingText):
        return _text_pipeline(config, folder, data, run, layout, initial, note, say)
    return _batch_pipeline(config, folder, data, run, layout, initial)


def local_rows(config: RunConfig, layout: Layout) -> Rows:
    """The rows of every batch that this process trains on."""
    multiple = layout.data * config.training.gradient_accumulation
    return Rows(multiple, jax.process_index(), jax.process_count())


def _text_pipeline(
    config: RunConfig,
    folder: Path,
    text: TrainingText,
    run: Run | None,
    layout: Layout,
    initial: Initial | None,
    note: Say,
    say: Say,
) -> Pipeline:
    data = config.data
    if run:
        vocabularies = (run.src_vocabulary, run.tgt_vocabulary)
    elif initial and initial.vocabularies:
        vocabularies = initial.vocabularies
    else:
        vocabularies = build_vocabularies(data, text.train, config.seed)
    examples = encode_training(
        data, text.train, text.digest, vocabularies, say, in_memory=text.in_memory
    )
    if initial and initial.vocabularies:
        note_unknown_tokens(examples, note)
    sampling = subword_sampling(data, vocabularies)
    bucketing, extra = bucket_training(config, examples, sampling, note)
    note_long_sources(config, text.valid.src, vocabularies[0], note)
    _note_fixed_metric(config, text.valid, note)
    check_rows(bucketing, data.batch_tokens, layout)
    new = Run(folder, config, text.digest, extra, *vocabularies, text.held_out)
    begun = _begin(run, new, initial)
    rows = local_rows(config, layout)

    def batches(done: int) -> Iterator[Batch]:
        return training_iterator(examples, bucketing, config.seed, done, sampling, rows)

    return Pipeline(begun, batches, bucketing, text.valid, is_new=run is None)


def _note_fixed_metric(config: RunConfig, valid: Pairs, note: Say) -> None:
    """Says if the best metric is 0 for any translation: BLEU needs four tokens in a row."""
    name, references = config.training.best_metric, valid.tgt[: config.training.evaluate_sentences]
    if name not in text_metrics() or not METRICS[name].higher_is_better:
        return
    perfect = compute_metrics(references, [references], metric_options(config), (name,))
    if perfect.values[name] == 0:
        note(
            f"best_metric = {name} is 0 for any translation of these validation targets, which are "
            "too short for it, so the loss decides: best_metric = chrf can tell them apart"
        )


def _batch_pipeline(
    config: RunConfig,
    folder: Path,
    data: GivenBatches,
    run: Run | None,
    layout: Layout,
    initial: Initial | None,
) -> Pipeline:
    vocabulary = IdVocabulary(data.check.vocabulary_size)
    extra = config.data.max_target_length
    new = Run(folder, config, None, extra, vocabulary, vocabulary, Pairs([], []))
    begun = _begin(run, new, initial)
    rows = local_rows(config, layout)

    def batches(done: int) -> Iterator[Batch]:
        return batches_from(data, done, rows)

    return Pipeline(begun, batches, None, data.valid, is_new=run is None)


def _begin(run: Run | None, new: Run, initial: Initial | None) -> Run:
    """The existing run, with what may differ in the new settings; or the new one, now on disk."""
    if run is None:
        if initial is not None:
            check_params(initial.params, abstract_params(new))
            new = replace(new, init=digest(initial.params), original=initial.original)
        roles_of_run(new)  # refuses patterns and ranks that do not fit
        runs.create(new)
        return new
    return run if run.config == new.config else runs.update(run, new.config)


def _existing(folder: Path, config: RunConfig, corpus: str | None) -> Run | None:
    """The run in the folder, checked against the settings; None if the folder is empty."""
    if runs.is_run(folder):
        run = runs.load(folder)
        runs.check_same(run, config, corpus)
        return run
    runs.check_folder(folder)
    return None


def _given_batches(config: RunConfig, corpus: Corpus, layout: Layout, say: Say) -> GivenBatches:
    """Batches of the caller; the first one is checked, so that a wrong shape is refused early."""
    check_only_corpus(config.data)
    training, size = config.training, config.data.vocabulary_size
    if size is None:
        raise InputError(
            f"the corpus is a {type(corpus.train).__name__}: give pairs of text as a list; batches "
            "of token ids need vocabulary_size, a number above every id"
        )
    train: Any = corpus.train
    valid: tuple[Any, ...] = tuple(corpus.valid or ())
    if valid and training.best_metric != "loss":
        raise InputError(
            f"best_metric = {training.best_metric!r} needs text, and validation on batches has "
            "only a loss: set best_metric to 'loss'"
        )
    if training.patience and not valid:
        raise InputError("patience needs batches to validate on: give valid, or set it to 0")
    parts = training.gradient_accumulation
    reason = f"{layout.data} data shards" + (f" x {parts} parts of a batch" if parts > 1 else "")
    check = BatchCheck(size, layout.data * parts, reason)
    for number, batch in enumerate(valid):
        check(batch, f"validation batch {number} (counted from 0)")
    return with_first_checked(train, valid, check, say)
