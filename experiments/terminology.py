"""Do demanded words appear, do forbidden ones not, and does a translation gain from right terms?

    python experiments/terminology.py runs/en-de --source test.en --target test.de

A run translates the first sentences of a test set three times: freely; with a word of each
reference demanded; and with a word of its own free translation forbidden. The word is the one that
is rarest in its file, of at least four letters. A text contains a word if no letter or digit stands
beside it. Prints BLEU, in how many of the texts the words appear, and sentences per second; each
search is timed after a first call that compiles it.

A few minutes on 2 idle CPU cores for a Transformer of `tiny` sizes and 500 sentences. Results, with
devices and dates, stand in `experiments/README.md`. Expected: demanded words in all texts, none of
the forbidden ones, and a higher BLEU with words of the references.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import sacrebleu
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.files import cache_folder
from encdec.parallel.devices import core_count, keep_compiled_programs


@dataclass(frozen=True)
class Options:
    """The run, and what it translates."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    source: Path
    """A sentence in each line."""
    target: Path
    """Its reference translation."""
    sentences: int = 500
    """How many of the lines."""
    beam: int = 5
    """Beam width."""


def rarest_words(texts: Sequence[str]) -> list[list[str]]:
    """Of each text, its word of at least four letters that comes least often; [] if it has none."""
    words = [re.findall(r"[^\W\d_]{4,}", text) for text in texts]
    counts = Counter(word for each in words for word in each)
    return [[min(each, key=lambda word: (counts[word], word))] if each else [] for each in words]


def containing(texts: Sequence[str], words: Sequence[Sequence[str]]) -> tuple[int, int]:
    """In how many of the texts their words appear, and how many texts have a word."""
    found = [
        bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text))
        for text, each in zip(texts, words, strict=True)
        for word in each
    ]
    return sum(found), len(found)


def measure(
    translator: Any, sources: Sequence[str], references: Sequence[str], beam: int
) -> Iterator[str]:
    """Yields a line for each of the three searches."""
    options = encdec.SearchOptions(beam=beam)

    def translate(**constraints: Any) -> tuple[list[str], str]:
        translator.translate(sources, options, **constraints)
        start = time.perf_counter()
        found = translator.translate(sources, options, **constraints)
        seconds = time.perf_counter() - start
        texts = [one.text for one in found]
        bleu = sacrebleu.corpus_bleu(texts, [references]).score
        return texts, f"BLEU {bleu:.2f}, {len(texts) / seconds:.1f} sentences/s"

    wanted = rarest_words(references)
    free, line = translate()
    yield "free: {}; words of references in {} of {}".format(line, *containing(free, wanted))
    forced, line = translate(phrases=wanted)
    yield "demanded: {}; words in {} of {}".format(line, *containing(forced, wanted))
    unwanted = rarest_words(free)
    without, line = translate(bans=unwanted)
    yield "forbidden: {}; words in {} of {}".format(line, *containing(without, unwanted))


def main(options: Options) -> None:
    """Prints what was measured."""
    keep_compiled_programs(cache_folder())
    sources, references = (
        path.read_text().splitlines()[: options.sentences]
        for path in (options.source, options.target)
    )
    print(f"{len(sources)} sentences, {core_count()} cores, jax {jax.__version__}", flush=True)
    for line in measure(encdec.load(options.run), sources, references, options.beam):
        print(line, flush=True)


if __name__ == "__main__":
    with as_command("terminology.py", trains=False):
        main(tyro.cli(Options, description=__doc__))
