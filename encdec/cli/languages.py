"""Options that choose the languages of a model that knows several."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encdec.inference.translator import Translator


@dataclass(frozen=True)
class LanguageOptions:
    """The languages of a multilingual model."""

    source_language: str | None = None
    """Language of the source, by the code that the model has for it, such as eng_Latn; by default
    that of the run."""
    target_language: str | None = None
    """Language to translate to."""

    def of(self, translator: "Translator") -> "Translator":
        """The translator for these languages.

        Raises:
          InputError: the model does not know one, knows none, or there are several models.
        """
        if self.source_language is None and self.target_language is None:
            return translator
        return translator.with_languages(self.source_language, self.target_language)
