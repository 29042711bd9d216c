"""The commands in docstrings of scripts and in their README are ones that the scripts accept."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    file.stem: text
    for file in sorted((ROOT / "experiments").glob("*.py"))
    if "tyro.cli(" in (text := file.read_text(encoding="utf-8"))
}
VARIABLES = {"$model": "attention", "$seed": "0", "$split": "simple", "$language": "fre"}
"""A value for each variable of a loop."""


def docstring(script: str) -> str:
    return ast.get_docstring(ast.parse(SCRIPTS[script])) or ""


def commands() -> list[tuple[str, str]]:
    """(script, options) of each command in a docstring or in the README of experiments."""
    readme = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    texts = [readme, *map(docstring, SCRIPTS)]
    lines = "\n".join(texts).replace("\\\n", " ")
    for variable, value in VARIABLES.items():
        lines = lines.replace(variable, value)
    call = r"^ *python (?:-m experiments\.(\w+)|experiments/(\w+)\.py)(.*)$"
    return [(a or b, options.strip()) for a, b, options in re.findall(call, lines, re.M)]


def test_every_script_that_has_options_has_a_command() -> None:
    assert len(SCRIPTS) > 15
    assert {script for script, _ in commands()} == SCRIPTS.keys()


@pytest.mark.parametrize(("script", "options"), commands())
def test_a_command_is_accepted(script: str, options: str) -> None:
    module = importlib.import_module(f"experiments.{script}")
    tyro.cli(module.Options, args=shlex.split(options, comments=True))


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_that_a_docstring_names_exist(script: str, capsys) -> None:
    module = importlib.import_module(f"experiments.{script}")
    with pytest.raises(SystemExit):
        tyro.cli(module.Options, args=["--help"])
    known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    assert {*re.findall(r"`(--[\w.-]+)", docstring(script))} <= known


@pytest.mark.parametrize("script", SCRIPTS)
def test_bad_input_ends_each_with_one_line(script: str) -> None:
    text = SCRIPTS[script].replace(", trains=False", "")
    assert text.endswith(f'''
if __name__ == "__main__":
    with as_command("{script}.py"):
        main(tyro.cli(Options, description=__doc__))
''')


def test_a_run_that_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.alignments", tmp_path / "run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done
    assert done.stderr.startswith(f"alignments.py: error: {tmp_path}/run is not a folder")
