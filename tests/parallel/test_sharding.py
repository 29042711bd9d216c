"""Arrays are sharded and gathered again, also where their axes do not divide."""

import numpy as np
import pytest

from encdec.parallel import collectives, pmap, sharding
from encdec.parallel.layout import Layout

SHAPES = {"a": (5, 7, 3), "b": (7,), "c": (4, 6), "d": (), "e": (3, 5)}
AXES = {"a": 1, "b": 0, "c": -1, "d": -1, "e": 0}


def arrays() -> dict[str, np.ndarray]:
    return {n: np.random.default_rng(len(s)).normal(size=s) for n, s in SHAPES.items()}


@pytest.mark.parametrize("over_data", [False, True])
@pytest.mark.parametrize("layout", [Layout(4), Layout(1, 4), Layout(2, 2), Layout(3)], ids=str)
def test_gather_inverts_shard(layout: Layout, over_data: bool) -> None:
    whole = {name: x.astype(np.float32) for name, x in arrays().items()}
    specs = sharding.shard_specs(whole, AXES, layout, over_data=over_data)
    sharded = sharding.shard(whole, specs, layout)
    for name, x in sharded.items():
        assert x.shape[0] == layout.size
        held = np.prod(x.shape[1:], dtype=int)
        assert held <= whole[name].size
        if AXES[name] >= 0 and layout.model > 1:
            assert held < whole[name].size
    gathered = sharding.gather(sharded, specs, layout)
    for name, x in whole.items():
        np.testing.assert_array_equal(gathered[name], x)


def test_gather_batch_inverts_shard_batch() -> None:
    layout = Layout(2, 2)
    rows = np.arange(10).reshape(5, 2)
    padded = np.pad(rows, [(0, sharding.padded_batch_size(5, layout) - 5), (0, 0)])
    sharded = sharding.shard_batch(padded, layout)
    assert sharded.shape == (4, 3, 2)
    np.testing.assert_array_equal(sharded[0], sharded[1])  # both model shards get the same rows
    assert sharding.shard_batch(padded[:, :0], layout).shape == (4, 3, 0)  # rows without columns
    result = pmap.parallelize(lambda x: x + 1, layout, (True,))(sharded)
    np.testing.assert_array_equal(sharding.gather_batch(result, layout)[:5], rows + 1)
    assert sharding.gather_batch_by_model(result, layout).shape == (2, 6, 2)


def test_the_axis_to_shard_divides_if_any_does() -> None:
    assert collectives.shard_axis((5, 6, 3), 3) == 1
    assert collectives.shard_axis((5, 7, 3), 4) == 1  # none divides: the longest
    assert collectives.shard_axis((8,), 4) == 0
