"""Ensembles: several runs that decode together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encdec.config.search import EnsembleOptions
from encdec.data import vocabulary
from encdec.files import shortened
from encdec.inference.translator import Translator, load
from encdec.parallel.layout import SINGLE_DEVICE, Layout
from encdec.types import Batch, InputError, Precision, Weights

EQUAL_MEMBERS = EnsembleOptions()
"""The mean of the probabilities, with equal weights."""


class Ensemble(Translator):
    """A translator whose next-token distribution is the mean of its members'.

    Members may differ in family, size and source vocabulary. The first member provides the run, the
    source tokens and the length limits; attention is the first member's, too.

    Args:
      members: translators on the same layout, with one target vocabulary.
      options: how the distributions are averaged, and the weight of each member.

    Raises:
      InputError: two members have different target vocabularies, or the weights do not fit.
    """

    def __init__(
        self, members: Sequence[Translator], options: EnsembleOptions = EQUAL_MEMBERS
    ) -> None:
        first = members[0]
        digests = [vocabulary.digest(member.run.tgt_vocabulary) for member in members]
        for member, digest in zip(members, digests, strict=True):
            if digest != digests[0]:
                raise InputError(
                    f"{first.run.path} and {member.run.path} have different target vocabularies: "
                    "the runs of an ensemble must have the same one"
                )
        super().__init__(
            first.run, first._params, first.step, first._layout, first._model.precision
        )
        self._members = tuple(members)
        self._mean = options.ensemble_mean
        self._weights = np.asarray(options.weights_of(len(members)), np.float32)

    @property
    def members(self) -> tuple[Translator, ...]:
        """The translators whose distributions are averaged."""
        return self._members

    def with_languages(self, source: str | None, target: str | None) -> Translator:
        """Raises InputError: members may know different languages."""
        raise InputError(
            "languages cannot be chosen for several runs: each translates between those of its own "
            "settings"
        )

    def log_probs(self, batch: Batch) -> np.ndarray:
        """The log-probability of each target token of a batch, as in `Translator.log_probs`.

        A token's probability is the weighted mean of its probabilities under the members. A mean of
        log-probabilities would need all V of them to be normalised, which members do not return.

        Raises:
          InputError: the mean is that of log-probabilities, or members have different source
            vocabularies: a batch holds source tokens of one vocabulary.
        """
        if self._mean != "probabilities":
            raise InputError("an ensemble scores given text only with the mean of probabilities")
        for member in self._members:
            if member.run.src_vocabulary != self.run.src_vocabulary:
                raise InputError(
                    f"{self.run.path} and {member.run.path} have different source vocabularies: "
                    "score given text with each run"
                )
        each = np.stack([member.log_probs(batch) for member in self._members], -1)  # [B, T, K]
        with np.errstate(divide="ignore"):  # a weight may be 0
            log_weights = np.log(self._weights / self._weights.sum())
        mixture: np.ndarray = np.logaddexp.reduce(each + log_weights, -1)
        return mixture


def load_ensemble(
    paths: Sequence[str | Path],
    layout: Layout = SINGLE_DEVICE,
    precision: Precision = "float32",
    options: EnsembleOptions = EQUAL_MEMBERS,
    weights: Weights = "float32",
) -> Translator:
    """Opens run folders as an ensemble; a single folder is opened as by `load`.

    Args:
      paths: the folders.
      layout: the devices to translate on.
      precision: of matrix products.
      options: how the distributions are averaged, and the weight of each run.
      weights: of their matrices, see `load`.

    Raises:
      InputError: no folder is given, one cannot be opened (see `load`), target vocabularies differ,
        or the weights do not fit.
    """
    if isinstance(paths, str | Path) or not isinstance(paths, Sequence):
        raise InputError(
            f"paths = {shortened(paths)} is a {type(paths).__name__}: give a list of run folders"
        )
    if not paths:
        raise InputError("an ensemble needs runs: give at least one run folder")
    if not isinstance(options, EnsembleOptions):
        raise InputError(
            f"options is a {type(options).__name__}: give encdec.EnsembleOptions, which say how "
            "runs are averaged"
        )
    options.weights_of(len(paths))  # refused before anything is opened
    members = [load(path, layout, precision, weights) for path in paths]
    return members[0] if len(members) == 1 else Ensemble(members, options)
