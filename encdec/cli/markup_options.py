"""The options of `encdec translate` that keep markup and placeholders."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from encdec.data.markup import keep_patterns, remove_markup

if TYPE_CHECKING:
    from encdec.inference.translation import Translation
    from encdec.runs.run import Run

Translations = list[list["Translation"]]
Restore = Callable[["Run", Translations], Translations]


@dataclass(frozen=True)
class MarkupOptions:
    """What is taken out of each line, and put into its translation as it is."""

    markup: bool = False
    """Tags <...> and braces {...} are not translated: each comes out once, pairs nested, where the
    translations of the words around it are."""
    keep: tuple[str, ...] = ()
    """Regular expressions: what fits one is treated as a placeholder in braces is."""

    @property
    def is_on(self) -> bool:
        """Whether anything is taken out."""
        return self.markup or bool(self.keep)

    def check(self) -> None:
        """Raises InputError if a pattern cannot be used."""
        keep_patterns(self.keep)

    def remove(self, lines: list[str]) -> tuple[list[str], Restore]:
        """The lines without their markup, and what puts it into their translations."""
        if not self.is_on:
            return lines, lambda _, translations: translations
        patterns = keep_patterns(self.keep)
        removed = [remove_markup(line, patterns, tags=self.markup) for line in lines]
        plain = [one.text for one in removed]

        def restore(run: "Run", translations: Translations) -> Translations:
            from encdec.inference.markup import with_markup

            return [
                # A line that was too long, and is left empty, has no markup either.
                [with_markup(run, one, each) for each in best] if text == one.text else best
                for one, text, best in zip(removed, plain, translations, strict=True)
            ]

        return plain, restore
