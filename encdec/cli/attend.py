"""`encdec attend`: draws what each token of a translation attends to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.languages import LanguageOptions
from encdec.cli.output import check_picture
from encdec.cli.parsing import parse_for_run
from encdec.config.search import SearchOptions
from encdec.files import cache_folder
from encdec.types import InputError, MapKind


@dataclass(frozen=True)
class _Options:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    text: Annotated[Positional[str], arg(metavar="TEXT", help="Source sentence to translate.")]
    out: Annotated[Path, arg(help="Picture to write, .png or .svg.")]
    maps: Annotated[
        MapKind,
        arg(
            help="Which attention to draw: of the translation to the source, or in a Transformer "
            "also the self-attention of the source (encoder) or of the translation (decoder)."
        ),
    ] = "encoder-decoder"
    layer: Annotated[int | None, arg(help="Draw only this layer, counted from 1.")] = None
    head: Annotated[int | None, arg(help="Draw only this head, counted from 1.")] = None
    languages: Annotated[LanguageOptions, OmitArgPrefixes] = field(default_factory=LanguageOptions)
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)


def run(arguments: list[str]) -> None:
    """Translates a sentence and draws its attention.

    Raises:
      InputError: the run cannot be opened, the text is empty or too long, the model has no such
        maps, or the picture cannot be written.
    """
    options = parse_for_run(
        _Options, arguments, "encdec attend", "Draws what each token of a translation attends to."
    )
    if not options.text.strip():
        raise InputError("TEXT is empty: give a source sentence")
    check_picture(options.out)

    from encdec.inference import translator as translators
    from encdec.parallel.devices import keep_compiled_programs
    from encdec.plots.attention import save_figure
    from encdec.plots.runs import attention_picture

    keep_compiled_programs(cache_folder())
    translator = options.languages.of(translators.load(options.run))
    length = translator.source_length(options.text)
    limit = translator.run.config.data.max_source_length
    if length > limit:
        raise InputError(
            f"TEXT has {length} tokens, but the model was trained for {limit}: shorten it"
        )
    translation = translator(options.text, options.search)
    figure = attention_picture(translator, translation, options.maps, options.layer, options.head)
    save_figure(figure, options.out)
    print(f"{translation.text}\n{options.out}")
