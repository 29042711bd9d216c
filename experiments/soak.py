"""Does a run survive kills at any moment, and the page any request?

    python -m experiments.soak --kills 100
    python -m experiments.soak --kills 100 --processes 2
    python -m experiments.soak --kills 0 --requests 10000 --clients 100

Training: a small Transformer on the built-in dates is trained once without a break. Then it is
trained again and again with the same command; each session is killed with SIGKILL at a random
moment, during its start, its steps or its saves, until so many kills have been made. Every run that
came to its end must have the state of the unbroken one to the bit, and the same rows in its log.
With several processes one of them is killed, and the others must end by themselves; those that wait
for it to appear would do so for five minutes, so they are killed as well.

Page: `encdec serve` gets the same sentences from many clients at once, then requests that are
damaged at random. It must answer with the right text or refuse with a status of 4xx or 503 and a
reason, and its memory must not grow.

Durations and results are in `experiments/README.md`. Servers and processes are on 127.0.0.1.
"""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from encdec.cli.main import as_command
from encdec.data.dates import dates
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from encdec.runs.parameters import build_model
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.types import InputError

SETTINGS = [
    *("--model", "transformer", "--layers", "1", "--width", "16", "--feed-forward", "24"),
    *("--heads", "2", "--dropout", "0.1", "--vocabulary", "chars", "--batch-tokens", "900"),
    *("--evaluate-every", "10", "--log-every", "5", "--evaluate-sentences", "4"),
    *("--average-last", "2", "--num-buckets", "1"),
]
ANSWER_SECONDS = 120
"""A request that takes longer counts as lost."""
END_SECONDS = 120
"""A process must end by itself this soon after another one was killed; a busy machine is slow."""


@dataclass(frozen=True)
class Options:
    """How long to try."""

    kills: int = 100
    """Kills of training; 0 leaves it out."""
    processes: int = 1
    """Processes of a training."""
    steps: int = 300
    """Steps of a training."""
    requests: int = 0
    """Damaged requests to the page; 0 leaves it out."""
    clients: int = 100
    """Clients of the page at a time."""
    seed: int = 0
    """Decides moments and damages."""
    folder: Path | None = None
    """Folder of the runs; a temporary one if left out."""


class Outcome(NamedTuple):
    """kills: made so far. starts: sessions until their first step. ends: runs that came to it.
    seconds: of the latest start of a session."""

    kills: int = 0
    starts: int = 0
    ends: int = 0
    seconds: float = 6.0


# --- training ------------------------------------------------------------------------------------


def write_corpus(folder: Path) -> None:
    """Dates to train on, and a few held out, so that a run that ends has little to translate."""
    made = dates(600, 0)
    for name, pairs, count in (("train", made.train, 600), ("valid", made.valid, 40)):
        lines = ["\t".join(pair) for pair in zip(*pairs, strict=True)][:count]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def command(run: Path, options: Options, process: int, address: str) -> list[str]:
    """The command of one process of a training."""
    words = [sys.executable, "-m", "encdec.cli", "train", "--run", str(run), *SETTINGS]
    for option, name in (("--tsv", "train.tsv"), ("--valid-tsv", "valid.tsv")):
        words += [option, str(run.parent / name)]
    words += ["--max-steps", str(options.steps)]
    if options.processes > 1:
        words += ["--coordinator", address, "--processes", str(options.processes)]
        words += ["--process", str(process)]
    return words


@contextmanager
def training(run: Path, options: Options) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A session of training, whose processes end with it; the last lines of each are in a file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"XDG_CACHE_HOME": str(run.parent / "cache")}
    processes = []
    try:
        for i in range(options.processes):
            with (run.parent / f"process-{i}").open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        command(run, options, i, address),
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=environment,
                    )
                )
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def has_begun(run: Path) -> bool:
    """Whether the session that runs has come to its first step."""
    return b"from step" in (run.parent / "process-0").read_bytes()


def kill_once(run: Path, options: Options, chance: random.Random, outcome: Outcome) -> Outcome:
    """A session that is killed at a random moment unless it ends before; returns the new outcome.

    It has on average half the time of a start before the kill, so that a run comes to its end on a
    busy machine too.
    """
    kills, starts, ends, seconds = outcome
    with training(run, options) as processes:
        if chance.random() < 0.8:  # a kill in mid-training; else at any moment of the start too
            start = time.monotonic()
            while not has_begun(run) and processes[0].poll() is None:
                time.sleep(0.01)
            seconds = time.monotonic() - start
        moment = time.monotonic() + chance.expovariate(2 / seconds)
        while time.monotonic() < moment and processes[0].poll() is None:
            time.sleep(0.001)
        begun = has_begun(run)
        chosen = chance.choice(processes)
        if processes[0].poll() is None:
            for process in [chosen] if begun else processes:
                process.kill()
        codes = [process.wait(END_SECONDS) for process in processes]
    if any(codes) and chosen.returncode != -signal.SIGKILL:
        raise InputError(f"a session ended with {codes}: see {run.parent}/process-*")
    ended = not any(codes)
    return Outcome(kills + (not ended), starts + begun, ends + ended, seconds)


def state(run: Path) -> list[np.ndarray]:
    """All arrays of the latest checkpoint."""
    opened = runs.load(run)
    model, config = build_model(opened), opened.config.training
    shapes = StateSharding(model, model, optimizer(config), config, SINGLE_DEVICE).shapes
    return jax.tree.leaves(checkpoints.load(run, "latest", shapes)[0])


def rows(run: Path) -> list[tuple[Any, ...]]:
    """What the log says of each step, without times."""
    read = read_metrics(run / "metrics.jsonl")
    return [(r["kind"], r["step"], r.get("loss")) for r in read if r["kind"] != "start"]


def check_same(run: Path, reference: Path) -> None:
    """Raises InputError unless two runs have the same state and rows."""
    for one, other in zip(state(run), state(reference), strict=True):
        if not np.array_equal(one, other):
            raise InputError(f"{run} differs from {reference}")
    if rows(run) != rows(reference):
        raise InputError(f"the rows of {run} differ from those of {reference}")


def soak_training(options: Options, folder: Path) -> Outcome:
    """Kills trainings, and compares those that came to their end; raises InputError otherwise."""
    chance, outcome = random.Random(options.seed), Outcome()
    reference = folder / "reference"
    with training(reference, options) as processes:
        if codes := [code for process in processes if (code := process.wait())]:
            raise InputError(f"the unbroken training ended with {codes}: see {folder}/process-*")
    run = folder / "run-0"
    while True:
        before, outcome = outcome, kill_once(run, options, chance, outcome)
        print(f"\r{outcome.kills} kills, {outcome.ends} runs ended", end="", flush=True)
        if outcome.ends > before.ends:
            check_same(run, reference)
            if outcome.kills >= options.kills:
                print()
                return outcome
            run = folder / f"run-{outcome.ends}"


# --- the page ------------------------------------------------------------------------------------


@contextmanager
def page(run: Path, clients: int) -> Iterator[tuple[str, int, int]]:
    """A server: its host and port, and the process."""
    words = ["serve", str(run), "--port", "0", "--most-waiting", str(2 * clients)]
    with subprocess.Popen(
        [sys.executable, "-m", "encdec.cli", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().split(" at http://")[1].split()[0].strip("/")
            host, port = address.split(":")
            yield host, int(port), process.pid
        finally:
            process.terminate()
            process.wait(30)


def ask(host: str, port: int, body: bytes, kind: str = "application/json") -> tuple[int, Any]:
    """The status and the JSON answer of a request; status 0 for a connection that was cut."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("POST", "/translate", body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def damaged(chance: random.Random, sentences: Sequence[str]) -> bytes:
    """A request that is changed at random places, or whose fields have random values."""
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        1,
        3,
        10**30,
        1e308,
        "",
        "\0",
        "é" * 9,
        [],
        {},
        [1],
        "x",
    ]
    fields = ["text", "nbest", "map", "stream", "beam", "sample", "seed", "top_k", "length_penalty"]
    body: dict[str, Any] = {"text": chance.choice(sentences), "beam": 1}
    for _ in range(chance.randrange(3)):
        body[chance.choice([*fields, "unknown"])] = chance.choice(values)
    text = bytearray(json.dumps(body).encode())
    for _ in range(chance.choice([0, 0, 1, 5])):
        place = chance.randrange(len(text))
        text[place : place + chance.randrange(3)] = bytes([chance.randrange(256)])
    return bytes(text)


def megabytes(process: int) -> int:
    """The memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1]) // 1024


def soak_page(options: Options, run: Path) -> None:
    """Asks much of a page; raises InputError where an answer is wrong."""
    chance = random.Random(options.seed)
    sentences = list(runs.load(run).held_out.src)[:20]
    with (
        page(run, options.clients) as (host, port, process),
        ThreadPoolExecutor(options.clients) as pool,
    ):
        bodies = [json.dumps({"text": s, "beam": 1}).encode() for s in sentences]
        expected = {body: ask(host, port, body) for body in bodies}
        if any(status != 200 for status, _ in expected.values()):
            raise InputError(f"the page does not translate: {expected}")
        many = [chance.choice(bodies) for _ in range(10 * options.clients)]
        start = time.perf_counter()
        answers = list(pool.map(lambda body: ask(host, port, body), many))
        seconds = time.perf_counter() - start
        right = sum(expected[b] == answer for b, answer in zip(many, answers, strict=True))
        print(f"{options.clients} clients: {right} of {len(many)} right in {seconds:.1f} s")
        before = megabytes(process)
        fuzzed = [damaged(chance, sentences) for _ in range(options.requests)]
        statuses: Counter[int] = Counter()
        for i in range(0, len(fuzzed), 1000):
            found = pool.map(lambda body: ask(host, port, body), fuzzed[i : i + 1000])
            statuses += Counter(status for status, _ in found)
            print(f"{i + 1000} requests: {megabytes(process)} MB", flush=True)
        print(f"{dict(statuses)}; memory {before} MB before, {megabytes(process)} after")
        again = ask(host, port, bodies[0])
    wrong = [s for s in statuses if s != 200 and s != 503 and not 400 <= s < 500]
    if wrong or right < len(many) or again != expected[bodies[0]]:
        raise InputError(f"wrong answers: statuses {wrong}, {len(many) - right} of many clients")


def main(options: Options) -> None:
    """Tries, and prints what came of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_corpus(folder)
        if options.kills:
            outcome = soak_training(options, folder)
            print(
                f"{outcome.kills} kills in {outcome.starts} sessions that had begun; "
                f"{outcome.ends} runs ended as the unbroken one, to the bit"
            )
        if options.requests:
            run = folder / "reference"
            if not run.exists():
                with training(run, options) as processes:
                    processes[0].wait()
            soak_page(options, run)


if __name__ == "__main__":
    with as_command("soak.py"):
        main(tyro.cli(Options, description=__doc__))
