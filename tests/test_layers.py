"""The folders are layers: each imports only those below it, and no module imports itself."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "encdec"
LAYERS = (
    *("cli", "serving", "plots", "interop", "training", "inference", "runs", "evaluation"),
    *("search", "models", "ops", "parallel", "data", "config", "progress", "files", "types"),
)
"""From top to bottom: each may import those after it."""
WITHOUT = {
    "types": {"jax", "numpy", "flax", "optax"},
    "config": {"jax", "numpy", "flax", "optax"},
    "data": {"jax", "flax", "optax"},
    "parallel": {"flax", "optax"},
    "ops": {"flax", "optax"},
    "search": {"flax", "optax"},
    "evaluation": {"jax", "flax", "optax"},
}
"""Libraries that a layer must not import."""
FAMILIES = ("seq2seq", "rnn_attention", "transformer")
FILES = sorted(ROOT.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """The dotted names that a file imports, except under TYPE_CHECKING."""
    names = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file: Path) -> None:
    if layer(file) == "__init__":
        return
    names = imports(file)
    below = LAYERS[LAYERS.index(layer(file)) :]
    assert {name.split(".")[1] for name in names if name.startswith("encdec.")} <= {*below}
    assert not {name.split(".")[0] for name in names} & WITHOUT.get(layer(file), set())


def test_imports_have_no_cycle() -> None:
    """Within a folder neither."""
    modules = {
        ".".join(("encdec", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): file
        for file in FILES
    }
    graph = {}  # from each module to those that it imports
    for module, file in modules.items():
        names = imports(file)
        imported = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = {name for name in imported if name in modules and name != module}
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}


def test_families_do_not_import_each_other() -> None:
    for family in FAMILIES:
        others = {f"encdec.models.{other}" for other in FAMILIES if other != family}
        names = imports(ROOT / "models" / f"{family}.py")
        assert not others & {name.rpartition(".")[0] for name in names}


def test_only_parallel_calls_pmap() -> None:
    callers = [f for f in FILES if re.search(r"\bpmap\(", f.read_text(encoding="utf-8"))]
    assert {layer(file) for file in callers} == {"parallel"}


def test_every_file_has_a_layer() -> None:
    assert {layer(file) for file in FILES} == {*LAYERS, "__init__"}
    assert len(list(ROOT.glob("*.py"))) <= 4


def test_the_tests_have_the_same_folders() -> None:
    folders = {p.name for p in Path(__file__).parent.iterdir() if p.is_dir()} - {"__pycache__"}
    assert folders <= {*LAYERS, "experiments"}


def test_every_folder_is_a_package() -> None:
    """Or `pip install` leaves it out."""
    folders = {file.parent for file in FILES}
    assert all((folder / "__init__.py").exists() for folder in folders)
