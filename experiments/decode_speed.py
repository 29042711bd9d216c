"""How fast does a run decode real sentences, beside CTranslate2 with the same weights?

    pip install "encdec[ctranslate2]"   # without it only encdec is timed
    python -m experiments.decode_speed runs/en-de --source test.en
    python -m experiments.decode_speed runs/en-de --source test.en --sizes base

With `--sizes` a small Transformer is timed at the sizes of a preset, where it computes the same
function: translations, and so their lengths, are the same (`experiments/enlarge.py`).

The run is exported to CTranslate2's format where that can hold it. Both engines search the same
sentences under the same rules, in float32: scores are means over tokens, the first finished
hypotheses end a search, translations have the same longest length. After one call each they run in
turn; figures are medians. CTranslate2 is timed with each of `PEER_SETTINGS`, and its best counts.

The machine must be idle. Results, with devices and dates, stand in `experiments/README.md`.
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro

import encdec
from encdec.files import cache_folder
from encdec.interop.export import export_run
from encdec.parallel.devices import core_count, keep_compiled_programs
from encdec.runs import run as runs
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.parameters import best_params
from encdec.types import InputError
from experiments.enlarge import enlarge

PEER_SETTINGS = [(1, 32), (1, 64), (core_count(), 32), (core_count(), 64)]
"""Threads of a worker, and sentences of a batch; there are as many workers as use all cores."""


@dataclass(frozen=True)
class Options:
    """The run, and what it translates."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    source: Path
    """A sentence in each line."""
    sizes: str | None = None
    """Preset whose sizes the Transformer is enlarged to; None for its own."""
    beams: tuple[int, ...] = (1, 5)
    """Beam widths; 1 is greedy search."""
    max_tokens: int = 60
    """The most tokens of a translation, the end token included."""
    max_batch_tokens: int = 8192
    """Of encdec: the most source tokens in a batch."""
    repeats: int = 5
    """Timed calls of each engine."""


def rules(options: Options, beam: int) -> encdec.SearchOptions:
    """The search that both engines can do."""
    return encdec.SearchOptions(
        beam=beam,
        length_penalty=1.0,
        length_penalty_kind="mean",
        stop="first",
        max_ratio=0,
        max_extra=options.max_tokens,
    )


def in_turn(calls: list[Callable[[], Any]], repeats: int) -> list[float]:
    """The median seconds of each call; all are called once before."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def peer_calls(folder: Path, sources: list[list[str]], options: Options, beam: int) -> list[Any]:
    """CTranslate2's search, with each of its settings."""
    import ctranslate2

    def call(translator: Any, batch: int) -> Any:
        return translator.translate_batch(
            sources,
            beam_size=beam,
            num_hypotheses=beam,
            length_penalty=1.0,
            max_decoding_length=options.max_tokens,
            min_decoding_length=0,
            return_scores=True,
            max_batch_size=batch,
        )

    calls = []
    for threads, batch in dict.fromkeys(PEER_SETTINGS):
        translator = ctranslate2.Translator(
            str(folder),
            device="cpu",
            compute_type="float32",
            inter_threads=max(core_count() // threads, 1),
            intra_threads=threads,
        )
        calls.append(lambda t=translator, b=batch: call(t, b))
    return calls


def enlarged(path: Path, sizes: str, folder: Path) -> Path:
    """Makes a run of the model at other sizes; returns its folder."""
    run = runs.load(path)
    params, _ = best_params(run)
    config: Any = run.config.model
    wanted: Any = encdec.preset(sizes).model
    model, arrays = enlarge(config, jax.device_get(params), wanted)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save("best", 0, {"params": arrays}, {})
        checkpoints.wait()
    runs.create(replace(run, path=folder, config=replace(run.config, model=model)))
    return folder


def main(options: Options) -> None:
    """Prints a line for each beam width."""
    keep_compiled_programs(cache_folder())
    texts = [line for line in options.source.read_text().splitlines() if line.strip()]
    print(f"{len(texts)} sentences, {core_count()} cores, jax {jax.__version__}")
    with tempfile.TemporaryDirectory() as name:
        run, folder = options.run, Path(name) / "peer"
        if options.sizes:
            run = enlarged(run, options.sizes, Path(name) / "run")
        translator = encdec.load(run)
        has_peer = importlib.util.find_spec("ctranslate2") is not None
        if has_peer:
            try:
                export_run(run, folder, "ctranslate2")
            except InputError as error:
                print(f"encdec alone: {error}")
                has_peer = False
        for beam in options.beams:
            search = rules(options, beam)

            def ours(search: encdec.SearchOptions = search) -> Any:
                return translator.nbest(
                    texts, search.beam, search, max_batch_tokens=options.max_batch_tokens
                )

            found = ours()
            sources = [best[0].src_tokens[:-1] for best in found]  # CTranslate2 adds the end itself
            peers = peer_calls(folder, sources, options, beam) if has_peer else []
            seconds, *theirs = in_turn([ours, *peers], options.repeats)
            line = f"beam {beam}: encdec {len(texts) / seconds:.0f} sentences/s"
            if peers:
                fastest = min(theirs)
                line += (
                    f", CTranslate2 {len(texts) / fastest:.0f} with threads, batch "
                    f"{[*dict.fromkeys(PEER_SETTINGS)][theirs.index(fastest)]}: ratio "
                    f"{fastest / seconds:.2f}; {agreement(found, peers[0]())}"
                )
            print(line, flush=True)


def agreement(found: list[list[encdec.Translation]], theirs: list[Any]) -> str:
    """How many sentences have the same best hypothesis, the same n-best list, and how near scores
    of the same hypotheses are."""
    best = lists = 0
    largest = 0.0
    for ours, peer in zip(found, theirs, strict=True):
        tokens = [[x for x in one.tgt_tokens if x != "</s>"] for one in ours]
        lists += tokens == peer.hypotheses
        if tokens[0] == peer.hypotheses[0]:
            best += 1
            largest = max(largest, abs(ours[0].score - peer.scores[0]))
    return (
        f"same best {best}, same {len(found[0])}-best {lists} of {len(found)}, "
        f"scores differ by {largest:.1e} nats at most"
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (InputError, OSError) as error:
        sys.exit(f"decode_speed.py: {error}")
