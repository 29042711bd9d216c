"""The costs of a program by its text, against XLA's own count and by hand."""

import jax
import jax.numpy as jnp
import pytest

from experiments.hlo import (
    array_bytes,
    costs,
    estimated_cycles,
    loop_factors,
    main_memory_bytes,
    parse,
)

N = 64


def program(turns: int) -> tuple[str, float]:
    """A loop of so many turns, and the bytes that XLA counts for it."""

    def run(x: jax.Array, stacked: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, y: (jnp.sin(x) + y, None), x, stacked)[0]

    shapes = jax.ShapeDtypeStruct((N, N), "float32"), jax.ShapeDtypeStruct((turns, N, N), "float32")
    compiled = jax.jit(run).lower(*shapes).compile()
    return compiled.as_text(), compiled.cost_analysis()["bytes accessed"]


def test_the_body_of_a_loop_counts_once_for_each_turn(full_optimization: None) -> None:
    text, counted = program(7)
    once = sum(cost.traffic for cost in costs(parse(text)))
    assert once == pytest.approx(counted, rel=0.25)
    body = 3 * 4 * N * N  # reads x and one slice, writes x
    assert once * (loop_factors(text).traffic - 1) == pytest.approx(6 * body, rel=0.05)


# As a TPU's compiler writes it: a product is a convolution, and a condition says how often.
LOOP = """\
%body (a: (s32[], f32[8,16]{1,0}, f32[16,32]{1,0})) -> (s32[], f32[8,16]{1,0}, f32[16,32]{1,0}) {
  %a = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, f32[16,32]{1,0}) parameter(0)
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%a), index=1
  %w = f32[16,32]{1,0} get-tuple-element(%a), index=2
  %y = f32[8,32]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
}

%condition (b: (s32[], f32[8,16]{1,0}, f32[16,32]{1,0})) -> pred[] {
  %limit = s32[]{:T(128)} constant(6)
  %b = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, f32[16,32]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%b), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (p: (s32[], f32[8,16], f32[16,32])) -> (s32[], f32[8,16], f32[16,32]) {
  %p = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, f32[16,32]{1,0}) parameter(0)
  ROOT %while = (s32[]{:T(128)}, f32[8,16]{1,0}, f32[16,32]{1,0}) while(%p), condition=%condition, body=%body
}
"""  # noqa: E501


def test_a_loop_of_a_tpu() -> None:
    [cost] = costs(parse(LOOP))
    traffic, flops = 4 * (8 * 16 + 16 * 32 + 8 * 32), 2 * 8 * 16 * 32
    assert (cost.traffic, cost.flops, cost.times) == (traffic, flops, 6)
    assert loop_factors(LOOP) == (6, 6)


# Half of the rows are copied to the memory on the chip, S(1), and added to others elsewhere.
COPIED = """\
ENTRY %main (p: bf16[8,16], q: f32[4,16]) -> f32[4,16] {
  %p = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %q = f32[4,16]{1,0:T(8,128)} parameter(1)
  %start = ((bf16[8,16]{1,0:T(8,128)(2,1)}), bf16[4,16]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:4], [0:16]}
  %done = bf16[4,16]{1,0:T(8,128)(2,1)S(1)} slice-done(%start)
  %wide = f32[4,16]{1,0:T(8,128)S(1)} convert(%done)
  ROOT %sum = f32[4,16]{1,0:T(8,128)} add(%wide, %q)
}
"""  # noqa: E501


def test_what_stays_on_the_chip_is_no_traffic_of_the_main_memory() -> None:
    half, whole = 2 * 4 * 16, 4 * 4 * 16
    assert main_memory_bytes(COPIED) == half + 2 * whole  # the copied rows, q, and the sum
    assert sum(cost.traffic for cost in costs(parse(COPIED))) == 3 * half + 4 * whole
    assert main_memory_bytes(LOOP) == 6 * 4 * (8 * 16 + 16 * 32 + 8 * 32)


def test_estimates_count_in_every_turn() -> None:
    noted = ', backend_config={"estimated_cycles":"120"}'
    assert (
        estimated_cycles(LOOP.replace("dim_labels=bf_io->bf", f"dim_labels=bf_io->bf{noted}"))
        == 720
    )
    assert estimated_cycles(COPIED) == 0


def test_bytes_of_a_type() -> None:
    assert array_bytes("(f32[64,32000]{1,0:T(8,128)}, bf16[3], pred[], s32[2]{0})") == (
        4 * 64 * 32000 + 6 + 1 + 8
    )
