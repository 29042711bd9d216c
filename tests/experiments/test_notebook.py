"""The notebook is its source, and runs from top to bottom."""

import ast
import importlib
import os
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SYNC = "jupytext --to ipynb experiments/colab.py"
SMALL = """
PACKAGE, OWN_TSV = "", ""
DRIVE = UPLOAD = False
TEXT = "3 May 1979"
FRACTION = 0.01
"""


def notebook() -> nbformat.NotebookNode:
    return nbformat.read(EXPERIMENTS / "colab.ipynb", as_version=4)


def test_it_is_its_source() -> None:
    source = jupytext.read(EXPERIMENTS / "colab.py")

    def cells(of: nbformat.NotebookNode) -> list[tuple]:
        return [(c.cell_type, c.source, c.metadata.get("tags")) for c in of.cells]

    assert cells(notebook()) == cells(source), f"out of step: {SYNC}"
    assert not any(cell.get("outputs") for cell in notebook().cells), f"has outputs: {SYNC}"
    nbformat.validate(notebook())


def test_its_small_settings_are_all_that_it_has() -> None:
    (parameters,) = (c for c in notebook().cells if "parameters" in c.metadata.get("tags", []))
    names = re.findall(r"^([A-Z_]+) = ", parameters.source, re.M)
    small: dict[str, object] = {}
    exec(SMALL, small)
    assert set(names) == small.keys() - {"__builtins__"}


def test_what_it_imports_from_the_library_exists() -> None:
    tree = ast.parse((EXPERIMENTS / "colab.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("encdec"):
            module = importlib.import_module(str(node.module))
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few steps; each picture is drawn, and each system is in the comparison."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", f"{EXPERIMENTS.parent}{os.pathsep}")
    opened = notebook()
    for cell in opened.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL
    client = NotebookClient(
        opened, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in opened.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 6
    text = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    for part in ("seq2seq", "attention", "transformer", "exact match", "reference: "):
        assert part in text
    assert re.search(r"^ok +pmap", text, re.M)
    assert len(list((tmp_path / "runs").iterdir())) == 4
