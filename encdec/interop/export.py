"""A run made into files that others can use without this package.

    model.safetensors   the parameters, float32, by their names in the Linen module
    config.json         settings of the run, and `extra_length`
    source.vocab        the vocabularies of the run
    target.vocab
    greedy.stablehlo    src int32 [B, S] -> tokens int32 [B, T], lengths int32 [B]

The vocabularies say how text becomes token ids (see `encdec.data.vocabulary`). For characters and
words, token i of `table` has the id 4 + i; byte b has the id 4 + b; SentencePiece has the ids of
its own model. In all of them padding is 0, start 1, end 2 and unknown 3.

The program contains the parameters. It is for any number of rows B and one length S: each row of
src holds the tokens of a sentence, the end token, then padding. It needs JAX and nothing else:
`import jax.export`, then `jax.export.deserialize(bytearray(data)).call(src)`.
"""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export
from safetensors.numpy import save_file

from encdec.config.search import SearchOptions
from encdec.files import atomic_folder
from encdec.inference.decoding import max_target_lengths, search
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.parameters import best_params, build_model
from encdec.runs.run import Run
from encdec.search.methods import Sentences, split
from encdec.types import Array, InputError, Params

PLATFORMS = ("cpu", "cuda", "tpu")
"""The backends that the program can run on."""


def greedy_program(run: Run, params: Params, source_length: int) -> export.Exported:
    """The greedy search of a run with these parameters, for sources of one length.

    It maps src int32 [B, source_length] to tokens int32 [B, T], each row the tokens of a
    translation, the end token, then padding, and to lengths int32 [B], end tokens included.
    """
    options = SearchOptions(beam=1)
    max_len = int(source_length * options.max_ratio) + run.extra_length
    static, arrays = split(options, run.tgt_vocabulary.specials, max_len=max_len)
    model, weights = build_model(run), jnp.ones(1)  # an ensemble of one

    def program(src: Array) -> tuple[Array, Array]:
        src_mask = src != run.src_vocabulary.specials.pad
        lengths = src_mask.sum(1, dtype=jnp.int32)
        max_lengths = max_target_lengths(lengths, options.max_ratio, run.extra_length)
        no_prefix = jnp.zeros((src.shape[0], 0), jnp.int32)
        sentences = Sentences(max_lengths, lengths, no_prefix)  # only sampling reads example ids
        result = search(
            (params,),
            ((src, src_mask),),
            sentences,
            arrays,
            weights,
            models=(model,),
            dtype=jnp.float32,
            static=static,
            mean="probabilities",
        )
        return result.tokens[:, 0], result.lengths[:, 0]

    (batch,) = export.symbolic_shape("b")
    src = jax.ShapeDtypeStruct((batch, source_length), jnp.int32)
    return export.export(jax.jit(program), platforms=PLATFORMS)(src)


def export_run(path: Path, out: Path, source_length: int) -> list[Path]:
    """Writes the files that the head of this module lists, or nothing if one cannot be written.

    Args:
      path: the run folder.
      out: a folder that does not exist yet.
      source_length: S in tokens, the end token included.

    Returns:
      The files.

    Raises:
      InputError: there is no run or no checkpoint, or the folder `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} is there already: name a folder that does not exist yet")
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
