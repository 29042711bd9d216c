"""Checkpoints are restored exactly, and damaged ones are refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.runs import checkpoints
from encdec.runs.checkpoints import Checkpoints
from encdec.types import InputError


def tree(scale: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "params": {"kernel": jnp.float32(scale * rng.normal(size=(64, 48)))},
        "step": jnp.int32(7),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with Checkpoints(tmp_path) as store:
        store.save("latest", 5, tree(2.0), {"best": None})
        store.save("latest", 10, tree(), {"best": 0.5})
    return tmp_path


def shapes(like: Any) -> Any:
    return jax.eval_shape(lambda: like)


def test_the_last_one_is_restored_exactly(saved: Path) -> None:
    restored, note = checkpoints.load(saved, "latest", shapes(tree()))
    assert note == {"best": 0.5}
    jax.tree.map(np.testing.assert_array_equal, restored, tree())
    assert checkpoints.steps(saved, "latest") == [10]
    assert checkpoints.steps(saved, "best") == []


def test_only_parameters_can_be_read(saved: Path) -> None:
    restored, _ = checkpoints.load(saved, "latest", shapes({"params": tree()["params"]}))
    np.testing.assert_array_equal(restored["params"]["kernel"], tree()["params"]["kernel"])


def test_a_kill_in_mid_save_leaves_the_one_before(saved: Path) -> None:
    unfinished = saved / "checkpoints" / "latest" / "15.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "half").write_text("of it")
    assert checkpoints.load(saved, "latest", shapes(tree()))[1] == {"best": 0.5}
    with Checkpoints(saved) as store:
        assert store.has("latest", 10)
        assert not store.has("latest", 15)


def test_a_best_one_from_after_the_latest_is_dropped(saved: Path) -> None:
    with Checkpoints(saved) as store:
        store.save("best", 8, tree(), {})
        store.drop_after(10)
        store.wait()
        assert store.has("best", 8)
        store.save("best", 15, tree(), {})
        store.wait()
        store.drop_after(10)
    assert checkpoints.steps(saved, "best") == []


def biggest(saved: Path) -> Path:
    files = [p for p in (saved / "checkpoints").rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, halve, Path.unlink])
def test_a_damaged_one_is_named(saved: Path, damage) -> None:
    damage(biggest(saved))
    with pytest.raises(InputError, match=r"checkpoint .*latest.10"):
        checkpoints.load(saved, "latest", shapes(tree()))


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"params": {"other": np.zeros((64, 48), np.float32)}}, "has no params.other"),
        ({"params": {"kernel": np.zeros((64, 47), np.float32)}}, r"\[64, 48\], not .*\[64, 47\]"),
        ({"params": {"kernel": np.zeros((64, 48), np.int32)}}, "is float32.*, not int32"),
    ],
)
def test_one_of_another_model_is_refused(saved: Path, like: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"belongs to another model.*{message}"):
        checkpoints.load(saved, "latest", like)


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no latest checkpoint yet"):
        checkpoints.load(tmp_path, "latest", tree())


def test_a_changed_note_is_damage(saved: Path) -> None:
    (file,) = saved.glob("checkpoints/latest/*/meta/metadata")
    text = file.read_text()
    assert '"best": 0.5' in text.replace('":0.5', '": 0.5')
    file.write_text(text.replace("0.5", "0.75"))
    with pytest.raises(InputError, match="meta/metadata has changed since it was saved"):
        checkpoints.load(saved, "latest", shapes(tree()))


FULL = """
import asyncio, resource, sys
from pathlib import Path
import numpy as np
from encdec.runs.checkpoints import Checkpoints
from encdec.types import InputError

run = Path(sys.argv[1])
tree = {name: np.random.default_rng(0).random(50_000, np.float32) for name in "abcdefgh"}
with Checkpoints(run) as store:
    store.save("latest", 1, tree, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with Checkpoints(run) as store:
        store.save("latest", 2, tree, {})
        store.wait()
except InputError as error:
    print(error, file=sys.stderr)

class Late:
    def __del__(self):
        loop = asyncio.new_event_loop()
        loop.close()
        loop.call_soon_threadsafe(print)

Late()
"""
"""Saves a checkpoint where it has room, and another where no file may have 100,000 bytes.

Then it calls back to a closed event loop, as TensorStore may do once the error has been told.
"""


def test_where_there_is_no_room_one_line_says_so_and_the_last_checkpoint_stays(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    for part in ("checkpoints/latest", "File too large", "make room", "resumes from step 1"):
        assert part in line
    assert checkpoints.steps(tmp_path, "latest") == [1]
    like = {name: np.zeros(50_000, np.float32) for name in "abcdefgh"}
    checkpoints.load(tmp_path, "latest", like)
