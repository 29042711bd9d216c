"""How fast does a run decode real sentences, compared with another engine that has its weights?

    pip install "encdec[ctranslate2]"   # without it only encdec is timed
    python -m experiments.decode_speed runs/en-de --source test.en
    python -m experiments.decode_speed runs/en-de --source test.en --sizes base
    python -m experiments.decode_speed runs/en-de --source test.en --weights int8
    pip install "encdec[peers]"         # with PyTorch and the hub library
    python -m experiments.decode_speed runs/en-de --source test.en --peer transformers

With `--sizes` a small Transformer is timed at the sizes of a preset, where it computes the same
function: translations, and so their lengths, are the same (`experiments/enlarge.py`).

The run is exported to the peer's format where that can hold it. Both engines search the same
sentences under the same rules, in float32, or with 8-bit weights, which they round differently.
Scores are means over tokens, the first finished hypotheses end a search, translations have the same
longest length. After one call each they run in turn; figures are medians. A peer is timed with
several settings, and its best counts. CTranslate2 gets tokens, so it is spared the work of making
them; the hub library's `generate` gets text.

The first call of encdec compiles its programs, or loads those that the cache of compiled programs
has: with XDG_CACHE_HOME at an empty folder it is what a new machine waits.

The machine must be idle. Results, with devices and dates, stand in `experiments/README.md`.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.files import cache_folder
from encdec.interop.export import export_run
from encdec.parallel.devices import core_count, keep_compiled_programs
from encdec.runs import run as runs
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.parameters import best_params
from encdec.types import InputError, Weights
from experiments.enlarge import enlarge

Found = list[list[tuple[list[str], float | None]]]
"""For each sentence, its hypotheses, best first: tokens without the end token, and the score."""
Calls = dict[str, Callable[[], Found]]
"""A peer's search of all sentences, by what its setting is."""


@dataclass(frozen=True)
class Options:
    """The run, and what it translates."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    source: Path
    """A sentence in each line."""
    peer: Literal["ctranslate2", "transformers"] = "ctranslate2"
    """The other engine; the hub library has no format for what `sizes` makes."""
    sizes: str | None = None
    """Preset whose sizes the Transformer is enlarged to; None for its own."""
    weights: Weights = "float32"
    """Of both engines; int8 only with CTranslate2."""
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


def ctranslate2_calls(folder: Path, sources: list[list[str]], options: Options, beam: int) -> Calls:
    """With threads that share a batch or have one each, and batches of two sizes."""
    import ctranslate2

    def call(translator: Any, batch: int) -> Found:
        found = translator.translate_batch(
            sources,
            beam_size=beam,
            num_hypotheses=beam,
            length_penalty=1.0,
            max_decoding_length=options.max_tokens,
            min_decoding_length=0,
            return_scores=True,
            max_batch_size=batch,
        )
        return [list(zip(one.hypotheses, one.scores, strict=True)) for one in found]

    calls: Calls = {}
    for threads in sorted({1, core_count()}):
        translator = ctranslate2.Translator(
            str(folder),
            device="cpu",
            compute_type=options.weights,
            inter_threads=max(core_count() // threads, 1),
            intra_threads=threads,
        )
        for batch in (32, 64):
            calls[f"{threads} threads, batch {batch}"] = partial(call, translator, batch)
    return calls


def transformers_calls(folder: Path, texts: list[str], options: Options, beam: int) -> Calls:
    """With batches of three sizes, of sentences of about one length."""
    import torch
    import transformers

    torch.set_num_threads(core_count())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    marks = set(tokenizer.all_special_tokens)

    def call(batch: int) -> Found:
        lengths = [len(ids) for ids in tokenizer(texts).input_ids]
        order = sorted(range(len(texts)), key=lambda i: -lengths[i])
        found: Found = [[] for _ in texts]
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            inputs = tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True)
            with torch.inference_mode():
                out = model.generate(
                    **inputs,
                    num_beams=beam,
                    num_return_sequences=beam,
                    early_stopping=beam > 1,
                    length_penalty=1.0,
                    max_length=None,
                    max_new_tokens=options.max_tokens,
                )
            for place, ids in enumerate(out.tolist()):
                tokens = [x for x in tokenizer.convert_ids_to_tokens(ids) if x not in marks]
                found[rows[place // beam]].append((tokens, None))
        return found

    return {f"batch {batch}": partial(call, batch) for batch in (32, 64, 128)}


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
    if options.weights != "float32" and options.peer != "ctranslate2":
        raise InputError(f"--weights {options.weights} needs --peer ctranslate2")
    keep_compiled_programs(cache_folder())
    texts = [line for line in options.source.read_text().splitlines() if line.strip()]
    print(f"{len(texts)} sentences, {core_count()} cores, jax {jax.__version__}")
    with tempfile.TemporaryDirectory() as name:
        run, folder = options.run, Path(name) / "peer"
        if options.sizes:
            run = enlarged(run, options.sizes, Path(name) / "run")
        translator = encdec.load(run, weights=options.weights)
        has_peer = importlib.util.find_spec(options.peer) is not None
        if has_peer:
            try:
                export_run(run, folder, options.peer)
            except InputError as error:
                print(f"encdec alone: {error}")
                has_peer = False
        for beam in options.beams:
            search = rules(options, beam)

            def ours(search: encdec.SearchOptions = search) -> Any:
                return translator.nbest(
                    texts, search.beam, search, max_batch_tokens=options.max_batch_tokens
                )

            start = time.perf_counter()
            found = ours()
            first = time.perf_counter() - start
            calls: Calls = {}
            if has_peer and options.peer == "ctranslate2":  # which adds the end token itself
                sources = [best[0].src_tokens[:-1] for best in found]
                calls = ctranslate2_calls(folder, sources, options, beam)
            elif has_peer:
                calls = transformers_calls(folder, texts, options, beam)
            seconds, *theirs = in_turn([ours, *calls.values()], options.repeats)
            line = f"beam {beam}: encdec {len(texts) / seconds:.1f} sentences/s"
            line += f" (first call {first:.1f} s)"
            if calls:
                fastest, setting = min(zip(theirs, calls, strict=True))
                line += (
                    f", {options.peer} {len(texts) / fastest:.1f} with {setting}: ratio "
                    f"{fastest / seconds:.2f}; {agreement(found, calls[setting]())}"
                )
            print(line, flush=True)


def agreement(found: list[list[encdec.Translation]], theirs: Found) -> str:
    """How many sentences have the same best hypothesis, the same n-best list, and how near scores
    of the same hypotheses are."""
    best = lists = 0
    largest: float | None = None
    for ours, peer in zip(found, theirs, strict=True):
        tokens = [[x for x in one.tgt_tokens if x != "</s>"] for one in ours]
        lists += tokens == [tokens for tokens, _ in peer]
        first, score = peer[0]
        if tokens[0] == first:
            best += 1
            if score is not None:
                largest = max(largest or 0, abs(ours[0].score - score))
    line = f"same best {best}, same {len(found[0])}-best {lists} of {len(found)}"
    return line if largest is None else f"{line}, scores differ by {largest:.1e} nats at most"


if __name__ == "__main__":
    with as_command("decode_speed.py", trains=False):
        main(tyro.cli(Options, description=__doc__))
