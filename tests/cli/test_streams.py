"""Commands between pipes: an answer for each line as it arrives, and how they end."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue

from encdec.config import Seq2SeqConfig
from tests.small_run import small_run


class Program:
    """A command with pipes for its input and output."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "encdec.cli", *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)

    def ask(self, line: str) -> str:
        """Sends a line and waits for one; it fails where none comes."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        answers: Queue[bytes] = Queue()
        assert self.process.stdout
        threading.Thread(
            target=lambda read: answers.put(read()),
            args=(self.process.stdout.readline,),
            daemon=True,
        ).start()
        return answers.get(timeout=120).decode()

    def end(self) -> tuple[int, list[str]]:
        """Waits for the end: the exit code, and the lines on stderr."""
        assert self.process.stderr
        return self.process.wait(60), self.process.stderr.read().decode().splitlines()


@contextmanager
def running(*arguments: object) -> Iterator[Program]:
    program = Program(*arguments)
    try:
        yield program
    finally:
        program.process.kill()
        for stream in (program.process.stdin, program.process.stdout, program.process.stderr):
            assert stream
            with suppress(BrokenPipeError):
                stream.close()
        program.process.wait()


def test_each_line_is_answered_and_a_reader_that_goes_ends_it(tmp_path: Path, encdec) -> None:
    run = small_run(tmp_path / "run", Seq2SeqConfig(cell="simple", embed=6, hidden=8)).path
    lines = ["3. Mai 1979", "", "12/11/2026"]
    with running("translate", run) as program:
        answers = [program.ask(line) for line in lines]
        assert program.process.stdout
        assert program.process.stdin
        program.process.stdout.close()
        program.process.stdin.write(b"3. Mai\n")
        program.process.stdin.flush()
        code, errors = program.end()
    assert (code, len(errors)) == (141, 1)
    assert "reader of the output has closed it" in errors[0]
    assert "".join(answers) == encdec("translate", run, stdin="\n".join(lines).encode()).out


def test_each_pair_is_scored_and_an_interrupt_ends_it(tmp_path: Path, encdec) -> None:
    run = small_run(tmp_path / "run", Seq2SeqConfig(cell="simple", embed=6, hidden=8)).path
    lines = ["3. Mai 1979\t1979-05-03", "12/11/2026\t2026-11-12"]
    with running("score", run) as program:
        answers = [program.ask(line) for line in lines]
        program.process.send_signal(signal.SIGINT)
        assert program.end() == (130, ["encdec: interrupted"])
    assert "".join(answers) == encdec("score", run, stdin="\n".join(lines).encode()).out
