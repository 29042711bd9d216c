# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # encdec: train a translator, and see what it attends to
#
# Three generations of encoder-decoder on the same data: one fixed vector (*seq2seq*), *attention*,
# and the *Transformer*. Choose **Runtime > Run all**. On a TPU, a GPU or a CPU it ends within minutes,
# with a trained translator of dates, its learning curves, its attention maps, a comparison of the
# three, and a run on a corpus of your own.
#
# For an accelerator choose **Runtime > Change runtime type** before you run. Each trained model is in
# a run folder: after a disconnect run all cells again, and training resumes from the last checkpoint
# (if `DRIVE` was ticked, or the runtime is still the same).
#
# Outside a clone of the repository, say in `PACKAGE` where encdec is.

# %% tags=["parameters"]
PACKAGE = ""  # @param {type:"string"}
# What to install encdec from: a folder, a wheel, or "git+https://...". If empty, the clone that this
# notebook is in, or that is next to it. An encdec that is installed already is not changed.
DRIVE = False  # @param {type:"boolean"}
# Keep the runs in Google Drive.
TEXT = "Donnerstag, 3. Mai 1979"  # @param {type:"string"}
# A date to translate, from 1970 to 2069, in any of fifteen languages.
OWN_TSV = ""  # @param {type:"string"}
# Your own corpus: a file with source, tab, target in each line. If empty, the notebook makes sums.
UPLOAD = False  # @param {type:"boolean"}
# Ask for that file in the browser.
FRACTION = 1.0  # @param {type:"number"}
# The fraction of each preset's steps that is trained: less is faster, and worse.

# %% [markdown]
# ## Install
#
# What this runtime computes with (JAX, its plugins, NumPy, matplotlib) stays at the version that it
# has: a JAX of another version would no longer find the TPU or GPU.

# %%
import importlib
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

KEPT = ("jax", "libtpu", "numpy", "matplotlib", "nvidia-")

versions = {}
for package in distributions():
    if package.name:  # Python imports the first of several with one name
        versions.setdefault(package.name.lower(), package.version)
if "encdec" not in versions:
    near = (Path.cwd(), Path.cwd().parent, Path.cwd() / "encdec")
    clones = [str(folder) for folder in near if (folder / "encdec" / "__init__.py").exists()]
    if not PACKAGE and not clones:
        raise ValueError(
            "PACKAGE is empty and there is no clone of encdec: name a folder, wheel or git+https"
        )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        for name, version in versions.items():
            if name.startswith(KEPT) and "+" not in version:
                pins.write(f"{name}=={version}\n")
        pins.flush()
        command = ["pip", "install", "-q", PACKAGE or clones[0], "-c", pins.name]
        done = subprocess.run([sys.executable, "-m", *command], text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"encdec does not fit what this runtime has:\n{done.stderr}")
    importlib.invalidate_caches()

# %%
# %matplotlib inline
from dataclasses import replace
from html import escape

from IPython.display import HTML, display

import encdec
from encdec.cli.doctor import CHECKS
from encdec.config.presets import for_steps
from encdec.data.sources import Pairs, read_pairs
from encdec.plots.runs import attention_picture, learning_picture

RUNS = Path("runs")
if DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
    RUNS = Path("/content/drive/MyDrive/encdec")

# %% [markdown]
# ## What this runtime computes with

# %%
for check in CHECKS:
    finding = check()
    print(f"{finding.verdict:<4}  {finding.subject:<10}  {finding.text}")
    if finding.verdict == "FAIL":
        box = "font-size: 1.6em; color: #fff; background: #9b1c1c; padding: 0.5em"
        display(HTML(f'<p style="{box}">{escape(finding.text)}</p>'))
        raise RuntimeError("see the red box: choose Runtime > Change runtime type, then Run all")

# %% [markdown]
# ## Train the Transformer on dates
#
# The built-in corpus turns dates as people write them into ISO dates. When the cell is run again,
# nothing is left to train; when it was interrupted, training resumes from the last checkpoint.


# %%
def shorten(config: encdec.RunConfig) -> encdec.RunConfig:
    """Settings with a fraction FRACTION of their steps."""
    steps = max(4, round(FRACTION * config.training.max_steps))
    config = for_steps(config, steps)
    training = replace(config.training, evaluate_every=max(200, steps // 10))
    return replace(config, training=training)


def train(model: str) -> encdec.TrainResult:
    """A model trained on dates, by its preset."""
    config = shorten(encdec.preset("dates", model))
    return encdec.train(config, run=RUNS / f"dates-{model}-{config.training.max_steps}")


results = {"transformer": train("transformer")}

# %%
learning_picture([results["transformer"].run])

# %% [markdown]
# ## Translate, and see what it attended to
#
# Each row is a character of the translation, each column one of the source; the darker a cell, the
# more the row attended to the column. Change `TEXT` above, or call `translator` with a text.

# %%
translator = results["transformer"].translator
translation = translator(TEXT)
print(translation.text)
attention_picture(translator, translation, layer=2)

# %% [markdown]
# The source attends to itself too, in the encoder. This is the first head of its first layer:

# %%
attention_picture(translator, translation, "encoder", layer=1, head=1)

# %% [markdown]
# ## The three generations side by side
#
# Metrics on dates that were never trained on, by greedy search.

# %%
results |= {model: train(model) for model in ("attention", "seq2seq")}

# %%
print(f"{'model':<12}  exact match  BLEU   nats per token")
greedy = encdec.SearchOptions(beam=1)
for model, result in results.items():
    pairs = Pairs(*(side[:500] for side in result.run.held_out))
    evaluation = encdec.evaluate(result.translator, pairs, greedy, metrics=["exact_match", "bleu"])
    row = evaluation.values
    print(f"{model:<12}  {row['exact_match']:11.3f}  {row['bleu']:5.1f}  {row['loss']:.3f}")
learning_picture([result.run for result in results.values()], "exact_match")

# %% [markdown]
# The model with attention has one map. The digits of the year move from the end of the source to the
# start of the translation:

# %%
translator = results["attention"].translator
attention_picture(translator, translator(TEXT))

# %% [markdown]
# ## Your own corpus
#
# Pairs of strings, here sums or those of a file with source, tab, target in each line. Characters suit
# short texts; for sentences take `vocabulary="sentencepiece"`, and the preset's own number of steps.

# %%
if UPLOAD:
    from google.colab import files

    OWN_TSV = next(iter(files.upload()), "")
if OWN_TSV:
    pairs = read_pairs(tsv=[OWN_TSV])
else:
    pairs = [(f"{a} + {b}", str(a + b)) for a in range(100) for b in range(100)]

config = encdec.preset("tiny", "attention")
data = replace(
    config.data,
    vocabulary="chars",
    max_source_length=128,
    max_target_length=128,
    batch_tokens=2048,
    num_buckets=2,
)
training = replace(config.training, max_steps=1000)
config = shorten(replace(config, data=data, training=training))
name = f"{Path(OWN_TSV).stem or 'sums'}-{config.training.max_steps}"
result = encdec.train(config, pairs, run=RUNS / name)

# %%
translator, held_out = result.translator, result.run.held_out
for source, reference in list(zip(*held_out, strict=True))[:5]:
    print(f"{source}   {translator(source).text}   (reference: {reference})")
attention_picture(translator, translator(held_out.src[0]))

# %% [markdown]
# ## A model that others trained
#
# Name a translation model on the hub, such as `Helsinki-NLP/opus-mt-en-de`, or a folder that
# Transformers saved. With a file of your own above, the model is fine-tuned on it.

# %%
HUB_MODEL = ""
if HUB_MODEL:
    imported = RUNS / Path(HUB_MODEL).name
    if not imported.exists():
        encdec.import_model(HUB_MODEL, imported)
    translator = encdec.load(imported)
    if OWN_TSV:
        origin = translator.run.config
        training = replace(origin.training, max_steps=500, warmup=50, learning_rate=1e-4)
        tuned = shorten(replace(origin, training=training))
        translator = encdec.train(
            tuned, pairs, run=RUNS / f"{imported.name}-{name}", init=imported
        ).translator
    for text in ["Two men are cooking.", "Good morning!"] if not OWN_TSV else pairs.src[:5]:
        print(f"{text}   {translator(text).text}")

# %% [markdown]
# ## More
#
# `!encdec --help` lists the other commands: BLEU by length, significance, export, a page to translate
# in. The folder `experiments/` has a script for each question, and the results in its README.
