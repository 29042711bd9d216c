"""The experiments: their settings are settings, and what they make of a corpus is right."""

import importlib
import json
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import encdec
from encdec.config import (
    AttentionConfig,
    DataConfig,
    RunConfig,
    Seq2SeqConfig,
    TransformerConfig,
)
from encdec.config.presets import preset
from encdec.data.sources import Pairs
from encdec.models import registry
from encdec.runs import run as runs
from encdec.runs.metrics_log import append_metrics, metric_rows
from encdec.training.optimizer import schedule
from encdec.types import InputError
from tests.small_run import small_run


def script(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.{name}")


@pytest.mark.parametrize("model", ["seq2seq", "attention", "transformer"])
def test_every_recipe_is_of_its_model(model: str) -> None:
    here = Path("corpus")
    multi30k, long, scan = map(script, ("multi30k", "long_sentences", "scan"))
    found: list[RunConfig] = [
        multi30k.config(multi30k.Options(here, model)),
        long.config(long.Options(here, model)),
        scan.config(scan.Options(here, model=model)),
    ]
    assert [config.model_name for config in found] == [model] * 3


def test_the_published_recipe_is_that_of_the_transformer() -> None:
    multi30k = script("multi30k")
    config = multi30k.config(multi30k.Options(Path("corpus"), recipe="published"))
    assert config.model.norm == "post"
    rate = schedule(config.training)
    for step, expected in ((1, 2.5e-6), (2000, 5e-3), (8000, 2.5e-3)):
        assert float(rate(step - 1)) == pytest.approx(expected)
    with pytest.raises(InputError, match="published is for the Transformer, not for attention"):
        multi30k.Options(Path("corpus"), "attention", "published")


def test_g2p_reads_characters_and_writes_phones() -> None:
    g2p = script("g2p")
    data = g2p.config(g2p.Options(Path("corpus"), "vie")).data
    assert (data.vocabulary, data.target_vocabulary) == ("chars", "words")
    assert data.tsv[0].endswith("corpus/vie_train.tsv")
    assert data.valid_tsv[0].endswith("corpus/vie_dev.tsv")


def test_g2p_takes_any_language_whose_files_are_there(tmp_path: Path) -> None:
    g2p = script("g2p")
    for name in ("kor_train", "kor_dev", "xyz_train", "xyz_dev", "xyz_test"):
        (tmp_path / f"{name}.tsv").write_text("a\tb\n")
    g2p._check_language(g2p.Options(tmp_path, "xyz"))
    for language in ("kor", "fre"):
        with pytest.raises(InputError, match=rf"{language}_.*\.tsv is not there .* kor, xyz"):
            g2p._check_language(g2p.Options(tmp_path, language))


def test_joined_sentences_are_all_sentences_in_runs() -> None:
    """Each round uses each sentence once; both sides are joined alike."""
    long = script("long_sentences")
    pairs = Pairs([f"s{i}" for i in range(300)], [f"t{i}" for i in range(300)])
    made = long.joined(pairs, 2, seed=3)
    for side, letter in zip(made, "st", strict=True):
        words = " ".join(side).split()
        for part in (words[:300], words[300:]):
            assert sorted(part) == sorted(f"{letter}{i}" for i in range(300))
    assert [s.replace("s", "t") for s in made.src] == made.tgt
    sizes = {len(s.split()) for s in made.src}
    assert sizes <= set(range(1, long.MOST_JOINED + 1))
    assert {1, long.MOST_JOINED} <= sizes


def test_words_of_terminology_are_chosen_and_counted() -> None:
    """The translator is one that repeats the source, and obeys."""
    terminology = script("terminology")
    texts = ["Zwei Hunde, zwei Katzen", "Zwei Katzen an 1979", "ein Hut"]
    assert terminology.rarest_words(texts) == [["Hunde"], ["Katzen"], []]
    assert terminology.containing(["Hunden", "Katzen.", ""], [["Hunde"], ["Katzen"], []]) == (1, 2)

    def translate(sources, options, phrases=((),) * 3, bans=((),) * 3):
        obeyed = [
            " ".join(["".join(re.split("|".join(no) or "$", text)), *yes])
            for text, yes, no in zip(sources, phrases, bans, strict=True)
        ]
        return [SimpleNamespace(text=text) for text in obeyed]

    lines = [*terminology.measure(SimpleNamespace(translate=translate), texts, texts, 2)]
    assert [line.split("; ")[1] for line in lines] == [
        "words of references in 2 of 2",
        "words in 2 of 2",
        "words in 0 of 2",
    ]


def test_arrays_of_ctranslate2_are_read(tmp_path: Path) -> None:
    aren = script("aren_transliteration")

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    array = np.arange(6, dtype="<f4").reshape(2, 3)
    head = struct.pack("<I", 2) + name("Kind") + struct.pack("<II", 7, 1)
    sizes = struct.pack("<BIIBI", 2, 2, 3, 4, 6)
    path = tmp_path / "model.bin"
    path.write_bytes(head + name("a/b") + sizes + array.tobytes())
    (found,) = aren.read_arrays(path).items()
    assert found[0] == "a/b"
    np.testing.assert_array_equal(found[1], array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "model.bin cannot be read: No such file"),
        (struct.pack("<I", 6), "model.bin has version 6 of the format: version 2 is read here"),
        (struct.pack("<I", 2), "model.bin is not a model of CTranslate2, or damaged"),
    ],
    ids=["missing", "newer", "damaged"],
)
def test_what_is_no_model_of_ctranslate2_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "model.bin").write_bytes(content)
    aren = script("aren_transliteration")
    with pytest.raises(InputError, match=message):
        aren.main(aren.Options(tmp_path))


def test_scan_lines_are_taken_apart(tmp_path: Path) -> None:
    scan = script("scan")
    lines = tmp_path / "lines"
    lines.write_text("IN: jump twice OUT: I_JUMP I_JUMP\n")
    assert scan.read_scan(lines) == Pairs(["jump twice"], ["I_JUMP I_JUMP"])
    lines.write_text("IN: jump OUT: I_JUMP\njump\n")
    with pytest.raises(InputError, match="lines, line 2: not of the form"):
        scan.read_scan(lines)


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_scan_trains_on_its_commands_and_logs_the_test(tmp_path: Path, monkeypatch) -> None:
    scan = script("scan")
    small = Seq2SeqConfig(embed=4, hidden=6)
    monkeypatch.setattr(scan, "MODELS", {"seq2seq": small})
    commands = [f"jump {i} OUT: I_JUMP N{i}" for i in range(40)]
    for part, lines in (("train", commands), ("test", commands[:7])):
        text = "".join(f"IN: {line}\n" for line in lines)
        (tmp_path / f"tasks_{part}_length.txt").write_text(text)
    options = scan.Options(tmp_path, "length", "seq2seq", runs=tmp_path / "runs", max_steps=2)
    scan.main(options)
    (row,) = metric_rows(tmp_path / "runs" / "scan-length-seq2seq-seed0" / "metrics.jsonl").test
    assert (row["name"], row["beam"], row["sentences"], row["step"]) == (
        "scan-length-test",
        1,
        7,
        2,
    )
    assert row["exact_match"] == 0.0


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_joined_sentences_are_trained_on_and_tested_by_length(tmp_path: Path, monkeypatch) -> None:
    """The validation sentences are those of val; the figure is drawn from what was logged."""
    long = script("long_sentences")
    for split, count in (("train", 300), ("val", 20), ("test_2016_flickr", 40)):
        for ending, word in zip(long.ENDINGS, ("cat", "Katze"), strict=True):
            lines = "".join(f"a {word} number {i}\n" for i in range(count))
            (tmp_path / f"{split}{ending}").write_text(lines)
    options = long.Options(tmp_path, "attention", runs=tmp_path / "runs")
    config = long.config(options)
    small = RunConfig(
        AttentionConfig(embed=4, hidden=6),
        DataConfig(vocabulary="words", batch_tokens=2048, num_buckets=1),
        replace(config.training, max_steps=1),
    )
    monkeypatch.setattr(long, "config", lambda options: small)
    long.main(options)
    run = tmp_path / "runs" / "long-attention"
    assert runs.load(run).held_out == long.read_joined(options, "val", 1)
    (row,) = metric_rows(run / "metrics.jsonl").test
    test = long.read_joined(options, "test_2016_flickr", 4)
    assert (row["name"], row["sentences"]) == ("long-test_2016_flickr", len(test.src))
    assert sum(bucket["sentences"] for bucket in row["by_length"]) == len(test.src)
    assert long.draw(options).is_file()


def test_a_step_of_any_length_holds_as_many_tokens() -> None:
    parallelism = script("parallelism")
    for length in (8, 64):
        batch = parallelism.random_batch(parallelism.Options(tokens=128), length)
        assert batch.src.shape == (128 // length, length)
        assert batch.tgt.shape == (128 // length, length + 1)


def run_with_scores(path: Path) -> list[dict[str, Any]]:
    """A run with measurements as training and scoring leave them; its last test of each search."""
    small_run(path)
    start = {"kind": "start", "device": "2 x abacus", "jax": "1.2", "date": "2001-02-03T04:05"}
    test = {"step": 70, "kind": "test", "name": "easy", "beam": 5}
    rows = [
        {"step": 0, **start},
        {"step": 50, "kind": "train", "loss": 1.0, "seconds": 90.0},
        {"step": 70, "kind": "train", "loss": 0.5, "seconds": 60.0},
        {**test, "length_penalty": 1, "bleu": 9.0},
        {**test, "length_penalty": 0.6, "bleu": 10.0},
        {**test, "length_penalty": 1, "bleu": 21.987},
    ]
    for row in rows:
        append_metrics(path / "metrics.jsonl", row)
    return rows[-2:]


def test_the_table_is_what_the_runs_measured(tmp_path: Path) -> None:
    table, run = script("table"), tmp_path / "multi30k-small"
    last = run_with_scores(run)
    page, summary = tmp_path / "page.md", tmp_path / "summary.md"
    for path in (page, summary):
        path.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    options = table.Options((run,), tmp_path / "results.json", page, summary)
    table.main(options)
    kept = json.loads(options.results.read_text())["multi30k-small"]
    assert sorted(kept["tests"], key=lambda test: test["bleu"]) == last
    assert (kept["minutes"], kept["steps"], kept["device"]) == (2.5, 70, "2 x abacus")
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    row, other = (line for line in lines if "multi30k-small" in line)
    for cell in ("easy", "5, 1", "BLEU 21.99", "2 x abacus", "2001-02-03"):
        assert f"| {cell} |" in row
    assert "| 5, 0.6 | BLEU 10.00 |" in other
    before = page.read_text()
    table.main(table.Options((), options.results, page, summary))
    assert page.read_text() == before


def test_runs_of_several_seeds_are_one_row(tmp_path: Path) -> None:
    """Mean, least and greatest; a question of more than three sets has the mean of all."""
    table = script("table")
    shared = {"device": "1 x abacus", "minutes": 3.0, "parameters": 1, "steps": 7}

    def result(name: str, date: str, **values: float) -> dict[str, Any]:
        test = {"name": name, "beam": 1, "length_penalty": 0.6, **values}
        return {**shared, "date": f"{date}T04:05", "tests": [test]}

    results = {
        f"dates-attention-seed{seed}": result("held-out", f"2001-02-0{seed + 1}", exact_match=x)
        for seed, x in enumerate((0.5, 1.0, 0.75))
    }
    for number, code in enumerate(("bul", "fre", "geo", "hin")):
        rate = {"sequence_error_rate": float(number)}
        results[f"g2p-{code}-seed0"] = result(f"{code}_test", "2001-02-03", **rate)
    assert set(table.by_seeds(results)) >= {"dates-attention", "g2p-hin"}
    (row,) = (line for line in table.table(results).splitlines() if "dates" in line)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:3] == ["`dates-attention`", "3", "held-out"]
    assert cells[4] == "exact match 0.7500 (0.5000 to 1.0000)"
    assert cells[-2:] == ["1 x abacus", "2001-02-01 to 2001-02-03"]
    dates, words = table.summary(results).splitlines()[2:]
    assert "| attention 0.7500 (0.5000 to 1.0000) | 3 |" in dates
    assert "bul 0.00, fre 1.00, geo 2.00, hin 3.00, mean 1.50 | 1 |" in words


def test_only_tested_runs_of_an_experiment_have_a_row(tmp_path: Path) -> None:
    table = script("table")
    small_run(tmp_path / "g2p-fre")
    with pytest.raises(InputError, match="g2p-fre has no test metrics"):
        table.record(tmp_path / "g2p-fre")
    small_run(tmp_path / "mine")
    with pytest.raises(InputError, match="mine belongs to no experiment"):
        table.record(tmp_path / "mine")


def test_the_pages_are_up_to_date() -> None:
    table = script("table")
    options = table.Options()
    kept = json.loads(options.results.read_text())
    for path, make in ((options.page, table.table), (options.summary, table.summary)):
        page = path.read_text(encoding="utf-8")
        assert table.written(page, make(kept)) == page


@pytest.mark.slow
def test_scaling_measures_every_layout(monkeypatch, capsys) -> None:
    scaling = script("scaling")
    assert scaling.all_layouts(4) == ["1x1", "4x1", "4x1z", "2x2", "2x2z", "1x4"]
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 4)
    small = TransformerConfig(layers=1, width=16, feed_forward=24, heads=4, dropout=0.0)
    monkeypatch.setattr(scaling, "transformer", lambda options: small)
    sizes = {"sentences": 4, "source_length": 5, "target_length": 6, "vocabulary": 2101, "steps": 2}
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        scaling.main(scaling.Options(layouts=("1x1", "2x2z"), **sizes))
    _, _, _, one, four = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in one.split("|")][6:10] == ["0", "0", "0", "0e+00"]
    cells = [cell.strip() for cell in four.split("|")]
    assert cells[1] == "2x2z"
    assert 0 < float(cells[5]) < float(one.split("|")[5])  # a device holds less
    assert float(cells[9]) < 1e-5
    assert min(int(cell) for cell in cells[6:9]) > 1


@pytest.mark.usefixtures("standard_promotion")
def test_a_training_step_is_timed_on_the_device_that_is_here(monkeypatch) -> None:
    accelerator = script("accelerator")
    small = TransformerConfig(layers=1, width=8, feed_forward=12, heads=2, dropout=0.0)
    monkeypatch.setattr(accelerator, "preset", lambda *_: SimpleNamespace(model=small))
    options = accelerator.Options(sentences=3, length=5, vocabulary=11, rounds=2)
    row = accelerator.training_speed(options, "transformer", "float32", peak=1e12)
    assert row.tokens * row.milliseconds == pytest.approx(1000 * 3 * (5 + 5))
    # Per sentence: 4 projections and 2 products of attention, feed-forward, twice attention in the
    # decoder, and the output; each a multiplication and an addition, three times with gradients.
    D, F, V, L = 8, 12, 11, 5
    attention, cross = L * (4 * D * D + 2 * L * D), L * (2 * D * D + 2 * L * D) + L * 2 * D * D
    flops = 3 * 2 * 3 * (2 * (attention + L * 2 * D * F) + cross + L * D * V)
    assert row.share == pytest.approx(flops / (row.milliseconds / 1000) / 1e12)
    assert row.program > 0
    with pytest.raises(InputError, match="source and target go together"):
        accelerator.Options(source=Path("a"))


def test_a_chip_that_is_not_known_and_a_compiler_that_is_missing(monkeypatch) -> None:
    chips = script("compile_for_tpu")
    with pytest.raises(InputError, match="--chip v1 is not known: one of v4, v5e, v5p, v6e"):
        chips.topology(chips.Options(chip="v1"))
    with pytest.raises(InputError, match="--layouts 4x4 needs 16 chips"):
        chips.check(chips.Options(layouts=("2x2", "4x4")))
    with pytest.raises(InputError, match="batch_tokens"):
        chips.check(chips.Options(layouts=("4x1",), batch_tokens=64))
    with pytest.raises(InputError, match="sentences = 3 are too few for 4 data shards"):
        chips.check(chips.Options(layouts=("4x1",), sentences=3))
    with pytest.raises(InputError, match="length = 0 must be at least 1"):
        chips.check(chips.Options(length=0))
    with pytest.raises(InputError, match="model attention cannot be split: 4x1 would do"):
        chips.check(chips.Options(model="attention", layouts=("1x1", "2x2")))
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match="libtpu is missing"):
        chips.topology(chips.Options())


def test_a_program_that_no_chip_can_hold_ends_with_the_first_line_of_what_the_compiler_says(
    monkeypatch,
) -> None:
    chips = script("compile_for_tpu")

    def fails(options, layout):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: used 90G of 16G\n\nLargest:\n1. x")

    monkeypatch.setattr(chips, "_training", fails)
    with pytest.raises(InputError) as error:
        chips.measure(chips.Options(), "1x1", "training", jax.devices())
    assert str(error.value) == "training 1x1: RESOURCE_EXHAUSTED: used 90G of 16G"


SMALL_PROGRAMS = {
    "preset": "tiny",
    "vocabulary": 50,
    "length": 4,
    "sentences": 8,
    "beam": 2,
    "precision": "float32",
}


@pytest.mark.parametrize("model", ["seq2seq", "attention"])
def test_a_search_that_shards_sentences_only_communicates_nothing(
    model: str, full_optimization: None
) -> None:
    chips = script("compile_for_tpu")
    options = chips.Options(model=model, **SMALL_PROGRAMS)
    row = chips.measure(options, "4x1", "search", jax.devices())
    assert set(row.collectives.values()) == {0}
    assert row.memory > row.temporary > 0


@pytest.mark.slow
def test_the_collectives_of_a_search_that_splits_a_transformer(full_optimization: None) -> None:
    """`encdec.parallel.pmap`: 2 N + 1 for the source and 3 N + 2 for a token, whose loop is counted
    once; the last of them gathers logits."""
    chips = script("compile_for_tpu")
    options = chips.Options(**SMALL_PROGRAMS)
    N = preset("tiny").model.layers
    row = chips.measure(options, "2x2", "search", jax.devices())
    assert row.collectives["all-gather"] == 1
    assert sum(row.collectives.values()) == (2 * N + 1) + (3 * N + 2)


def test_the_largest_arrays_of_a_program() -> None:
    chips = script("compile_for_tpu")
    hlo = "%a = f32[64,32000]{1,0} dot(x)\n%b = bf16[9,2000]{1,0} add(y)\n%c = f32[7,5]{1,0} z(y)"
    assert chips.largest_arrays(hlo, 2) == ("f32[64,32000]", "bf16[9,2000]")


def test_a_pretrained_model_is_trained_with_settings_of_its_own_run(tmp_path: Path) -> None:
    pretrained = script("pretrained")
    run = small_run(tmp_path / "run")
    options = pretrained.Options("model", Path("a.tsv"), Path("b.tsv"), steps=20)
    whole, low_rank = (pretrained.settings(run, options, rank) for rank in (0, 8))
    assert (whole.model, whole.search) == (run.config.model, run.config.search)
    assert whole.data.joint_vocabulary == run.config.data.joint_vocabulary
    assert whole.training.warmup < whole.training.max_steps == 20
    assert low_rank.training.learning_rate == pytest.approx(10 * whole.training.learning_rate)
    with pytest.raises(InputError, match="none is not a folder"):
        pretrained.imported(replace(options, model=tmp_path / "none", runs=tmp_path / "runs"))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_enlarged_transformer_computes_the_same_function(tied: bool, norm: Any) -> None:
    enlarge = script("enlarge")
    small = TransformerConfig(
        layers=1,
        width=8,
        heads=2,
        feed_forward=6,
        norm=norm,
        tie_embeddings=tied,
        share_embeddings=tied,
    )
    module = registry.build(small, 11, 11, joint=True)
    drawn, key = registry.init(module, jax.random.key(0)), jax.random.key(1)
    params = jax.tree.map(lambda x: x + jax.random.normal(key, x.shape) / 4, drawn)
    wanted = replace(small, layers=3, width=48, heads=4, feed_forward=18)
    config, larger = enlarge.enlarge(small, jax.device_get(params), wanted)
    assert (config.layers, config.width, config.heads, config.feed_forward) == (3, 48, 4, 18)
    src, tgt_in = (jax.random.randint(key, (3, length), 0, 11) for length in (7, 5))
    batch = (src, jnp.arange(7) < jnp.array([[7], [4], [6]]), tgt_in)
    expected = module.apply({"params": params}, *batch)
    found = registry.build(config, 11, 11, joint=True).apply({"params": larger}, *batch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="width = 20 is no multiple of the model's 8"):
        enlarge.enlarge(small, params, replace(wanted, width=20))
    with pytest.raises(InputError, match="only a Transformer as in the paper"):
        enlarge.enlarge(replace(small, activation="gelu"), params, wanted)


def test_decoding_is_timed_and_compared_hypothesis_by_hypothesis(tmp_path: Path, capsys) -> None:
    speed = script("decode_speed")
    run = small_run(tmp_path / "run")
    source = tmp_path / "source"
    source.write_text("3 May 1979\n\n1.2.2003\n")
    speed.main(speed.Options(run.path, source, beams=(2,), max_tokens=9, repeats=1))
    said = capsys.readouterr().out
    assert said.startswith("2 sentences, ")
    assert re.search(r"beam 2: encdec \S+ sentences/s \(first call \S+ s\)", said)
    options = speed.rules(speed.Options(run.path, source, max_tokens=9), 2)
    found = encdec.load(run.path).nbest(["3 May 1979", "1.2.2003"], 2, options)
    lists = [[[x for x in one.tgt_tokens if x != "</s>"] for one in best] for best in found]
    scores = [[one.score for one in best] for best in found]
    scores[0][0] += 0.25
    peer = [list(zip(h, s, strict=True)) for h, s in zip(lists, scores, strict=True)]
    peer[1] = peer[1][::-1]
    said = speed.agreement(found, peer)
    assert said == "same best 1, same 2-best 1 of 2, scores differ by 2.5e-01 nats at most"
