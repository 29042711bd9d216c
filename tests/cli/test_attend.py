"""`encdec attend`, end to end."""

from pathlib import Path

from matplotlib.image import imread

from encdec.plots.attention import attention_figure
from tests.cli.numbers import SETTINGS
from tests.commands import refused
from tests.small_run import small_run


def test_attend_draws_where_it_looked(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    found = encdec("attend", run, "vier zwei", "--out", tmp_path / "map.png")
    assert (found.code, found.out) == (0, f"four two\n{tmp_path / 'map.png'}\n")
    assert imread(tmp_path / "map.png").std() > 0
    long = "eins " * 300
    refused(encdec("attend", run, long, "--out", tmp_path / "no.png"), "trained for", "shorten")
    refused(encdec("attend", run, " ", "--out", tmp_path / "no.png"), "TEXT is empty")
    refused(encdec("attend", run, "eins", "--out", tmp_path / "no.gif"), ".png or .svg")
    refused(encdec("attend", run, "eins"), "out")


def test_attend_draws_the_maps_that_are_asked_for(tmp_path: Path, encdec, monkeypatch) -> None:
    """Which weights, titles and labels reach the picture; what they are is the translator's."""
    run = small_run(tmp_path / "run").path  # 2 layers, 2 heads
    drawn: list[tuple] = []

    def draw(weights, columns, rows, titles, heads):
        drawn.append((weights.shape, len(columns), len(rows), titles, heads))
        return attention_figure(weights, columns, rows, titles, heads)

    monkeypatch.setattr("encdec.plots.runs.attention_figure", draw)
    start = ["attend", run, "3. Mai", "--out", tmp_path / "map.svg"]
    assert encdec(*start, "--maps", "encoder").code == 0
    titles = [f"layer {l}, head {h}" for l in (1, 2) for h in (1, 2)]
    assert drawn.pop() == ((4, 7, 7), 7, 7, titles, 2)
    assert encdec(*start, "--maps", "decoder", "--layer", "2").code == 0
    shape, columns, rows, titles, heads = drawn.pop()
    assert (shape, heads) == ((2, rows, columns), 2)
    assert titles == ["layer 2, head 1", "layer 2, head 2"]
    assert encdec(*start, "--head", "2", "--layer", "1").code == 0
    shape, columns, _, titles, heads = drawn.pop()
    assert (shape[0], columns, titles, heads) == (1, 7, ["layer 1, head 2"], 1)
    refused(encdec(*start, "--layer", "3"), "layer = 3", "1 to 2")
    refused(encdec(*start, "--maps", "decode"), "maps")


def test_attend_refuses_a_model_without_attention(corpus: Path, tmp_path: Path, encdec) -> None:
    start = ["train", "--model", "seq2seq", "--tsv", corpus / "pairs.tsv"]
    assert encdec(*start, "--run", tmp_path / "run", *SETTINGS, "--max-steps", "2").code == 0
    found = encdec("attend", tmp_path / "run", "eins", "--out", tmp_path / "map.png")
    refused(found, "seq2seq", "no attention")
    assert not (tmp_path / "map.png").exists()
