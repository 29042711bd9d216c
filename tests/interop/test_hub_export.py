"""What goes out comes back the same, and the hub library finds in it what we find."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import encdec
from encdec.config import DataConfig, RunConfig, SearchOptions, Seq2SeqConfig, TransformerConfig
from encdec.data import vocabulary
from encdec.data.sources import Pairs
from encdec.interop.array_files import stored_arrays
from encdec.interop.export import export_run
from encdec.interop.import_model import import_model
from encdec.models import registry
from encdec.runs import run as runs
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.types import InputError
from tests.interop.hub_models import torch, transformers
from tests.interop.hub_tokenizers import lines
from tests.interop.test_import_model import MODELS, TEXTS, theirs, whole
from tests.small_run import small_run

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SMALL = TransformerConfig(layers=2, decoder_layers=1, width=12, feed_forward=20, heads=3)
SEARCH = SearchOptions(
    beam=4, length_penalty=0.8, length_penalty_kind="mean", max_ratio=0, max_extra=14
)


@pytest.mark.parametrize("kind", MODELS)
def test_an_imported_model_comes_back_to_the_bit(kind: str, tmp_path: Path) -> None:
    model, tokenizer = whole(kind, tmp_path / "model")
    import_model(tmp_path / "model", tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "out", "transformers")
    before, after = stored_arrays(tmp_path / "model"), stored_arrays(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array.read(), after[name].read(), err_msg=name)
    loaded = type(model).from_pretrained(tmp_path / "out").eval()
    opened = type(tokenizer).from_pretrained(tmp_path / "out")
    texts = [text for text in TEXTS if text.strip()][:5]
    assert theirs(loaded, opened, texts) == theirs(model, tokenizer, texts)


def run_of_ours(folder: Path, config: TransformerConfig, *, joint: bool, **data: Any) -> Run:
    """A run with random parameters that are large enough to translate variously."""
    texts = lines(300, 3, rare=0)
    build = vocabulary.build
    source = build("sentencepiece", texts, 480)
    target = source if joint else build("sentencepiece", [t[::-1] for t in texts], 470, "bpe")
    settings = RunConfig(config, DataConfig(joint_vocabulary=joint, **data), search=SEARCH)
    run = Run(folder, settings, "0" * 64, 12, source, target, Pairs([], []))
    runs.create(run)
    shapes = registry.abstract(build_model(run))
    rng = np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)
    with Checkpoints(folder) as saved:
        saved.save("best", 1, {"params": params}, {})
    return run


OURS = {
    "post, nothing shared": (SMALL, False),
    "post, one vocabulary, nothing shared": (SMALL, True),
    "post, all tied": (replace(SMALL, tie_embeddings=True), True),
    "post, target tied": (replace(SMALL, tie_embeddings=True), False),
    "pre, all tied": (replace(SMALL, norm="pre", tie_embeddings=True, activation="gelu"), True),
}


@pytest.mark.parametrize("case", OURS)
def test_the_hub_library_finds_what_we_find(case: str, tmp_path: Path) -> None:
    config, joint = OURS[case]
    run_of_ours(tmp_path / "run", config, joint=joint)
    export_run(tmp_path / "run", tmp_path / "out", "transformers")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    # Their tokenizer takes odd white space and >>codes<< otherwise.
    texts = [" ".join(text.replace(">", "").split()) for text in lines(60, seed=9, rare=0)]
    texts = [text for text in texts if text]
    translator = encdec.load(tmp_path / "run")
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    for beam in (1, 4):
        ours = translator.translate(texts, replace(SEARCH, beam=beam))
        with torch.no_grad():
            found = model.generate(**batch, num_beams=beam)
        for one, row in zip(ours, found.tolist(), strict=True):
            assert one.tgt_ids == row[1 : 1 + len(one.tgt_ids)]
            if "⁇" not in one.text:  # there the unknown token leaves no trace
                assert one.text == tokenizer.decode(row, skip_special_tokens=True)
    again = import_model(tmp_path / "out", tmp_path / "again")
    assert again.config.search == replace(SEARCH, stop="never")
    back = encdec.load(again.path).translate(texts)
    assert [one.tgt_ids for one in back] == [one.tgt_ids for one in translator.translate(texts)]


def test_what_the_format_cannot_hold_is_named(tmp_path: Path) -> None:
    def refused(run: Path, match: str) -> None:
        with pytest.raises(InputError, match=match):
            export_run(run, tmp_path / "out", "transformers")
        assert not (tmp_path / "out").exists()

    cases = {
        "epsilon": (replace(SMALL, norm_epsilon=1e-3), "has norm_epsilon = 0.001, which the hub"),
        "head": (replace(SMALL, head_width=5), "has head_width = 5"),
        "rms": (replace(SMALL, norm_type="rms"), "has norm_type = 'rms'"),
        "pre": (replace(SMALL, norm="pre"), "has norm = 'pre' and an embedding for each side"),
    }
    for name, (config, match) in cases.items():
        run_of_ours(tmp_path / name, config, joint=False)
        refused(tmp_path / name, match)
    run_of_ours(tmp_path / "lower", SMALL, joint=True, lowercase=True)
    refused(tmp_path / "lower", "preprocesses its source text")
    small_run(tmp_path / "chars")
    refused(tmp_path / "chars", "has a source vocabulary of chars")
    small_run(tmp_path / "seq2seq", Seq2SeqConfig(embed=4, hidden=6))
    refused(tmp_path / "seq2seq", "is a run of seq2seq, which transformers does not have")


def test_options_that_generate_does_not_get_are_said(tmp_path: Path) -> None:
    run = run_of_ours(tmp_path / "run", SMALL, joint=True)
    search = SearchOptions(length_penalty_kind="mean", prefix="1", ban=("2",))
    runs._write_config(replace(run, config=replace(run.config, search=search)))
    said: list[str] = []
    export_run(run.path, tmp_path / "out", "transformers", say=said.append)
    (line,) = said
    assert "has no prefix and no ban" in line


def test_wus_penalty_is_said(tmp_path: Path) -> None:
    run = run_of_ours(tmp_path / "run", SMALL, joint=True)
    runs._write_config(replace(run, config=replace(run.config, search=SearchOptions())))
    said: list[str] = []
    export_run(run.path, tmp_path / "out", "transformers", say=said.append)
    assert "the hub library has no length penalty of Wu" in said[0]
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["length_penalty"], generation["early_stopping"]) == (0.6, "never")
