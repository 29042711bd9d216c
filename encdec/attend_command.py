"""`encdec attend`: a picture of where the model looks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec import translator as translators
from encdec.arguments import parse
from encdec.config import TransformerConfig
from encdec.data.specials import SPECIALS
from encdec.decoding import Maps
from encdec.search import SearchOptions
from encdec.translator import Translation, Translator
from encdec.types import BOS, InputError


@dataclass(frozen=True)
class _Options:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    text: Annotated[Positional[str], arg(metavar="TEXT", help="A source sentence.")]
    out: Annotated[Path, arg(help="Picture to write: .png or .svg.")]
    maps: Annotated[
        Maps,
        arg(
            help="Who looks at whom: the translation at the source, or in a Transformer the source "
            "or the translation at itself."
        ),
    ] = "encoder-decoder"
    layer: Annotated[int | None, arg(help="This layer alone, counted from 1.")] = None
    head: Annotated[int | None, arg(help="This head alone, counted from 1.")] = None
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)


def attend_command(arguments: list[str]) -> None:
    """Translates a sentence and draws where the model looked.

    Raises:
      InputError: no run, no text, a model or a map that is not there, or a picture that cannot be
        written.
    """
    options = parse(_Options, arguments, "encdec attend", "Draws where the model looks.")
    if not options.text.strip():
        raise InputError("TEXT is empty: give a source sentence")
    translator = translators.load(options.run)
    found = translator(options.text, options.search)
    draw(translator, found, options.out, options.maps, options.layer, options.head)
    print(f"{found.text}\n{options.out}")


def draw(
    translator: Translator,
    found: Translation,
    path: Path,
    kind: Maps = "encoder-decoder",
    layer: int | None = None,
    head: int | None = None,
) -> None:
    """Draws a grid of a translation's maps, a row a layer and a column a head.

    Args:
      translator, found: what translated, and what it found.
      path: picture to write.
      kind: who looks at whom.
      layer, head: of these alone, counted from 1.

    Raises:
      InputError: a map that is not there, or a picture that cannot be written.
    """
    from encdec.report import plots  # matplotlib takes its time to import

    config = translator.run.config
    maps = translator.attention(found)
    if kind not in maps:
        has = f"only {', '.join(maps)}" if maps else "no attention"
        raise InputError(
            f"{translator.run.path} is a run of {config.model_name}, which has {has}: no {kind}"
        )
    weights, titles, heads = maps[kind], None, 1
    if isinstance(config.model, TransformerConfig):
        layers, heads = config.model.layers, config.model.heads
        chosen = np.arange(layers * heads).reshape(layers, heads)
        chosen = chosen[_one("layer", layer, layers), _one("head", head, heads)]
        weights, heads = weights[chosen.ravel()], chosen.shape[1]
        titles = [translator.map_names[i] for i in chosen.ravel()]
    elif layer not in (None, 1) or head not in (None, 1):
        raise InputError(f"{translator.run.path} has one map alone: leave out layer and head")
    rows = found.src_tokens if kind == "encoder" else found.tgt_tokens
    before = [SPECIALS[BOS], *found.tgt_tokens[:-1]]
    columns = before if kind == "decoder" else found.src_tokens
    plots.save_figure(plots.attention_figure(weights, columns, rows, titles, heads), path)


def _one(name: str, number: int | None, count: int) -> slice:
    """The layer or head of a number, or all."""
    if number is None:
        return slice(None)
    if not 1 <= number <= count:
        raise InputError(f"{name} = {number} is not there: the model has 1 to {count}")
    return slice(number - 1, number)
