"""Two processes of two devices each equal one of four, and end together.

The tests start their own processes on 127.0.0.1 and end the ones that they started.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from encdec.runs.parameters import abstract_params

SETTINGS = [
    *("--model", "transformer", "--layers", "1", "--width", "16", "--feed-forward", "24"),
    *("--heads", "2", "--dropout", "0.1", "--date-sentences", "600", "--batch-tokens", "900"),
    *("--schedule", "constant", "--warmup", "9", "--evaluate-every", "10", "--log-every", "5"),
    *("--evaluate-sentences", "20", "--average-last", "2", "--num-buckets", "1"),
]


TRAIN = """
import sys
import encdec
from encdec.cli.train import parse_train
config, folder, devices, _ = parse_train(sys.argv[1:])
encdec.train(config, run=folder, devices=devices)
"""
"""Trains as the command does, but skips its final evaluation, which would take longer."""

COUNTED = """
import sys
from encdec.data import corpus_cache, token_cache

def announced(module, name):
    function = getattr(module, name)
    def announce(*arguments):
        print(f"{name} on this process", file=sys.stderr, flush=True)
        return function(*arguments)
    setattr(module, name, announce)

announced(corpus_cache, "_read")
announced(token_cache, "_write")
"""
"""Says on stderr when this process reads the text, and when it encodes it."""

AGREE = """
import sys
from encdec.cli.train import parse_train
from encdec.parallel import processes
from encdec.parallel.connection import connect
_, folder, devices, _ = parse_train(sys.argv[1:])
connect(devices, print)
number = devices.process
assert processes.least([2**41 + 3, 2**40 + 7][number]) == 2**40 + 7
assert processes.least([2**32 - 1, 2**32][number]) == 2**32 - 1
assert processes.share_folder(folder / "all")
assert not processes.share_folder(folder / str(number))
"""


class Started:
    """The processes of a test, which end with it; each writes stderr to a file.

    Attributes:
      caches: the cache folders that processes take in turn.
      program: what each runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.caches = [folder]
        self.program = TRAIN
        self.all: list[subprocess.Popen[bytes]] = []

    def train(self, run: Path, steps: int, devices: int, *options: str) -> subprocess.Popen[bytes]:
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = os.environ | {
            "XDG_CACHE_HOME": str(self.caches[len(self.all) % len(self.caches)]),
            "XLA_FLAGS": flags,
            "NPROC": "16",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        words = ["--run", str(run), *SETTINGS, "--max-steps", str(steps), *options]
        with self.output(len(self.all)).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", self.program, *words],
                stdout=subprocess.DEVNULL,
                stderr=output,
                env=environment,
            )
        self.all.append(process)
        return process

    def pair(
        self, run: Path, steps: int, each: Sequence[str] = ("--shard-optimizer",) * 2
    ) -> list[subprocess.Popen[bytes]]:
        """Two processes; `each` is an option for the first and one for the second."""
        return self.pair_in([run, run], steps, each)

    def pair_in(
        self, folders: Sequence[Path], steps: int, each: Sequence[str] = ("--shard-optimizer",) * 2
    ) -> list[subprocess.Popen[bytes]]:
        """As `pair`, with a run folder for each process."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        joined = ("--coordinator", address, "--processes", "2", "--process")
        return [self.train(folders[i], steps, 2, each[i], *joined, str(i)) for i in range(2)]

    def output(self, number: int) -> Path:
        return self.folder / f"stderr{number}"

    def stderr(self, process: subprocess.Popen[bytes]) -> str:
        return self.output(self.all.index(process)).read_text(errors="replace")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    running = Started(tmp_path)
    yield running
    for process in running.all:
        process.kill()
        process.wait()


def latest(run: Path) -> list[np.ndarray]:
    like = {"params": abstract_params(runs.load(run))}
    return jax.tree.leaves(checkpoints.load(run, "latest", like)[0])


@pytest.mark.slow
def test_two_processes_equal_one_and_end_together(started: Started, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    single = started.train(one, 30, 4, "--layout", "4x1")
    assert single.wait(300) == 0, started.stderr(single)

    pair = started.pair(two, 100_000)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and pair[0].poll() is None:
        rows = read_metrics(two / "metrics.jsonl")
        if rows and rows[-1]["kind"] == "train" and rows[-1]["step"] > 10:
            break
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    assert pair[0].wait(100) != 0
    assert time.monotonic() - killed < 60
    assert "another" in started.stderr(pair[0])  # process, or task

    (step,) = checkpoints.steps(two, "latest")
    last = max(30, -(-step // 10) * 10)
    if last > 30:
        assert started.train(one, last, 4, "--layout", "4x1").wait(300) == 0
    resumed = started.pair(two, last)
    for process in resumed:
        assert process.wait(300) == 0, started.stderr(process)
    assert f"from step {step} of {last}" in started.stderr(resumed[0])
    assert "from step" not in started.stderr(resumed[1])  # only the main process prints
    assert checkpoints.steps(two, "latest") == checkpoints.steps(one, "latest") == [last]
    for a, b in zip(latest(one), latest(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    scores = [
        {row["step"]: row["loss"] for row in read_metrics(run / "metrics.jsonl") if "bleu" in row}
        for run in (one, two)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


@pytest.mark.slow
def test_processes_with_different_settings_end_before_the_first_step(
    started: Started, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for process in started.pair(run, 10, each=["--learning-rate=0.001", "--learning-rate=0.002"]):
        assert process.wait(200) != 0
        assert "process 1 has another configuration than process 0" in started.stderr(process)
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [True, False])
def test_one_process_reads_and_encodes_for_all_that_share_its_cache(
    started: Started, tmp_path: Path, is_shared: bool
) -> None:
    text = tmp_path / "text.tsv"
    text.write_text("".join(f"{n} {n % 7}\t{n % 7} {n}\n" for n in range(10_000, 10_300)))
    os.utime(text, (0, 0))  # a file that was just written is not trusted
    started.program = COUNTED + TRAIN
    if not is_shared:
        started.caches = [tmp_path / "cache0", tmp_path / "cache1"]
    pair = started.pair(tmp_path / "run", 3, each=[f"--tsv={text}"] * 2)
    for number, process in enumerate(pair):
        assert process.wait(300) == 0, started.stderr(process)
        works = number == 0 or not is_shared
        for name in ("_read", "_write"):
            said = started.stderr(process).count(f"{name} on this process")
            assert said == works, (number, name)
    assert ("the processes do not share" in started.stderr(pair[0])) == (not is_shared)


@pytest.mark.slow
def test_processes_agree_on_the_least_number_and_on_a_folder(
    started: Started, tmp_path: Path
) -> None:
    started.program = AGREE
    for process in started.pair(tmp_path / "run", 1):
        assert process.wait(200) == 0, started.stderr(process)
    assert not list((tmp_path / "run" / "all").iterdir())


@pytest.mark.slow
def test_all_end_where_the_one_that_encodes_cannot(started: Started, tmp_path: Path) -> None:
    text = tmp_path / "text.tsv"
    text.write_text("".join(f"{n} {n % 7}\t{n % 7} {n}\n" for n in range(10_000, 10_300)))
    started.program = COUNTED + (
        "def full(*_): raise OSError(28, 'No space left on device')\ntoken_cache._write = full\n"
    )
    started.program += TRAIN
    pair = started.pair(tmp_path / "run", 3, each=[f"--tsv={text}"] * 2)
    for process in pair:
        assert process.wait(200) != 0
    assert "tokens cannot be kept in" in started.stderr(pair[0])
    assert "process 0 has stopped" in started.stderr(pair[1])
    assert "on this process" not in started.stderr(pair[1]).replace("_read on this process", "")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to", [(0,), (1,), (0, 1)])
def test_a_signal_to_one_of_two_ends_both_with_a_checkpoint_of_the_same_step(
    started: Started, tmp_path: Path, to: tuple[int, ...]
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    pair = started.pair(run, 100_000, each=["--save-minutes=0.01"] * 2)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not read_metrics(run / "metrics.jsonl")[1:]:
        time.sleep(0.05)
    for number in to:
        pair[number].send_signal(signal.SIGTERM)
    sent = time.monotonic()
    for process in pair:
        assert process.wait(30) != 0
        assert "Interrupted: SIGTERM at step" in started.stderr(process)
    assert time.monotonic() - sent < 30
    (step,) = checkpoints.steps(run, "latest")
    for process in pair:
        assert f"SIGTERM at step {step} of" in started.stderr(process)

    last = step + 3
    for folder in (run, whole):
        for process in started.pair(folder, last, each=["--save-minutes=0.01"] * 2):
            assert process.wait(300) == 0, started.stderr(process)
    for one, other in zip(latest(run), latest(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [read_metrics(folder / "metrics.jsonl") for folder in (run, whole)]
    losses = [[(row["step"], row["loss"]) for row in each if "loss" in row] for each in rows]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_processes_that_see_different_runs_are_refused(started: Started, tmp_path: Path) -> None:
    """Process 1 has another working folder, where the run of the same name is older."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, steps in zip(folders, (10, 20), strict=True):
        assert started.train(folder / "run", steps, 1, "--layout", "1x1").wait(300) == 0
    runs_of = [folder / "run" for folder in folders]
    for process in started.pair_in(runs_of, 30):
        assert process.wait(200) != 0
        said = started.stderr(process)
        assert "process 0 from step 10, process 1 from step 20" in said, said
    assert [checkpoints.steps(run, "latest") for run in runs_of] == [[10], [20]]
