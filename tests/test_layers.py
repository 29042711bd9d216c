"""Imports go down only, as README's map says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "encdec"
ALLOWED = {
    "types": set(),
    "config": {"types"},
    "presets": {"config", "types"},
    "ops": {"types"},
    "models": {"config", "ops", "types"},
    "parallel": {"config", "ops", "types"},
    "device_arrays": {"ops", "parallel", "types"},
    "search": {"types"},
    "data": {"types"},
    "output": {"types"},
    "report": {"config", "data", "types"},
    "training": {"config", "ops", "types"},
    "corpus": {"config", "data", "types"},
    "run": {"config", "data", "types"},
    "processes": {"config", "types"},
    "capacity": {"data", "parallel", "types"},
    "placement": {"config", "device_arrays", "models", "parallel", "training", "types"},
    "decoding": {"ops", "parallel", "search", "training", "types"},
    "run_model": {"models", "parallel", "run", "training", "types"},
    "translator": {
        *("config", "data", "decoding", "device_arrays", "models", "parallel", "report", "run"),
        *("run_model", "search", "types"),
    },
    "preparing": {"config", "data", "report", "run", "types"},
    "fitting": {
        *("capacity", "config", "corpus", "data", "device_arrays", "parallel", "placement"),
        *("preparing", "processes"),
        *("report", "run", "run_model"),
        *("search", "training", "translator", "types"),
    },
    "arguments": {"config", "types"},
    "doctor": {"arguments", "parallel", "types"},
    "prepare_command": {"arguments", "data", "types"},
    "train_arguments": {"arguments", "config", "presets", "run", "types"},
    "exporting": {"decoding", "ops", "run", "run_model", "search", "training", "types"},
    "run_commands": {
        *("arguments", "config", "exporting", "pictures", "report", "run", "run_model"),
        *("training", "types"),
    },
    "pictures": {
        *("config", "data", "decoding", "report", "run", "translator", "types"),
    },
    "attend_command": {
        *("arguments", "decoding", "pictures", "report", "search", "translator", "types"),
    },
    "serving": {"config", "search", "translator", "types"},
    "serve_command": {"arguments", "config", "search", "serving", "translator", "types"},
    "scoring_arguments": {"config", "data", "report", "types"},
    "scoring_commands": {
        *("arguments", "config", "data", "output", "report", "scoring_arguments", "search"),
        *("translator", "types"),
    },
}
"""What each part may import of the others; `cli` and what stands above it may import all."""
SYSTEMS = ("seq2seq", "attentional", "transformer")
FILES = sorted(ROOT.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, names taken from them included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("encdec.")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file: Path) -> None:
    place = file.relative_to(ROOT).with_suffix("").parts
    part, names = place[0], imported(file)
    if part in ALLOWED:
        assert parts(names) <= ALLOWED[part] | {part}
    if part == "ops":
        assert not {name for name in names if name.split(".")[0] in ("flax", "optax")}
    if part == "data":
        assert not {name for name in names if name.split(".")[0] in ("jax", "flax", "optax")}
    if place[0] == "models" and place[-1] in SYSTEMS:
        assert not {f"encdec.models.{s}" for s in SYSTEMS} & {n.rsplit(".", 1)[0] for n in names}


def test_one_file_maps_steps_over_devices() -> None:
    saying = [f.name for f in FILES if re.search(r"\bpmap\(", f.read_text(encoding="utf-8"))]
    assert saying == ["parallel.py"]


def test_every_part_has_its_place() -> None:
    found = {file.relative_to(ROOT).with_suffix("").parts[0] for file in FILES}
    assert found == {*ALLOWED, "cli", "__init__", "__main__"}
