"""The examples, commands and folders in README are as it says."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

import encdec as library
from encdec.cli import main as cli
from encdec.config import Seq2SeqConfig
from encdec.evaluation.metrics import METRICS
from tests.models import bag_of_words
from tests.small_run import small_run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    pairs = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
    return [text for kind, text in pairs if kind == language]


def block_with(text: str) -> str:
    (block,) = (block for block in blocks("python") if text in block)
    return block


@pytest.fixture
def small_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with an untrained run, and presets that are trained for two steps."""
    preset, known = library.preset, dict(METRICS)

    def small(name: str, model: str) -> library.RunConfig:
        config = preset(name, model)
        data = replace(config.data, vocabulary="chars", batch_tokens=512, num_buckets=1)
        training = replace(config.training, max_steps=2, evaluate_sentences=4, log_every=1)
        return replace(config, model=Seq2SeqConfig(embed=4, hidden=6), data=data, training=training)

    monkeypatch.setattr(library, "preset", small, raising=False)
    monkeypatch.chdir(tmp_path)
    small_run(Path("runs/dates"))
    yield
    METRICS.clear()  # of an example's own
    METRICS.update(known)


def run(block: str) -> dict[str, Any]:
    """The names that an example defines."""
    names: dict[str, Any] = {"__name__": "readme"}
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.mark.usefixtures("small_settings")
@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python") if "encdec.register" not in block],
    ids=lambda block: block.splitlines()[-1].strip(),
)
def test_every_example_runs(block: str) -> None:
    names = run(block)
    if "result" in names:
        assert names["result"].step <= 2 or "init=" in block
    if "report" in names:
        assert names["report"].sums.loss < 0.2 * names["report"].sums.tokens


def code(block: str) -> list[str]:
    """The lines of an example, without imports and blank lines."""
    return [line for line in block.splitlines() if line and not re.match("import |from ", line)]


def test_the_examples_are_short() -> None:
    assert len(block_with("runs/times").splitlines()) <= 5
    assert len(code(block_with("train_step"))) <= 20
    assert len(block_with("encdec.Processor").splitlines()) <= 15
    assert len(block_with("encdec.register").splitlines()) <= 80


def test_the_family_is_the_one_that_the_tests_train() -> None:
    file = Path(bag_of_words.__file__)
    assert block_with("encdec.register") == file.read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    last = [re.split(r"&&|\| (?=encdec )", line)[-1].strip() for line in lines]
    words = [shlex.split(line.removeprefix(".venv/bin/"), comments=True) for line in last]
    return [one[1:] for one in words if one and one[0] == "encdec"]


class StoppedError(Exception):
    """Ends a command; not one that the command line turns into a message."""


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_option_exists(arguments: list[str], tmp_path: Path, monkeypatch) -> None:
    """Each command accepts its options, and stops where it would open a run or a corpus."""
    monkeypatch.chdir(tmp_path)

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    monkeypatch.setattr("encdec.training.trainer.train", stop)
    monkeypatch.setattr("encdec.cli.doctor.detect_accelerator", stop)
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 8)
    monkeypatch.setattr("encdec.inference.translator.load", stop)
    monkeypatch.setattr("encdec.runs.run.load", stop)
    monkeypatch.setattr("encdec.data.tfds.prepare", stop)
    monkeypatch.setattr("encdec.interop.import_model.import_model", stop)
    with pytest.raises(StoppedError):
        cli.main(arguments)


def test_the_map_names_every_folder() -> None:
    (tree,) = (block for block in blocks("") if block.startswith("encdec/"))
    package = Path(__file__).parents[1] / "encdec"
    listed = set(re.findall(r"^  ([a-z_]+(?:\.py|/))", tree, re.M))
    exist = {p.name + ("/" if p.is_dir() else "") for p in package.iterdir()}
    assert listed == exist - {"__init__.py", "__pycache__/"}
