"""Whole arrays to devices and back, where nothing divides."""

import numpy as np
import pytest

from encdec.parallel import collectives, pmap, sharding
from encdec.parallel.layout import Layout

SHAPES = {"a": (5, 7, 3), "b": (7,), "c": (4, 6), "d": (), "e": (3, 5)}
AXES = {"a": 1, "b": 0, "c": -1, "d": -1, "e": 0}


def arrays() -> dict[str, np.ndarray]:
    return {n: np.random.default_rng(len(s)).normal(size=s) for n, s in SHAPES.items()}


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("layout", [Layout(4), Layout(1, 4), Layout(2, 2), Layout(3)], ids=str)
def test_back_and_forth(layout: Layout, sliced: bool) -> None:
    made = {name: x.astype(np.float32) for name, x in arrays().items()}
    how = sharding.shard_specs(made, AXES, layout, over_data=sliced)
    placed = sharding.shard(made, how, layout)
    for name, x in placed.items():
        assert x.shape[0] == layout.size
        held = np.prod(x.shape[1:], dtype=int)
        assert held <= made[name].size
        if AXES[name] >= 0 and layout.model > 1:
            assert held < made[name].size
    back = sharding.gather(placed, how, layout)
    for name, x in made.items():
        np.testing.assert_array_equal(back[name], x)


def test_rows_fall_evenly_and_come_back_in_order() -> None:
    layout = Layout(2, 2)
    rows = np.arange(10).reshape(5, 2)
    padded = np.pad(rows, [(0, sharding.padded_batch_size(5, layout) - 5), (0, 0)])
    placed = sharding.shard_batch(padded, layout)
    assert placed.shape == (4, 3, 2)
    np.testing.assert_array_equal(placed[0], placed[1])  # model parts see the same
    found = pmap.parallelize(lambda x: x + 1, layout, (True,))(placed)
    np.testing.assert_array_equal(sharding.gather_batch(found, layout)[:5], rows + 1)
    assert sharding.gather_batch_by_model(found, layout).shape == (2, 6, 2)


def test_slices_are_cut_where_they_divide() -> None:
    assert collectives.shard_axis((5, 6, 3), 3) == 1
    assert collectives.shard_axis((5, 7, 3), 4) == 1  # nothing divides: the longest
    assert collectives.shard_axis((8,), 4) == 0
