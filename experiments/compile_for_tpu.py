"""What would training and search need on a TPU that is not here?

    pip install -e '.[tpu]'
    python -m experiments.compile_for_tpu --layouts 1x1 4x1 2x2
    python -m experiments.compile_for_tpu --model attention --chip v6e --batch-tokens 25000

libtpu, the compiler of TPUs, runs on any machine. This script compiles the training step and a
beam search of a preset for chips that it describes to the compiler, and prints for each layout what
the compiler says: the memory that each chip needs, FLOPs and bytes of traffic of a step, how much
of that is with the main memory and not on the chip, the time that FLOPs and main memory alone would
take, its own estimate of cycles, the collectives by kind, the CPU seconds of all cores that
compiling took, and with `--largest` the largest arrays.
Nothing runs, so no time is measured. XLA counts the body of a loop once; FLOPs and traffic here are
those of all turns, see `experiments.hlo`, but not those of a search, whose turns are not known: its
numbers are those of about one step for each size of its cache.

Sentences are all equally long. Commands, duration and results are in `experiments/README.md`.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from encdec.cli.main import as_command
from encdec.config import SearchOptions, TrainingConfig
from encdec.config.presets import preset
from encdec.inference.decoding import Model, Shared
from encdec.models import registry
from encdec.models.interface import EncoderDecoder
from encdec.parallel import sharding
from encdec.parallel.layout import Layout
from encdec.parallel.pmap import compile_step, parallelize
from encdec.search.loop import unroll
from encdec.search.methods import Sentences, split
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.types import Array, Batch, InputError, Precision, SpecialIds
from experiments.hlo import array_bytes, estimated_cycles, loop_factors, main_memory_bytes
from experiments.scaling import count_collectives


class Chip(NamedTuple):
    """A chip as its maker describes it.

    Attributes:
      topology: of four chips of one host, in the compiler's words.
      accelerator: the name that libtpu has for such a host.
      flops: bfloat16 FLOP/s.
      bandwidth: bytes/s of its memory.
      memory: bytes.
    """

    topology: str
    accelerator: str
    flops: float
    bandwidth: float
    memory: int


CHIPS = {
    "v4": Chip("v4:2x2x1", "v4-8", 275e12, 1228e9, 32 * 2**30),
    "v5e": Chip("v5e:2x2", "v5litepod-4", 197e12, 819e9, 16 * 2**30),
    "v5p": Chip("v5p:2x2x1", "v5p-8", 459e12, 2765e9, 95 * 2**30),
    "v6e": Chip("v6e:2x2", "v6e-4", 918e12, 1640e9, 32 * 2**30),
}
"""From https://cloud.google.com/tpu/docs/system-architecture-tpu-vm."""


@dataclass(frozen=True)
class Options:
    """The workload, and the chips to compile for."""

    chip: str = "v5e"
    """Kind of the chips."""
    layouts: tuple[str, ...] = ("1x1",)
    """Layouts of at most four chips; a z at the end shards the optimizer."""
    model: str = "transformer"
    """Family of the model."""
    preset: Literal["tiny", "base", "big"] = "base"
    """Sizes of the model."""
    programs: tuple[Literal["training", "search"], ...] = ("training", "search")
    """What to compile."""
    precision: Precision = "bfloat16"
    """What matrix products multiply."""
    batch_tokens: int = 24576
    """Source or target tokens of a batch of training, of all chips together."""
    length: int = 64
    """Source tokens of a sentence, and target tokens."""
    sentences: int = 256
    """Sentences of a search, of all chips together."""
    beam: int = 5
    """Beam of the search."""
    vocabulary: int = 32000
    """Tokens of the joint vocabulary."""
    remat: bool = False
    """Compute layers again in the backward pass."""
    scan: bool = False
    """Compile the layers of a Transformer as a loop, as programs for a TPU have more than six."""
    largest: int = 0
    """How many of the largest temporary arrays to list."""


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      program, layout: what was compiled, and for which layout.
      memory: bytes that each chip needs, arguments and results included.
      temporary: those of them that are neither.
      flops, traffic: FLOPs of a chip, and bytes that it reads and writes, of a run of the program.
      main: bytes that go to or from the main memory.
      cycles: the compiler's own estimates for fusions, added up; 0 where it has none.
      collectives: by kind.
      seconds: of compilation, of all cores together.
      largest: the largest temporary arrays, as text.
    """

    program: str
    layout: str
    memory: int
    temporary: int
    flops: float
    traffic: float
    main: float
    cycles: int
    collectives: dict[str, int]
    seconds: float
    largest: tuple[str, ...]


def topology(options: Options) -> tuple[Any, ...]:
    """Descriptions of four chips.

    libtpu reads its environment once, so a process can ask for one kind only.

    Raises:
      InputError: there is no such chip, or no compiler.
    """
    if options.chip not in CHIPS:
        raise InputError(f"--chip {options.chip} is not known: one of {', '.join(CHIPS)}")
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise InputError("libtpu is missing: pip install 'encdec[tpu]'") from None
    chip = CHIPS[options.chip]
    jax.config.update("jax_platforms", "cpu")  # JAX would look for a TPU
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": chip.accelerator,
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology)
    except Exception as error:  # the compiler's own kinds differ by release
        raise InputError(
            f"libtpu cannot compile for {options.chip} ({chip.topology}): {_one_line(error)}"
        ) from None
    return tuple(described.devices)


def _one_line(error: Exception) -> str:
    """The first line of a message of the compiler's, which often go on for pages."""
    return str(error).strip().split("\n")[0]


def check(options: Options) -> None:
    """Raises InputError for layouts that do not fit four chips, the model or the batch."""
    for name in ("batch_tokens", "length", "sentences", "beam", "vocabulary"):
        if getattr(options, name) < 1:
            raise InputError(f"{name} = {getattr(options, name)} must be at least 1")
    for text in options.layouts:
        layout = _layout(text)
        if layout.size > 4:
            raise InputError(f"--layouts {text} needs {layout.size} chips: four are described")
        layout.check_model(preset(options.preset, options.model).model)
        if options.batch_tokens < layout.data * options.length:
            raise InputError(
                f"batch_tokens = {options.batch_tokens} are too few for {layout.data} data shards "
                f"of sentences of {options.length} tokens"
            )
        if options.sentences < layout.data:
            raise InputError(
                f"sentences = {options.sentences} are too few for {layout.data} data shards"
            )


def _layout(text: str, chips: Sequence[Any] = ()) -> Layout:
    """The layout `2x2`, or `2x2z` with a sharded optimizer, of the first chips."""
    if not re.fullmatch("[1-9]x[1-9]z?", text):
        raise InputError(f"--layouts {text} is not DATAxMODEL, such as 2x2")
    data, model = (int(n) for n in text.removesuffix("z").split("x"))
    return Layout(data, model, text.endswith("z"), tuple(chips[: data * model]))


def measure(options: Options, text: str, program: str, chips: Sequence[Any]) -> Row:
    """Compiles a program for one layout."""
    layout = _layout(text, chips)
    # Seconds of CPU time do not depend on what else the machine does.
    start = time.process_time()
    try:
        compiled, needed = (_training if program == "training" else _search)(options, layout)
    except jax.errors.JaxRuntimeError as error:  # such as one that is far too large for the chip
        raise InputError(f"{program} {text}: {_one_line(error)}") from None
    seconds = time.process_time() - start
    costs, hlo = compiled.cost_analysis(), compiled.as_text()
    loops = loop_factors(hlo)
    return Row(
        program=program,
        layout=text,
        memory=needed or 0,
        temporary=compiled.memory_analysis().temp_size_in_bytes,
        flops=costs.get("flops", 0.0) * loops.flops,
        traffic=costs.get("bytes accessed", 0.0) * loops.traffic,
        main=main_memory_bytes(hlo),
        cycles=estimated_cycles(hlo),
        collectives=count_collectives(compiled),
        seconds=seconds,
        largest=largest_arrays(hlo, options.largest),
    )


def _training(options: Options, layout: Layout) -> tuple[Any, int | None]:
    """The training step of a batch, compiled, and the bytes that each chip needs."""
    training = TrainingConfig()
    full_model, model_shard = (_model(options, axes.model) for axes in (Layout().axes, layout.axes))
    states = StateSharding(full_model, model_shard, optimizer(training), training, layout)
    rows, length = options.batch_tokens // options.length // layout.data, options.length
    batch = Batch(
        src=jax.ShapeDtypeStruct((rows, length), jnp.int32),
        src_mask=jax.ShapeDtypeStruct((rows, length), bool),
        tgt=jax.ShapeDtypeStruct((rows, length + 1), jnp.int32),
        tgt_mask=jax.ShapeDtypeStruct((rows, length), bool),
    )
    key = _placed(jax.eval_shape(lambda: jax.random.key(0)), layout, shared=True)
    state = _placed(states.shard_shapes, layout)
    return states.compiled(state, _placed(batch, layout), key)


def _search(options: Options, layout: Layout) -> tuple[Any, int | None]:
    """A beam search, from encoding to the n-best lists, and the bytes that each chip needs."""
    rows, length = options.sentences // layout.data, options.length
    static, arrays = split(SearchOptions(beam=options.beam), SpecialIds(), max_len=length)
    model = Model((_model(options, layout.axes.model),), "probabilities")

    def search(params: Any, src: Array, src_mask: Array, sentences: Sentences) -> Any:
        memory = model.encode((params,), ((src, src_mask),))
        shared = Shared(arrays, jnp.ones(1))
        return unroll(model.search((params,), memory, sentences, shared, static))

    whole = _model(options, None)
    specs = sharding.shard_specs(registry.abstract(whole), registry.split_axes(whole), layout)
    params = sharding.shard_shapes(registry.abstract(whole), specs, layout)
    inputs = (
        jax.ShapeDtypeStruct((rows, length), jnp.int32),
        jax.ShapeDtypeStruct((rows, length), bool),
        Sentences(
            jax.ShapeDtypeStruct((rows,), jnp.int32),
            jax.ShapeDtypeStruct((rows,), jnp.uint32),
            jax.ShapeDtypeStruct((rows, 0), jnp.int32),
        ),
    )
    step = parallelize(search, layout, (True,) * 4)
    return compile_step(step, *_placed((params, *inputs), layout))


def _model(options: Options, shards: Any) -> EncoderDecoder:
    """The model of the preset, as a device has it of which there are so many."""
    return registry.build(
        preset(options.preset, options.model).model,
        options.vocabulary,
        options.vocabulary,
        joint=True,
        shards=shards,
        remat=options.remat,
        scan=options.scan,
        precision=options.precision,
    )


def _placed(shapes: Any, layout: Layout, *, shared: bool = False) -> Any:
    """Shapes of one device's arrays as those that a step of this layout takes.

    Args:
      shapes: a pytree.
      layout: the chips.
      shared: all chips get the same arrays, without an axis of devices.
    """
    if layout.size > 1:
        if shared:
            return shapes
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((layout.size, *x.shape), x.dtype), shapes
        )
    here = SingleDeviceSharding(layout.devices[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)


def largest_arrays(hlo: str, count: int) -> tuple[str, ...]:
    """The largest arrays that instructions of a program make, such as `f32[64,32000]`."""
    shapes = set(re.findall(r"= ([a-z]+\d*\[[\d,]+\])", hlo))
    return tuple(sorted(shapes, key=array_bytes, reverse=True)[:count])


def table(rows: Sequence[Row], chip: Chip) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| program | layout | GiB per chip | of them temporary | TFLOP | GB of traffic | "
        "of main memory | ms for FLOPs | ms for main memory | million cycles | all-reduce | "
        "reduce-scatter | all-gather | CPU s of compilation |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = " | ".join(map(str, row.collectives.values()))
        fits = "" if row.memory <= chip.memory else " (too much)"
        lines.append(
            f"| {row.program} | {row.layout} | {row.memory / 2**30:.2f}{fits} | "
            f"{row.temporary / 2**30:.2f} | {row.flops / 1e12:.2f} | {row.traffic / 1e9:.1f} | "
            f"{row.main / 1e9:.1f} | {1e3 * row.flops / chip.flops:.1f} | "
            f"{1e3 * row.main / chip.bandwidth:.1f} | {row.cycles / 1e6:.1f} | "
            f"{counts} | {row.seconds:.0f} |"
        )
    return "\n".join(lines)


def main(options: Options) -> None:
    """Prints the table, and the largest arrays."""
    check(options)
    chips = topology(options)
    rows = []
    for program in options.programs:
        for text in options.layouts:
            rows.append(measure(options, text, program, chips))
            for array in rows[-1].largest:
                print(f"{program} {text}: {array} {array_bytes(array) / 2**30:.2f} GiB", flush=True)
    print(f"{options.model} {options.preset}, {options.precision}, {chips[0].device_kind}")
    print(table(rows, CHIPS[options.chip]))


if __name__ == "__main__":
    with as_command("compile_for_tpu.py"):
        main(tyro.cli(Options, description=__doc__))
