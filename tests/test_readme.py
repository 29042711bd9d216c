"""README keeps its word."""

import re
import shlex
from pathlib import Path

import pytest

from encdec.cli import main as cli
from tests.small_run import small_run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
    return [text for kind, text in found if kind == language]


def test_the_python_example_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    small_run(Path("runs/dates"))
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert "(" in capsys.readouterr().out  # the shape of the weights


def commands() -> list[list[str]]:
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    found = [line.split("| encdec ")[-1].split("&&")[-1].strip() for line in lines]
    words = [shlex.split(line.removeprefix(".venv/bin/"), comments=True) for line in found]
    return [one[1:] if one[0] == "encdec" else one for one in words if one and one[0] != "bash"]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_option_in_it_exists(arguments: list[str], tmp_path: Path, monkeypatch) -> None:
    """Each command gets past the reading of its options: what it misses is a file."""
    monkeypatch.chdir(tmp_path)

    def stop(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("encdec.training.trainer.train", stop)
    monkeypatch.setattr("encdec.cli.doctor.examined", stop)
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 8)
    monkeypatch.setattr("encdec.inference.translator.load", stop)
    monkeypatch.setattr("encdec.runs.run.load", stop)
    monkeypatch.setattr("encdec.data.tfds.prepare", stop)
    with pytest.raises(FileNotFoundError):
        cli.main(arguments)


def test_its_map_names_what_is_there() -> None:
    (tree,) = (block for block in blocks("") if block.startswith("encdec/"))
    package = Path(__file__).parents[1] / "encdec"
    named = set(re.findall(r"^  ([a-z_]+(?:\.py|/))", tree, re.M))
    there = {p.name + ("/" if p.is_dir() else "") for p in package.iterdir()}
    assert named == there - {"__init__.py", "__pycache__/"}
