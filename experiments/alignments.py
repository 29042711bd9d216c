"""Do alignments by attention agree with the truth, and with a statistical aligner?

    encdec train dates --model attention --run runs/looking
    python -m experiments.alignments runs/looking           # dates: a digit comes from a digit
    python -m experiments.alignments runs/en-de --source multi30k/test_2016_flickr.en \\
        --target multi30k/test_2016_flickr.de --train-source multi30k/train.en \\
        --train-target multi30k/train.de                     # words, against an HMM

The alignment error rate of links A, sure links S and possible links P (Och and Ney 2003) is

    AER = 1 - (|A & S| + |A & P|) / (|A| + |S|)

On dates, links are those of characters, judged where the source has the number of a year, month or
day in digits once; S = P is the digit that a digit is copied from. On other text the run reads the
references (teacher forcing), and `hmm_aligner.py` is trained on the training text and these pairs
in both directions: S are the links of both, P those of grow-diag-final-and. Each map is measured
and the default of `encdec translate --alignment`.

It takes minutes. Results, with devices and dates, stand in `experiments/README.md`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.inference.alignment import Link, align_words, chosen_maps
from experiments.hmm_aligner import align, symmetric

Links = set[Link]


@dataclass(frozen=True)
class Options:
    """The run, and the text whose words are aligned."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    source: Path | None = None
    """A sentence in each line; by default dates that the run was not trained on."""
    target: Path | None = None
    """Their translations."""
    train_source: Path | None = None
    """More sentences for the statistical aligner."""
    train_target: Path | None = None
    """Their translations."""


@dataclass(frozen=True)
class Example:
    """A pair to align.

    Attributes:
      attention: float [M, T, S].
      src_words, tgt_words: the word of each token, -1 for none.
      sure, possible: the links that are right.
    """

    attention: np.ndarray
    src_words: list[int]
    tgt_words: list[int]
    sure: Links
    possible: Links


def error_rate(found: Sequence[Links], examples: Sequence[Example]) -> float:
    """AER, see above."""
    hits = sum(
        len(a & one.sure) + len(a & one.possible) for a, one in zip(found, examples, strict=True)
    )
    return 1 - hits / sum(len(a) + len(one.sure) for a, one in zip(found, examples, strict=True))


def digit_links(source: str, target: str) -> Links:
    """The digits of an ISO date that are copied from digits of its source, where it is certain."""
    numbers = [*re.finditer(r"\d+", source)]
    fields = [(0, 4), (5, 7), (8, 10)]
    values = [{int(target[a:b]), int(target[a:b]) % 100} for a, b in fields]
    links = set()
    for (_, end), value in zip(fields, values, strict=True):
        fits = [number for number in numbers if int(number[0]) in value]
        is_clear = len(fits) == 1 and sum(int(fits[0][0]) in other for other in values) == 1
        for k in range(len(fits[0][0]) if is_clear else 0):
            links.add((fits[0].end() - 1 - k, end - 1 - k))
    return {(i, j) for i, j in links if source[i].isdigit() and target[j].isdigit()}


def date_examples(translator: encdec.Translator) -> Iterator[Example]:
    """Held-out dates that are translated right, with each character as a word."""
    held_out = translator.run.held_out
    translations = translator.translate(held_out.src, encdec.SearchOptions(beam=1), alignments=True)
    for source, target, one in zip(*held_out, translations, strict=True):
        links = digit_links(source, target)
        if one.text != target or one.attention is None or len(one.src_ids) != len(source) + 1:
            continue
        judged = {j for _, j in links}
        tgt_words = [j if j in judged else -1 for j in range(len(one.tgt_ids))]
        yield Example(one.attention, [*range(len(source)), -1], tgt_words, links, links)


def pair_examples(translator: encdec.Translator, options: Options) -> Iterator[Example]:
    """Sentences and their references, with the links of a statistical aligner."""
    assert options.source
    assert options.target
    sources, targets = lines(options.source), lines(options.target)
    more = (options.train_source, options.train_target)
    train = [lines(path) if path else [] for path in more]
    source, target = numbered(sources + train[0]), numbered(targets + train[1])
    posteriors = zip(align(source, target), align(target, source), strict=True)
    longest = max(len(ids) for ids in translator.run.tgt_vocabulary.encode_all(targets)) + 1
    search = encdec.SearchOptions(beam=1, max_ratio=0, max_extra=longest)
    found = translator.nbest(sources, 1, search, prefixes=targets, alignments=True)
    for text, reference, (one,), both in zip(sources, targets, found, posteriors, strict=False):
        if one.attention is None:
            continue
        ids = translator.run.tgt_vocabulary.encode(reference)
        sure, possible = (
            {(int(i), int(j)) for j, i in np.argwhere(links)} for links in symmetric(*both)
        )
        yield Example(
            one.attention[:, : len(ids)],
            translator.run.src_vocabulary.words(one.src_ids, text),
            translator.run.tgt_vocabulary.words(ids, reference),
            sure,
            possible,
        )


def lines(path: Path) -> list[str]:
    """The lines of a file."""
    return path.read_text(encoding="utf-8").splitlines()


def numbered(texts: Sequence[str]) -> list[np.ndarray]:
    """The words of texts as numbers, the same for words that differ in case or punctuation."""
    numbers: dict[str, int] = {}

    def number(word: str) -> int:
        bare = re.sub(r"^\W+|\W+$", "", word.lower()) or word
        return numbers.setdefault(bare, len(numbers))

    return [np.array([number(word) for word in text.split()], int) for text in texts]


def main(options: Options) -> None:
    """Prints the error rate of each map, of the mean of each layer, and of the default."""
    translator = encdec.load(options.run)
    given = options.source and options.target
    made = pair_examples(translator, options) if given else date_examples(translator)
    examples = list(made)
    links = sum(len(one.sure) for one in examples)
    print(f"{options.run}: {len(examples)} sentences, {links} sure links")
    layers, heads = translator.run.config.model.attention_grid
    choices: list[tuple[int | None, int | None]] = [(None, None)]
    for layer in range(1, layers + 1) if layers * heads > 1 else ():
        choices += [(layer, None), *((layer, head) for head in range(1, heads + 1))]
    for layer, head in choices:
        maps = chosen_maps(translator.run.config.model, layer, head)
        found = [
            {*align_words(one.attention[maps].mean(0), one.src_words, one.tgt_words)}
            for one in examples
        ]
        name = f"layer {layer}, " + (f"head {head}" if head else "mean") if layer else "default"
        print(f"  {name:<16} AER {error_rate(found, examples):.3f}", flush=True)


if __name__ == "__main__":
    with as_command("alignments.py"):
        main(tyro.cli(Options, description=__doc__))
