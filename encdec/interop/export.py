"""A run made into files that others can use without this package.

    model.safetensors   the weights, float32, under the names of config.json's model
    config.json         settings of the run, and `extra_length`
    source.vocab        the vocabularies as the run has them
    target.vocab
    greedy.stablehlo    src int32 [b, S] -> tokens int32 [b, T], lengths int32 [b]; weights inside

The program is for any batch b and one length S: each row holds tokens, EOS, then PAD (0). With JAX
alone: `import jax.export`, then `jax.export.deserialize(bytearray(data)).call(src)`.
"""

import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export
from safetensors.numpy import save_file

from encdec.files import atomic_folder
from encdec.inference.decoding import max_target_lengths, search
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.parameters import best_params, build_model
from encdec.runs.run import Run
from encdec.search.options import SearchOptions
from encdec.types import Array, InputError, Params

PLATFORMS = ("cpu", "cuda", "tpu")
"""What the program can run on."""


def greedy_program(run: Run, params: Params, source_length: int) -> export.Exported:
    """The greedy search of a run with these parameters, for sources of one length.

    It takes src int32 [b, source_length] and gives tokens int32 [b, T], EOS and then PAD at the
    end, and lengths int32 [b], EOS among them.
    """
    options = SearchOptions(beam=1)
    max_len = int(source_length * options.max_ratio) + run.extra_length
    find = partial(
        search,
        model=build_model(run),
        dtype=jnp.float32,
        max_len=max_len,
        beam=1,
        method="greedy",
        top_k=0,
        with_attention=False,
    )

    def program(src: Array) -> tuple[Array, Array]:
        src_mask = src != run.src_vocabulary.specials.pad
        lengths = src_mask.sum(1, dtype=jnp.int32)
        max_lengths = max_target_lengths(lengths, options.max_ratio, run.extra_length)
        knobs = {"alpha": jnp.float32(options.length_penalty)}
        # The last but one argument places sentences among others, which only sampling asks for.
        found = find(params, src, src_mask, max_lengths, lengths, knobs)
        return found.tokens[:, 0], found.lengths[:, 0]

    (batch,) = export.symbolic_shape("b")
    src = jax.ShapeDtypeStruct((batch, source_length), jnp.int32)
    return export.export(jax.jit(program), platforms=PLATFORMS)(src)


def export_run(path: Path, out: Path, source_length: int) -> list[Path]:
    """Writes the files above; nothing is left if one cannot be written.

    Args:
      path: the run folder.
      out: a folder that does not exist yet.
      source_length: S, tokens with EOS.

    Returns:
      The files.

    Raises:
      InputError: no run, no checkpoint, or a folder that is there already.
    """
    if out.exists():
        raise InputError(f"{out} is there already: name a folder that is not")
    run = runs.load(path)
    params, _ = best_params(run)
    program = greedy_program(run, jax.tree.map(jnp.asarray, params), source_length)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(out) as folder:
            save_file(checkpoints.flat(params), folder / "model.safetensors")
            for name in ("config.json", "source.vocab", "target.vocab"):
                shutil.copyfile(run.path / name, folder / name)
            (folder / "greedy.stablehlo").write_bytes(program.serialize())
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    return sorted(out.iterdir())
