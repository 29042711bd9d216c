"""Layouts as people write them, and what cannot be done with the devices that there are."""

import pytest

from encdec.config import AttentionConfig, Seq2SeqConfig, TransformerConfig
from encdec.parallel.collectives import Axis
from encdec.parallel.layout import Layout
from encdec.types import InputError


@pytest.fixture(autouse=True)
def four_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 4)


def test_all_devices_are_on_data_if_nothing_is_said() -> None:
    assert Layout.parse(None) == Layout(4, 1)
    assert Layout.parse("2x2", shard_optimizer=True) == Layout(2, 2, shard_optimizer=True)
    assert str(Layout.parse("1x3")) == "1x3"


@pytest.mark.parametrize("text", ["", "4", "2x", "x2", "0x4", "2x-2", "2 x 2", "axb", "2x2x1"])
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="DATAxMODEL, such as 4x1, 2x2, 1x4"):
        Layout.parse(text)


def test_more_devices_than_there_are() -> None:
    with pytest.raises(InputError, match="4x2 needs 8 devices, but there are 4: 4x1, 2x2, 1x4"):
        Layout.parse("4x2")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Seq2SeqConfig(), "only a transformer has: 4x1 would do"),
        (AttentionConfig(), "only a transformer has: 4x1 would do"),
        (TransformerConfig(width=6, heads=2), "heads = 2 into 4 equal parts: 1 or 2 model parts"),
        (TransformerConfig(feed_forward=255), "feed_forward = 255 .*: 1 or 3 model parts would do"),
    ],
)
def test_a_model_that_cannot_be_split(config, message: str) -> None:
    Layout(4, 1).check_model(config)
    with pytest.raises(InputError, match=message):
        Layout(1, 4).check_model(config)


def test_who_works_with_whom() -> None:
    """Device 3 d + m of a 2x3 layout."""
    data, model = Layout(2, 3).axes
    assert data == Axis("devices", 2, ((0, 3), (1, 4), (2, 5)))
    assert model == Axis("devices", 3, ((0, 1, 2), (3, 4, 5)))
    assert Layout(4, 1).axes == (Axis("devices", 4), None)
    assert Layout(1, 4).axes == (None, Axis("devices", 4))
    assert Layout().axes == (None, None)
