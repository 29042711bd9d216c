import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import encdec
from encdec import config as configs
from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.config.search import SearchOptions
from encdec.data.dates import dates
from encdec.inference import translator
from encdec.interop.stablehlo import greedy_program
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.parameters import best_params
from encdec.types import InputError, SpecialIds
from tests.commands import refused
from tests.small_run import SMALL, small_run

PAD, _, EOS, _ = SpecialIds()

LENGTH = 48
WITHOUT_ENCDEC = """
import sys
import jax.export
import numpy as np
with open(sys.argv[1], "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))
tokens, lengths = program.call(np.load(sys.argv[2]))
np.savez(sys.argv[3], tokens=tokens, lengths=lengths)
assert not {"encdec", "flax"} & sys.modules.keys()
"""


@pytest.mark.parametrize(
    "model", [SMALL, Seq2SeqConfig(embed=4, hidden=6), AttentionConfig(embed=4, hidden=6)]
)
def test_the_exported_search_finds_the_same_tokens(
    encdec, tmp_path: Path, model: ModelConfig
) -> None:
    """On 200 sentences, in a process that imports JAX but neither encdec nor Flax."""
    run, out = small_run(tmp_path / "run", model), tmp_path / "out"
    search = SearchOptions(beam=1, prefix="19" if isinstance(model, AttentionConfig) else "")
    runs._write_config(replace(run, config=replace(run.config, search=search)))
    path = run.path
    assert (
        encdec("export", path, "--to", "stablehlo", "--out", out, "--source-length", LENGTH).code
        == 0
    )
    opened = translator.load(path)
    source, target = opened.run.src_vocabulary, opened.run.tgt_vocabulary
    texts = list(dates(300, 1).train.src[:200])
    src = np.full((len(texts), LENGTH), PAD, np.int32)
    for row, text in zip(src, texts, strict=True):
        ids = [*source.encode(text), EOS]
        row[: len(ids)] = ids
    np.save(tmp_path / "src.npy", src)
    files = [out / "greedy.stablehlo", tmp_path / "src.npy", tmp_path / "tokens.npz"]
    subprocess.run([sys.executable, "-c", WITHOUT_ENCDEC, *files], check=True, cwd=tmp_path)
    exported = np.load(files[2])
    expected = opened.translate(texts, search)
    for tokens, length, best in zip(exported["tokens"], exported["lengths"], expected, strict=True):
        assert target.tokens(tokens[:length].tolist()) == best.tgt_tokens


def test_weights_and_settings_are_exported(encdec, tmp_path: Path) -> None:
    path, out = small_run(tmp_path / "run").path, tmp_path / "out"
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "of a person").touch()
    assert encdec("export", path, "--to", "safetensors", "--out", out).code == 0
    assert {file.name for file in tmp_path.iterdir()} == {"run", "out", "out.tmp"}
    assert (tmp_path / "out.tmp" / "of a person").exists()
    assert len({file.stat().st_mode for file in out.iterdir()}) == 1
    run = runs.load(path)
    params, _ = best_params(run)
    weights = load_file(out / "model.safetensors")
    assert weights.keys() == checkpoints.flat(params).keys()
    for name, leaf in checkpoints.flat(params).items():
        np.testing.assert_array_equal(weights[name], leaf)
    written = json.loads((out / "config.json").read_text())
    assert configs.from_json(written["config"]) == run.config
    assert (out / "source.vocab").read_bytes() == (path / "source.vocab").read_bytes()
    refused(encdec("export", path, "--to", "safetensors", "--out", out), "is there already")
    program = ("export", path, "--to", "stablehlo", "--out", out / "b", "--source-length")
    refused(encdec(*program, 1), "from 2 to")
    refused(encdec(*program, 9999), "from 2 to")
    other = ("export", path, "--to", "safetensors", "--out", out / "b", "--source-length", 9)
    refused(encdec(*other), "source_length is for stablehlo")


def test_a_length_is_checked_in_python_too(tmp_path: Path) -> None:
    path, out = small_run(tmp_path / "run").path, tmp_path / "out"
    for length, says in (
        (0, "from 2 to"),
        (9999, "from 2 to"),
        ("9", "an integer"),
        (9.0, "an int"),
    ):
        with pytest.raises(InputError, match=f"source_length = .* cannot be used.*{says}"):
            encdec.export_run(path, out, "stablehlo", source_length=length)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="source_length is for stablehlo, not for safetensors"):
        encdec.export_run(path, out, "safetensors", source_length=9)
    assert not out.exists()


def test_a_search_of_groups_or_of_risk_is_exported_as_greedy(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    search = SearchOptions(beam=4, beam_groups=2, mbr=3)
    params, other = best_params(run)[0], replace(run, config=replace(run.config, search=search))
    with jax.numpy_dtype_promotion("standard"):  # limits are ratios of int32
        whole, greedy = (greedy_program(one, params, 9) for one in (other, run))
    assert whole.mlir_module() == greedy.mlir_module()


def test_where_there_is_no_room_one_line_says_so(tmp_path: Path) -> None:
    """No file may have more than 2,000 bytes, as on a full disk."""
    run = small_run(tmp_path / "run").path
    script = (
        "import resource, sys; from encdec.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); main(sys.argv[1:])"
    )
    out = tmp_path / "out"
    words = ["export", str(run), "--to", "safetensors", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"{out} cannot be written" in line
    assert "File too large" in line
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
