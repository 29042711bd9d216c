"""Help, refusals and `import encdec` do not wait for JAX or NumPy, and a first translation does not
wait for what only training needs."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import encdec
from encdec.cli.main import COMMANDS
from tests.small_run import small_run

HEAVY = ("jax", "numpy", "flax", "optax", "grain", "matplotlib", "tensorflow_datasets", "typeguard")

CALLS = """
import contextlib, io, json, sys
from encdec.cli.main import main

def call(*arguments):
    # What the call imported of the heavy modules, and its exit code.
    before, code = set(sys.modules), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, sorted((set(sys.modules) - before) & set(heavy))

heavy, commands = json.loads(sys.argv[1])
calls = [["--help"], ["--version"], ["no-such-command"]]
calls += [[command, option] for command in commands for option in ("--help", "--no-such-option=1")]
print(json.dumps([[" ".join(arguments), *call(*arguments)] for arguments in calls]))
"""

IMPORT = """
import sys
before = set(sys.modules)
import encdec
dir(encdec)
added = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(added - set(sys.stdlib_module_names)))
"""

TRANSLATE = """
import collections, io, json, os, sys
from jax import monitoring
from encdec.cli.main import main

events = collections.Counter()
monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.update([name]))
sys.stdin = io.TextIOWrapper(io.BytesIO(b"3. Mai 1979"))
run, os.environ["XDG_CACHE_HOME"] = sys.argv[1:]
main(["translate", run])
compiled = events["/jax/core/compile/backend_compile_duration"]
print(json.dumps([compiled, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def python(program: str, *arguments: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout


def test_help_and_refusals_of_all_commands_import_nothing_heavy() -> None:
    calls = json.loads(python(CALLS, json.dumps([HEAVY, [*COMMANDS]])))
    assert len(calls) == 3 + 2 * len(COMMANDS)
    assert {call: modules for call, _, modules in calls if modules} == {}
    for call, code, _ in calls:
        assert code == (2 if "no-such" in call else 0), call


def test_importing_the_package_imports_no_other() -> None:
    assert python(IMPORT) == "['encdec']\n"


def test_a_first_translation_imports_and_compiles_little(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run").path
    compiled, modules = json.loads(python(TRANSLATE, str(path), str(tmp_path)).splitlines()[-1])
    training = {"grain", "optax", "orbax", "tensorboardX", "tensorflow_datasets", "tqdm"}
    others = {"babel", "matplotlib", "rapidfuzz", "sacrebleu", "sacremoses", "safetensors"}
    assert not {*modules} & (training | others)
    # The search begins, advances and ends; parameters reach the device without a program.
    assert compiled == 3


def test_the_version_is_that_of_the_installed_package(capsys) -> None:
    from encdec.cli.main import main

    main(["--version"])
    assert capsys.readouterr().out == f"encdec {version('encdec')}\n"
    assert encdec.__version__ == version("encdec")
