"""Output to files, pipes and devices; what a person or a run has is never replaced."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from encdec.cli.output import check_output, writer
from encdec.config import Seq2SeqConfig
from encdec.types import InputError
from tests.commands import refused
from tests.small_run import small_run


def test_a_pipe_gets_lines_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    first = threading.Event()
    found: list[str] = []

    def read() -> None:
        with path.open() as pipe:
            found.append(pipe.readline())
            first.set()
            found.append(pipe.read())

    reader = threading.Thread(target=read)
    reader.start()
    with writer(path) as out:
        out.write("eins\n")
        out.flush()
        assert first.wait(30)
        out.write("zwei €\n")
    reader.join()
    assert found == ["eins\n", "zwei €\n"]
    assert path.is_fifo()
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", ["loop", "a" * 300, "file/out"])
def test_names_that_cannot_be_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: [A-Z]"), writer(tmp_path / name):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"loop", "file"}


def test_a_reader_that_goes_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: path.open().close())
    reader.start()

    def write() -> None:
        with writer(path) as out:
            reader.join()
            out.write("eins\n")
            out.flush()

    with pytest.raises(BrokenPipeError):
        write()


def test_devices_and_open_files_are_written_to(tmp_path: Path) -> None:
    device = os.stat(os.devnull)
    with writer(Path(os.devnull)) as out:
        out.write("text")
    assert os.stat(os.devnull) == device
    full = pytest.raises(InputError, match="/dev/full cannot be written: No space left")
    with full, writer(Path("/dev/full")) as out:
        out.write("text")
    with (tmp_path / "log").open("wb") as log:
        log.write(b"before\n")
        log.flush()
        with writer(Path(f"/dev/fd/{log.fileno()}")) as out:
            out.write("text\n")
        log.write(b"after\n")
    assert (tmp_path / "log").read_text() == "before\ntext\nafter\n"


def test_a_compressed_file_is_whole_and_depends_on_its_text_only(tmp_path: Path) -> None:
    for name in ("one.gz", "two.gz"):
        with writer(tmp_path / name) as out:
            out.write("zwei €\n" * 1000)
            out.flush()
    with gzip.open(tmp_path / "one.gz", "rt", encoding="utf-8") as file:
        assert file.read() == "zwei €\n" * 1000
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()

    def fail() -> None:
        with writer(tmp_path / "one.gz") as out:
            out.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert gzip.decompress((tmp_path / "one.gz").read_bytes()).startswith(b"zwei")


def test_a_terminated_process_leaves_no_temporary_file(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from encdec.cli.output import writer\n"
        "with writer(Path(sys.argv[1])): print('open', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not [*tmp_path.iterdir()]


def test_inputs_folders_and_files_of_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(InputError, match="link is an input"), writer(tmp_path / "link", [path]):
        pass
    with path.open() as file, pytest.raises(InputError, match="file is an input"):
        check_output(path, [Path(f"/dev/fd/{file.fileno()}")])  # as /dev/stdin is
    with pytest.raises(InputError, match="cannot be written: Is a directory"), writer(tmp_path):
        pass
    with pytest.raises(InputError, match="no/out cannot be written: No such file"):
        check_output(tmp_path / "no" / "out")
    assert path.read_text() == "old"
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("config.json", "source.vocab", "checkpoints/arrays"):
        (run / name).write_text("{}")
    (tmp_path / "sideways").symlink_to(run / "checkpoints")
    for name in ("run/config.json", "run/source.vocab", "sideways/arrays"):
        with pytest.raises(InputError, match=r"run folder .*/run, where nothing is replaced"):
            check_output(tmp_path / name)
    check_output(run / "new")
    check_output(Path("/dev/stdout"), [Path("/dev/stdin")])


def test_no_command_replaces_a_file_of_a_run(tmp_path: Path, encdec) -> None:
    run = small_run(tmp_path / "run", Seq2SeqConfig(cell="simple", embed=6, hidden=8)).path
    shutil.copyfile(run / "heldout.jsonl", run / "old.png")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    for name, option in (("config.json", "--output"), ("target.vocab", "--output")):
        for command in ("translate", "score", "evaluate"):
            found = encdec(command, run, option, run / name, stdin=b"3. Mai\t1979\n")
            refused(found, f"{option} {run / name} is a file in the run folder")
    refused(encdec("plot", run, "--out", run / "old.png"), "old.png is a file in the run folder")
    refused(encdec("attend", run, "3. Mai", "--out", run / "old.png"), "old.png is a file in")
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("command", [["info"], ["score"]])
def test_a_full_device_takes_one_line(tmp_path: Path, command: list[str]) -> None:
    run = small_run(tmp_path / "run", Seq2SeqConfig(cell="simple", embed=6, hidden=8)).path
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "encdec.cli", *command, str(run)],
            input=b"3. Mai\t1979\n",
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    errors = done.stderr.decode().splitlines()
    assert (done.returncode, len(errors)) == (2, 1), errors
    assert "No space left on device" in errors[0]
