"""The command line: `encdec COMMAND`.

Bad input ends with one line on stderr and exit code 2, before any work is lost. So does output that
cannot be written; if its reader has gone the code is 141, after Ctrl-C it is 130, and after SIGTERM
in training 143, as shells have it. The module of a command is imported when the command is called.
It imports JAX after it has parsed its options, so that help texts and refusals do not wait for JAX.
"""

import importlib
import io
import keyword
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import encdec
from encdec.config.checks import nearest
from encdec.parallel.process_memory import keep_freed_memory
from encdec.types import InputError

COMMANDS = {
    "train": "train a run (the dates corpus and the Transformer by default)",
    "import": "make a run of a model trained elsewhere (Marian, NLLB, mBART, T5, ...)",
    "translate": "translate lines of text",
    "evaluate": "compute metrics of a run on its held-out sentences, or on files",
    "shortlist": "make a table of which target tokens translate which, for faster translation",
    "score": "write the log-probability of given translations, for a test set or an n-best list",
    "compare": "test whether one run is significantly better than another",
    "attend": "draw what each token of a translation attended to",
    "info": "describe a run: its model, its progress and its metrics",
    "plot": "draw learning curves, or metrics by source length, of one or more runs",
    "export": "write a run for the hub library, CTranslate2, or JAX alone",
    "serve": "serve a page to translate in, on this machine only",
    "prepare": "fetch a corpus of TensorFlow Datasets to train on",
    "doctor": "describe the devices, versions and speed of this machine",
}
"""What each command does; the module `encdec.cli.COMMAND` has its `run(arguments)`.

A name that Python keeps for itself has an underscore there."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; after bad input it prints one line on stderr and exits with 2.

    Args:
      arguments: the command and its options; those of this process if None.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr does: what it cannot write is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    if arguments[0] == "--version":
        print(f"encdec {encdec.__version__}")
        return
    with as_command("encdec", trains=arguments[0] == "train"):
        name, *rest = arguments
        if name not in COMMANDS:
            raise InputError(f"unknown command {name!r}{nearest(name, COMMANDS)} (encdec --help)")
        module = f"{name}_" if keyword.iskeyword(name) else name
        importlib.import_module(f"encdec.cli.{module}").run(rest)


@contextmanager
def as_command(program: str, *, trains: bool = True) -> Iterator[None]:
    """Runs its body as the work of this process.

    Where the body fails, the process ends with one line on stderr and an exit code.

    Args:
      program: the name that the line begins with.
      trains: whether to keep the memory that is freed, with which training is faster; without it
        programs are compiled faster, and a search is no slower.
    """
    if trains:
        keep_freed_memory()
    try:
        yield
        _flush()
    except InputError as error:
        _end(program, f"error: {' '.join(str(error).split())}", 2)
    except BrokenPipeError:
        _end(program, "the reader of the output has closed it: the rest was not written", 141)
    except OSError as error:
        _end(program, f"error: {error}", 2)
    except KeyboardInterrupt as error:
        # Training says where it was interrupted, and by which signal.
        _end(program, str(error) or "interrupted", 128 + getattr(error, "signal", signal.SIGINT))


def _flush() -> None:
    """Writes what stdout holds, so that an error is found here and not after the last line."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"stdout cannot be written: {error.strerror}") from error


def _end(program: str, line: str, code: int) -> NoReturn:
    """Prints a line on stderr and exits."""
    with suppress(OSError, ValueError):
        print(f"{program}: {line}", file=sys.stderr)
    try:
        _flush()
    except (OSError, ValueError, InputError):
        # Python would fail again when it flushes stdout at exit: the null device takes its place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def usage() -> str:
    """The text of `encdec --help`: the list of commands."""
    lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: encdec COMMAND ...  or  encdec --version",
            "",
            *lines,
            "",
            "`encdec COMMAND --help` lists the options of a command.",
        ]
    )
