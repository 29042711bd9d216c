"""Corpora of TensorFlow Datasets, by its real API and without a network or TensorFlow."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from encdec.config import DataConfig, RunConfig
from encdec.data import tfds as corpora
from encdec.data.corpus import read_corpus
from encdec.data.sources import Pairs, read_all
from encdec.types import InputError

WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five"}
TRIPLES = list(itertools.product(WORDS, repeat=3))
PAIRS = [(" ".join(words), " ".join(WORDS[word] for word in words)) for words in TRIPLES]


class EncdecNumbers(tfds.core.GeneratorBasedBuilder):
    """A corpus of translations in two configurations."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="de-en"),
        tfds.core.BuilderConfig(name="de-x"),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.Translation(languages=["de", "en"])
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("de", "en"))

    def _split_generators(self, _) -> dict:
        parts = {"train": PAIRS[:-9], "validation": PAIRS[-9:]}
        return {name: self._generate_examples(pairs) for name, pairs in parts.items()}

    def _generate_examples(self, pairs):
        for number, (german, english) in enumerate(pairs):
            yield number, {"de": german, "en": english}


class EncdecTrainOnly(EncdecNumbers):
    """Nothing to validate on, as in OPUS and ParaCrawl."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, _) -> dict:
        return {"train": self._generate_examples(PAIRS)}


class EncdecTalks(tfds.core.GeneratorBasedBuilder):
    """Each row in some of three languages, as TED's talks are."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"translations": tfds.features.TranslationVariableLanguages(["de", "en", "nl"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"translations": {"de": "eins", "en": "one", "nl": "een"}}
        yield 1, {"translations": {"de": "zwei", "nl": "twee"}}
        yield 2, {"translations": {"en": ["three", "trio"], "nl": "drie"}}


class EncdecNoText(tfds.core.GeneratorBasedBuilder):
    """Labels, and a source that cannot be had."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
        keys = ("text", "label")
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=keys
        )

    def _split_generators(self, _) -> dict:
        return {}

    def _generate_examples(self):
        yield


class EncdecUnavailable(EncdecNumbers):
    """What needs TensorFlow, or a file that is not there."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, _) -> dict:
        if self.builder_config.name == "de-en":
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
        raise ConnectionError("no route\nto host")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of TFDS with two corpora."""
    made = tmp_path_factory.mktemp("tfds")
    for corpus in ("tfds:encdec_numbers/de-en", "tfds:encdec_talks"):
        corpora.prepare(corpus, str(made))
    return made


def split(folder: Path, name: str = "train", **how) -> Pairs:
    return read_all(corpora.open_split("tfds:encdec_numbers/de-en", name, str(folder), **how))


def test_a_prepared_corpus_is_read_again_and_again(folder: Path) -> None:
    part = corpora.open_split("tfds:encdec_numbers/de-en", "train", str(folder))
    assert sorted(part) == sorted(part) == sorted(PAIRS[:-9])
    assert part.name == "tfds:encdec_numbers/de-en, split train"
    assert sorted(zip(*split(folder, "validation"), strict=True)) == sorted(PAIRS[-9:])
    turned = split(folder, reverse=True)
    assert (turned.tgt, turned.src) == split(folder)
    assert split(folder, "train[:10%]") == Pairs(*(side[:12] for side in split(folder)))
    assert len(split(folder, "train+validation").src) == len(PAIRS)
    assert split(folder, languages=("nl", "en")) == split(folder)  # there are just two


def test_a_part_is_held_out_where_there_is_nothing_to_validate_on(folder: Path) -> None:
    name = "tfds:encdec_train_only/de-en"
    corpora.prepare(name, str(folder))
    data = DataConfig(corpus=name, corpus_folder=str(folder), holdout=0.1)
    lines: list[str] = []
    text = read_corpus(RunConfig(data=data), lines.append)
    count = len(PAIRS) // 10
    assert lines == [f"{count} of {len(PAIRS)} pairs are held out to validate on"]
    assert len(text.valid.src) == count
    assert sorted([*text.train, *zip(*text.valid, strict=True)]) == sorted(PAIRS)
    asked = RunConfig(data=replace(data, valid_split="valid"))
    with pytest.raises(InputError, match="has no split 'valid': there is train"):
        read_corpus(asked, lines.append)


def test_two_languages_of_many(folder: Path) -> None:
    def read(*languages: str, reverse: bool = False) -> list:
        many = corpora.open_split("tfds:encdec_talks", "train", str(folder), languages, reverse)
        return sorted(many)

    assert read("de", "nl") == [("eins", "een"), ("zwei", "twee")]
    assert read("nl", "en") == [("drie", "three"), ("een", "one")]
    with pytest.raises(InputError, match=r"name two of them by source_language .*\(de, en, nl\)"):
        read("en", "en")
    with pytest.raises(InputError, match="not de to fr: name two"):
        read("de", "fr")
    with pytest.raises(InputError, match="exchange source_language and target_language"):
        read("de", "en", reverse=True)


@pytest.mark.parametrize(
    ("corpus", "parts"),
    [
        ("tfds:wmt16_translat/de-en", ["wmt16_translat/de-en is unknown", "tfds:wmt16_translate"]),
        ("tfds:zzzzzz", ["unknown", "did you mean one of", "wmt14_translate"]),
        ("tfds:", ["say tfds:NAME/CONFIG"]),
        ("tfds:a b", ["say tfds:NAME/CONFIG"]),
        ("tfds:huggingface:wmt16", ["say tfds:NAME/CONFIG"]),
        ("tfds:wmt16_translate", ["several configurations", "tfds:wmt16_translate/cs-en", "de-en"]),
        ("tfds:wmt16_translate/de-em", ["no configuration 'de-em'", "there is de-en, "]),
        ("tfds:wmt_translate/de-en", ["wmt_translate/de-en cannot be opened"]),
        ("tfds:wmt16_translate/de-en", ["not prepared in", "`encdec prepare tfds:wmt16_translate"]),
        ("tfds:wmt16_translate/de-en", ["--corpus-folder", "encdec[prepare]"]),
        ("tfds:ted_multi_translate", ["has many languages", "source_language", "ja"]),
        ("tfds:encdec_no_text", ["not a translation corpus", "two columns of text, but has text"]),
        ("tfds:mnist", ["not a translation corpus", "has none"]),
    ],
)
def test_what_is_not_there_is_refused(corpus: str, parts: list[str], folder: Path, caplog) -> None:
    with pytest.raises(InputError) as caught:
        corpora.open_split(corpus, "train", str(folder))
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("test", "has no split 'test': there is train, validation"),
        ("train+tset[:5]", "has no split 'tset': there is train, validation"),
        ("train[:200%]", r"split 'train\[:200%\]' of tfds:encdec_numbers/de-en cannot be read: "),
        ("train[5:", r"split 'train\[5:' of .* cannot be read"),
        ("train[:0]", "cannot be read"),
    ],
)
def test_splits_that_are_not_there_are_refused(name: str, complaint: str, folder: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        split(folder, name)


def test_prepare(folder: Path, tmp_path: Path, monkeypatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.array_record*")}
    info = corpora.prepare("tfds:encdec_numbers/de-en", str(folder))  # a second time does nothing
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.array_record*")} == before
    assert info.splits["train"].num_examples == len(PAIRS) - 9
    with pytest.raises(InputError, match=r'needs tensorflow .*pip install "encdec\[prepare\]"'):
        corpora.prepare("tfds:encdec_unavailable/de-en", str(tmp_path))
    with pytest.raises(InputError, match=r"de-x cannot be prepared: no route$"):
        corpora.prepare("tfds:encdec_unavailable/de-x", str(tmp_path))
    with pytest.raises(InputError, match="several configurations"):
        corpora.prepare("tfds:encdec_numbers", str(tmp_path))
    about = next(folder.glob("encdec_numbers/de-en/*/dataset_info.json"))
    copy = tmp_path / about.relative_to(folder)
    copy.parent.mkdir(parents=True)
    for path in about.parent.iterdir():
        (copy.parent / path.name).write_bytes(path.read_bytes())
    copy.write_text(json.dumps({**json.loads(about.read_text()), "fileFormat": "tfrecord"}))
    for use in (corpora.prepare, lambda *at: corpora.open_split(at[0], "train", at[1])):
        with pytest.raises(InputError, match="as tfrecord, which only TensorFlow reads: prepare"):
            use("tfds:encdec_numbers/de-en", str(tmp_path))


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("encdec_numbers/de-en/*/*"):
        data = path.read_bytes()
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if "train.array_record" in path.name:
            middle = len(data) // 2
            data = data[: middle - 999] + bytes(1998) + data[middle + 999 :]
        copy.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot be read .*prepare it again"):
        split(tmp_path)


@pytest.mark.parametrize(
    "corpus",
    ["wmt14_translate/de-en", "wmt16_translate/ro-en", "wmt19_translate/de-en", "opus/medical",
     "ted_hrlr_translate/pt_to_en", "para_crawl/enbg", "flores/neen", "bucc/bucc_fr",
     "tatoeba/tatoeba_af", "mtnt/en-fr"],
)  # fmt: skip
def test_the_registered_corpora(corpus: str) -> None:
    with tfds.testing.mock_data(num_examples=3):
        pairs = read_all(corpora.open_split(f"tfds:{corpus}", "train"))
        reversed_pairs = read_all(corpora.open_split(f"tfds:{corpus}", "train", reverse=True))
    assert len(pairs.src) == 3
    assert all(isinstance(text, str) and text for text in (*pairs.src, *pairs.tgt))
    assert (reversed_pairs.tgt, reversed_pairs.src) == pairs
    assert pairs.src != pairs.tgt


TRAIN = """
import sys
from encdec.cli.main import main
main(sys.argv[1:])
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
def test_training_end_to_end_without_tensorflow(folder: Path, tmp_path: Path, encdec) -> None:
    """The process knows nothing of the builder's code: the folder is enough."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", TRAIN, "train", "--model", "seq2seq"),
            *("--corpus", "tfds:encdec_numbers/de-en", "--corpus-folder", folder.name),
            *("--train-split", "train[:80%]", "--run", tmp_path / "run", "--vocabulary", "words"),
            *("--embed", "8", "--hidden", "8", "--max-steps", "2", "--num-buckets", "1"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr
    assert "9 sentences" in done.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["data"]["corpus_folder"] == str(folder)
    lines = (tmp_path / "run" / "heldout.jsonl").read_text().splitlines()
    held_out = [json.loads(line) for line in lines]
    assert sorted(map(tuple, held_out)) == sorted(PAIRS[-9:])
    # The run knows where its corpus lies and which way it translates.
    split = ["--corpus", "tfds:encdec_numbers/de-en", "--split", "train[:7]"]
    scored = encdec("evaluate", tmp_path / "run", *split, "--beam", 1, "--json")
    row = json.loads(scored.out)
    assert (row["name"], row["sentences"]) == ("tfds:encdec_numbers/de-en train[:7]", 7)
    refused = encdec("evaluate", tmp_path / "run", *split, "--tsv", "some.tsv")
    assert refused.code == 2
    assert "corpus and files are given" in refused.err
