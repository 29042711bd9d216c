from pathlib import Path

from encdec.plots.runs import learning_curves, named
from encdec.runs import run as runs
from tests.commands import refused
from tests.small_run import small_run


def test_curves_are_what_was_measured(encdec, measured: Path, tmp_path: Path) -> None:
    run = runs.load(measured)
    assert learning_curves([run], "loss") == {
        "run, validation": ([5.0, 10.0], [3.5, 3.25]),
        "run, training": ([5.0, 10.0], [4.0, 3.0]),
    }
    assert learning_curves([run], "bleu") == {"run": ([5.0, 10.0], [11.0, 10.0])}
    assert learning_curves([run], "seconds") == {"run": ([5.0, 10.0], [90.0, 90.0])}
    for name in ("curves.png", "curves.svg"):
        assert encdec("plot", measured, "--out", tmp_path / name).code == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert "nats per token" in (tmp_path / "curves.svg").read_text()


def test_runs_with_the_same_name_get_their_paths(measured: Path, tmp_path: Path) -> None:
    first, second = runs.load(measured), small_run(tmp_path / "other" / "run")
    assert named([first]) == {"run": first}
    assert list(named([first, second]).values()) == [first, second]
    assert list(named([first, second])) == [str(run.path.resolve()) for run in (first, second)]


def test_what_cannot_be_drawn_is_refused(encdec, measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    refused(encdec("plot", "--out", out), "no run is named")
    refused(
        encdec("plot", measured, "--out", out, "--metric", "blue"),
        "has no blue",
        "did you mean bleu",
    )
    refused(encdec("plot", measured, "--out", out, "--metric", "x"), "it has bleu, loss, seconds")
    refused(encdec("plot", measured, "--score", "x"), "unknown option --score", "--metric")
    refused(encdec("plot", measured, "--out", out, "--by-length"), "evaluate", "--by-length")
    assert not out.exists()
