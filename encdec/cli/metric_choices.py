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
"""What help texts list as choices."""


@dataclass(frozen=True)
class MetricChoices:
    """How text is compared; what is left out follows from a run's settings."""

    bleu_tokenizer: Annotated[
        BleuTokenizer | None,
        arg(
            aliases=("--tokenize",),
            metavar="{" + ",".join(BLEU_TOKENIZERS) + "}",
            help="How BLEU splits text into words. Left out: as the run says, or else as suits the "
            "target language, such as zh for Chinese and 13a for most. Choose none for text that "
            "is tokenized already.",
        ),
    ] = None
    lowercase: Annotated[
        bool | None,
        arg(metavar="{True,False}", help="Lower-case all texts. Left out: as the run says."),
    ] = None
    detokenize: Annotated[
        str | None,
        arg(
            help="The texts are Moses-tokenized text of this language, such as en: detokenize them."
        ),
    ] = None

    def options(self, config: RunConfig | None) -> MetricOptions:
        """The choices, completed from the settings of a run, or from defaults for no run."""
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
        """The choices, completed from the settings of several runs, or from defaults for none.

        Raises:
          InputError: the runs differ in what is left out.
        """
        options = [self.options(config) for config in configs] or [self.options(None)]
        _check_same("bleu_tokenizer", [one.tokenizer for one in options])
        _check_same("lowercase", [one.lowercase for one in options])
        return options[0]


def _check_same(name: str, values: Sequence[object]) -> None:
    if len(set(values)) > 1:
        raise InputError(
            f"the runs' settings have different {name} ({' and '.join(map(str, values))}): choose "
            f"one by --{name.replace('_', '-')}"
        )
