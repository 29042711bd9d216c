"""The options that say how metrics compare two texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from tyro.conf import arg

from encdec.config import BleuTokenizer, RunConfig
from encdec.evaluation.metrics import text_metrics
from encdec.evaluation.options import BLEU_TOKENIZERS, MetricOptions, metric_options
from encdec.types import InputError

NAMES = ",".join(text_metrics())
"""The names of the metrics, for help texts."""


@dataclass(frozen=True)
class MetricChoices:
    """How texts are compared; by default as the settings of the run say."""

    bleu_tokenizer: Annotated[
        BleuTokenizer | None,
        arg(
            aliases=("--tokenize",),
            metavar="{" + ",".join(BLEU_TOKENIZERS) + "}",
            help="How BLEU splits text into words; by default as the run's settings say, otherwise "
            "by the target language: zh for Chinese, 13a for most. Choose none for text that is "
            "tokenized already.",
        ),
    ] = None
    lowercase: Annotated[
        bool | None,
        arg(
            metavar="{True,False}",
            help="Lower-case all texts; by default as the run's settings say.",
        ),
    ] = None
    detokenize: Annotated[
        str | None,
        arg(help="Language of Moses-tokenized texts, such as en, which are then detokenized."),
    ] = None

    def options(self, config: RunConfig | None) -> MetricOptions:
        """Completes the choices from the settings of a run, or from defaults if config is None."""
        base = metric_options(config) if config else MetricOptions()
        if self.detokenize is not None:  # the run's tokenizer was chosen for tokenized text
            base = replace(base, bleu_tokenizer=None)
        return replace(
            base,
            bleu_tokenizer=self.bleu_tokenizer or base.bleu_tokenizer,
            lowercase=base.lowercase if self.lowercase is None else self.lowercase,
            detokenize=self.detokenize,
        )

    def common_options(self, configs: Iterable[RunConfig]) -> MetricOptions:
        """Completes the choices from the settings of several runs, or from defaults for none.

        Raises:
          InputError: the runs have different settings for an option that is not given.
        """
        options = [self.options(config) for config in configs] or [self.options(None)]
        _check_same("bleu_tokenizer", [option.tokenizer for option in options])
        _check_same("lowercase", [option.lowercase for option in options])
        return options[0]


def _check_same(name: str, values: Sequence[object]) -> None:
    if len(set(values)) > 1:
        raise InputError(
            f"the runs' settings have different {name} ({' and '.join(map(str, values))}): choose "
            f"one by --{name.replace('_', '-')}"
        )
