"""The greedy search of a run as a StableHLO program, which needs JAX and nothing else.

    greedy.stablehlo    src int32 [B, S] -> tokens int32 [B, T], lengths int32 [B]

The program contains the parameters. It is for any number of rows B and one length S: each row of
src holds the tokens of a sentence, the end token, then padding. `import jax.export`, then
`jax.export.deserialize(bytearray(data)).call(src)`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from encdec.inference.decoding import Model, Shared
from encdec.inference.limits import target_limits
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.search.constraints import banned_ids, prefix_ids
from encdec.search.loop import unroll
from encdec.search.methods import Sentences, split
from encdec.search.phrase_texts import PhraseReader
from encdec.search.phrases import PhraseTable, word_edges
from encdec.types import Array, InputError, Params

PLATFORMS = ("cpu", "cuda", "tpu")
"""The backends that the program can run on."""


def greedy_program(run: Run, params: Params, source_length: int) -> export.Exported:
    """The greedy search of a run with these parameters, for sources of one length.

    It maps src int32 [B, source_length] to tokens int32 [B, T], each row the tokens of a
    translation, the end token, then padding, and to lengths int32 [B], end tokens included.
    """
    target = run.tgt_vocabulary
    options = replace(run.config.search, beam=1, beam_groups=1, mbr=0, sample=False)
    longest = run.config.model.longest_sentence
    if longest is not None and source_length > longest:
        raise InputError(
            f"source_length = {source_length} cannot be used: the model has {longest} positions"
        )
    max_len = int(target_limits([run], options, np.array([source_length]))[0])
    never = [PhraseReader(target).automaton("ban", text) for text in options.ban]
    banned = PhraseTable([never]).batch([0], 1)
    ids = banned_ids(options, target)
    static, arrays = split(
        options,
        target.specials,
        max_len=max_len,
        edges=None if banned is None else word_edges(target.surfaces),
        banned=ids,
    )
    prefix = prefix_ids(options.prefix, ids, never, max_len - options.force_end, target)
    first = jnp.array(prefix or (target.before if options.force_first else ()), jnp.int32)
    model = Model((build_model(run),), "probabilities")
    shared = Shared(arrays, jnp.ones(1))

    def program(src: Array) -> tuple[Array, Array]:
        src_mask = src != run.src_vocabulary.specials.pad
        lengths = src_mask.sum(1, dtype=jnp.int32)
        max_lengths = target_limits([run], options, lengths)

        def each(x: Array) -> Array:
            return jnp.broadcast_to(x, (src.shape[0], *x.shape))

        texts = jax.tree.map(lambda x: each(x[0]), banned)
        # Only sampling reads example ids.
        sentences = Sentences(max_lengths, lengths, each(first), texts)
        memory = model.encode((params,), ((src, src_mask),))
        result = unroll(model.search((params,), memory, sentences, shared, static))
        return result.tokens[:, 0], result.lengths[:, 0]

    (batch,) = export.symbolic_shape("b")
    src = jax.ShapeDtypeStruct((batch, source_length), jnp.int32)
    return export.export(jax.jit(program), platforms=PLATFORMS)(src)
