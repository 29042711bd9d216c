"""Does markup come out whole, and in order of the words that it belongs to?

    python -m experiments.markup runs/en-de --source multi30k/test_2016_flickr.en \\
        --train-source multi30k/train.en --train-target multi30k/train.de

Random tags around one to three words, some of them nested, and placeholders between words are put
into sentences, which are translated. What comes out is judged in three ways:

- whole: every piece is there once, and tags are nested.
- in order: for each two pieces whose words have translations that follow each other, the pieces do
  so, too. Which word is the translation of which is said by `hmm_aligner.py`, which is trained on
  the training text and these translations in both directions, and knows nothing of attention.
- precision and recall of the words between tags: a word should be there if the aligner links it to
  a word between these tags in the source.

The same is counted for markup in the same relative place, which looks at no word.

It takes 5 minutes on two CPU cores, most of them for the aligner. Expected, with the Transformer of
`multi30k.py`: whole in all sentences. Results, with devices and dates, stand in
`experiments/README.md`.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.data.markup import remove_markup
from encdec.data.word_spans import word_spans
from encdec.inference.alignment import Link
from encdec.inference.markup import with_markup
from experiments.hmm_aligner import align, symmetric

PIECE = re.compile(r"</?t\d+>|\{p\d+\}")


@dataclass(frozen=True)
class Options:
    """The run, and the text that gets markup."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    source: Path
    """A sentence in each line."""
    train_source: Path | None = None
    """Sentences for the statistical aligner."""
    train_target: Path | None = None
    """Their translations."""
    sentences: int = 200
    """How many sentences get markup."""
    seed: int = 0
    """Of the places of the markup."""


@dataclass(frozen=True)
class Counts:
    """What was found, summed over sentences.

    Attributes:
      whole, in_order: sentences.
      sentences: of them.
      pairs_in_order, pairs: of pieces that follow each other.
      hits, found, wanted: words between tags that should be, that are, and all that should be.
    """

    whole: int
    in_order: int
    sentences: int
    pairs_in_order: int
    pairs: int
    hits: int
    found: int
    wanted: int

    def __str__(self) -> str:
        return (
            f"whole {self.whole} of {self.sentences}, in order {self.in_order} of {self.sentences} "
            f"({self.pairs_in_order} of {self.pairs} pairs of pieces), words between tags: "
            f"precision {self.hits / max(self.found, 1):.3f}, "
            f"recall {self.hits / max(self.wanted, 1):.3f}"
        )


def marked(text: str, rng: random.Random) -> str:
    """A sentence with one or two pairs of tags, maybe one within the other, and a placeholder."""
    words = text.split()
    before: list[list[str]] = [[] for _ in range(len(words) + 1)]
    after: list[list[str]] = [[] for _ in words]
    spans: list[tuple[int, int]] = []
    for _ in range(rng.randrange(1, 3)):
        start = rng.randrange(len(words))
        end = min(start + rng.randrange(1, 4), len(words))
        # Pairs are nested or apart, and no two are around the same words.
        if any(
            a < start < b < end or start < a < end < b or (a, b) == (start, end) for a, b in spans
        ):
            continue
        spans.append((start, end))
    for number, (start, end) in enumerate(sorted(spans, key=lambda span: (span[0], -span[1]))):
        before[start].append(f"<t{number}>")
        after[end - 1].insert(0, f"</t{number}>")
    before[rng.randrange(len(words) + 1)].insert(0, "{p0} ")
    parts = [
        "".join([*tags, word, *ends])
        for tags, word, ends in zip(before, words, after, strict=False)
    ]
    return " ".join([*parts, *before[-1]]).strip()


def is_whole(source: str, translation: str) -> bool:
    """Whether each piece of the source comes once, with tags nested."""
    path: list[str] = []
    for piece in PIECE.findall(translation):
        if piece[:2] == "</":
            if not path or path.pop() != piece[2:]:
                return False
        elif piece[0] == "<":
            path.append(piece[1:])
    return sorted(PIECE.findall(source)) == sorted(PIECE.findall(translation)) and not path


def words_of(text: str) -> tuple[list[str], dict[str, range]]:
    """The words of a marked text, and those that each pair or placeholder is around.

    A placeholder is around no word: its range is empty, at the word that follows it.
    """
    words: list[str] = []
    inside: dict[str, range] = {}
    place = 0
    for match in [*PIECE.finditer(text), None]:
        plain = text[place : match.start() if match else len(text)]
        words += [plain[a:b] for a, b in word_spans(plain)]
        if match:
            place = match.end()
            name = match[0].strip("</>{}")
            start = len(words)
            if match[0][:2] == "</" and name in inside:
                start = inside[name].start
            inside[name] = range(start, len(words))
    return words, inside


def judged(source: str, translation: str, links: Sequence[Link]) -> Counts:
    """Counts of one sentence.

    Args:
      source, translation: with markup.
      links: of their words, of the judge.
    """
    count = len(words_of(source)[0])
    before, after = words_of(source)[1], words_of(translation)[1]
    after = {name: after.get(name, range(0)) for name in before}
    right: dict[str, set[int]] = {}
    hits = found = wanted = 0
    for name, words in before.items():
        # A placeholder belongs to the two words around it.
        around = words if words else range(max(words.start - 1, 0), min(words.start + 1, count))
        right[name] = {j for i, j in links if i in around}
        if words and right[name]:
            hits += len(right[name] & {*after[name]})
            found += len(after[name])
            wanted += len(right[name])
    pairs = ordered = 0
    names = [*before]
    for a in names:
        for b in names:
            if right[a] and right[b] and max(right[a]) < min(right[b]):
                pairs += 1
                ordered += after[a].start <= after[b].start and after[a].stop <= after[b].stop
    whole = is_whole(source, translation)
    return Counts(whole, ordered == pairs, 1, ordered, pairs, hits, found, wanted)


def total(counts: Sequence[Counts]) -> Counts:
    """The sums."""
    rows = [vars(one).values() for one in counts]
    return Counts(*map(sum, zip(*rows, strict=True)))


def judge(
    sources: Sequence[str], translations: Sequence[str], options: Options
) -> list[list[Link]]:
    """The links of the statistical aligner in both directions, grown (grow-diag-final-and)."""
    more = [options.train_source, options.train_target]
    train = [path.read_text(encoding="utf-8").splitlines() if path else [] for path in more]
    source, target = numbered([*sources, *train[0]]), numbered([*translations, *train[1]])
    forward, backward = align(source, target), align(target, source)
    both = zip(forward[: len(sources)], backward[: len(sources)], strict=True)
    return [[(int(i), int(j)) for j, i in np.argwhere(symmetric(*one)[1])] for one in both]


def numbered(texts: Sequence[str]) -> list[np.ndarray]:
    """The words of texts as numbers, the same for words that differ in case."""
    numbers: dict[str, int] = {}
    return [
        np.array([numbers.setdefault(text[a:b].lower(), len(numbers)) for a, b in word_spans(text)])
        for text in texts
    ]


def main(options: Options) -> None:
    """Prints the counts by attention and by relative place."""
    rng = random.Random(options.seed)
    lines = options.source.read_text(encoding="utf-8").splitlines()
    sources = [marked(line, rng) for line in lines if line.strip()][: options.sentences]
    translator = encdec.load(options.run)
    removed = [remove_markup(source) for source in sources]
    plain = [one.text for one in removed]
    found = [best[0] for best in translator.nbest(plain, 1, alignments=True)]
    links = judge(plain, [one.text for one in found], options)
    for name, blind in (("by attention", False), ("by relative place", True)):
        outputs = [
            with_markup(translator.run, one, replace(it, attention=None) if blind else it).text
            for one, it in zip(removed, found, strict=True)
        ]
        counts = [judged(*each) for each in zip(sources, outputs, links, strict=True)]
        print(f"{name}: {total(counts)}")


if __name__ == "__main__":
    with as_command("markup.py", trains=False):
        main(tyro.cli(Options, description=__doc__))
