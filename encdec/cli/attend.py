"""`encdec attend`: a picture of where the model looks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.parsing import parse
from encdec.files import cache_folder
from encdec.inference import translator as translators
from encdec.parallel.devices import keep_compiled_programs
from encdec.search.options import SearchOptions
from encdec.types import InputError, MapKind


@dataclass(frozen=True)
class _Options:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    text: Annotated[Positional[str], arg(metavar="TEXT", help="A source sentence.")]
    out: Annotated[Path, arg(help="Picture to write: .png or .svg.")]
    maps: Annotated[
        MapKind,
        arg(
            help="Who looks at whom: the translation at the source, or in a Transformer the source "
            "or the translation at itself."
        ),
    ] = "encoder-decoder"
    layer: Annotated[int | None, arg(help="This layer alone, counted from 1.")] = None
    head: Annotated[int | None, arg(help="This head alone, counted from 1.")] = None
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)


def run(arguments: list[str]) -> None:
    """Translates a sentence and draws where the model looked.

    Raises:
      InputError: no run, no text, a model or a map that is not there, or a picture that cannot be
        written.
    """
    from encdec.plots.attention import save_figure
    from encdec.plots.runs import attention_picture

    options = parse(_Options, arguments, "encdec attend", "Draws where the model looks.")
    keep_compiled_programs(cache_folder())
    if not options.text.strip():
        raise InputError("TEXT is empty: give a source sentence")
    translator = translators.load(options.run)
    length = translator.source_length(options.text)
    most = translator.run.config.data.max_source_length
    if length > most:
        raise InputError(f"TEXT has {length} tokens, the model was trained for {most}: shorten it")
    found = translator(options.text, options.search)
    figure = attention_picture(translator, found, options.maps, options.layer, options.head)
    save_figure(figure, options.out)
    print(f"{found.text}\n{options.out}")
