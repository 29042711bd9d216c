"""Layouts are parsed, and refused where they do not fit the devices or the model."""

from types import SimpleNamespace

import pytest

from encdec.config import AttentionConfig, Seq2SeqConfig, TransformerConfig
from encdec.parallel.collectives import Axis
from encdec.parallel.layout import Layout, scans_layers
from encdec.types import InputError


@pytest.fixture(autouse=True)
def four_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 4)


def test_the_default_is_one_data_shard_for_each_device() -> None:
    assert Layout.parse(None) == Layout(4, 1)
    assert Layout.parse("2x2", shard_optimizer=True) == Layout(2, 2, shard_optimizer=True)
    assert str(Layout.parse("1x3")) == "1x3"


@pytest.mark.parametrize("text", ["", "4", "2x", "x2", "0x4", "2x-2", "2 x 2", "axb", "2x2x1"])
def test_text_that_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="DATAxMODEL, such as 4x1, 2x2, 1x4"):
        Layout.parse(text)


def test_a_layout_of_too_many_devices_is_refused() -> None:
    with pytest.raises(InputError, match="4x2 needs 8 devices, but there are 4: 4x1, 2x2, 1x4"):
        Layout.parse("4x2")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Seq2SeqConfig(), "model seq2seq cannot be split: 4x1 would do"),
        (AttentionConfig(), "model attention cannot be split: 4x1 would do"),
        (TransformerConfig(width=6, heads=2), "heads = 2 into 4 equal parts: 1 or 2 model shards"),
        (
            TransformerConfig(feed_forward=255),
            "feed_forward = 255 .*: 1 or 3 model shards would do",
        ),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(config, message: str) -> None:
    Layout(4, 1).check_model(config)
    with pytest.raises(InputError, match=message):
        Layout(1, 4).check_model(config)


def test_groups_of_devices() -> None:
    """In a 2x3 layout, device 3 d + m has data shard d and model shard m."""
    data, model = Layout(2, 3).axes
    assert data == Axis("devices", 2, ((0, 3), (1, 4), (2, 5)))
    assert model == Axis("devices", 3, ((0, 1, 2), (3, 4, 5)))
    assert Layout(4, 1).axes == (Axis("devices", 4), None)
    assert Layout(1, 4).axes == (None, Axis("devices", 4))
    assert Layout().axes == (None, None)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_many_layers_are_a_loop_where_compiling_takes_long(platform: str, loops: bool) -> None:
    layout = Layout(devices=(SimpleNamespace(platform=platform),))
    for config in (TransformerConfig(layers=7), TransformerConfig(layers=2, decoder_layers=7)):
        assert scans_layers(layout, config) == loops
    for few in (TransformerConfig(layers=6), Seq2SeqConfig(layers=7)):
        assert not scans_layers(layout, few)
