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
# # encdec: train a translator, and see where it looks
#
# Three generations of encoder-decoder on the same data: one fixed vector (*seq2seq*), *attention*,
# and the *Transformer*. Choose **Runtime > Run all**. On a TPU, a GPU or a plain CPU it ends within
# minutes, with a trained translator of dates, its learning curves, its attention maps, a comparison
# of the three, and a run on a corpus of your own.
#
# For an accelerator choose **Runtime > Change runtime type** before you run. Whatever is trained lies
# in a run folder: after a disconnect run all cells again, and training goes on from its last
# checkpoint (if `DRIVE` was ticked, or the runtime is still the same).
#
# Outside of a clone of the repository, say in `PACKAGE` where encdec is.

# %% tags=["parameters"]
PACKAGE = ""  # @param {type:"string"}
# Where encdec is to be installed from: a folder, a wheel, or "git+https://...". Left empty: the clone
# that this notebook is in, or that lies beside it. An encdec that is installed is left alone.
DRIVE = False  # @param {type:"boolean"}
# Keep the runs in Google Drive.
TEXT = "Donnerstag, 3. Mai 1979"  # @param {type:"string"}
# A date to translate, in any of fifteen languages.
OWN_TSV = ""  # @param {type:"string"}
# Your own corpus: a file with source, tab, target in each line. Left empty: sums, made here.
UPLOAD = False  # @param {type:"boolean"}
# Ask for that file in the browser.
SHARE = 1.0  # @param {type:"number"}
# The share of each recipe's steps that is trained: less is faster, and worse.

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
for one in distributions():
    if one.name:  # what is found first is what is imported
        versions.setdefault(one.name.lower(), one.version)
if "encdec" not in versions:
    near = (Path.cwd(), Path.cwd().parent, Path.cwd() / "encdec")
    clones = [str(folder) for folder in near if (folder / "encdec" / "__init__.py").exists()]
    if not PACKAGE and not clones:
        raise ValueError(
            "PACKAGE is empty and encdec is not here: name a folder, wheel or git+https"
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
from encdec.cli.doctor import examined
from encdec.config import RunConfig
from encdec.config.presets import preset
from encdec.plots.runs import attention_picture, learning_picture
from encdec.runs.metrics_log import measured
from encdec.runs.run import load as load_run

RUNS = Path("runs")
if DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
    RUNS = Path("/content/drive/MyDrive/encdec")

# %% [markdown]
# ## What this runtime computes with

# %%
for finding in examined():
    print(f"{finding.verdict:<4}  {finding.subject:<10}  {finding.text}")
    if finding.verdict == "FAIL":
        box = "font-size: 1.6em; color: #fff; background: #9b1c1c; padding: 0.5em"
        display(HTML(f'<p style="{box}">{escape(finding.text)}</p>'))
        raise RuntimeError("see the red box: choose Runtime > Change runtime type, then Run all")

# %% [markdown]
# ## Train the Transformer on dates
#
# The built-in corpus turns dates as people write them into ISO dates. Run the cell again and it says
# that all is done; interrupt it and run it again, and it goes on from its last checkpoint.


# %%
def shortened(config: RunConfig) -> RunConfig:
    """A recipe with SHARE of its steps."""
    steps = max(4, round(SHARE * config.training.max_steps))
    training = replace(config.training, max_steps=steps, evaluate_every=max(200, steps // 10))
    return replace(config, training=training)


def trained(model: str) -> Path:
    """The run folder of a model on dates, trained as far as its recipe says."""
    config = shortened(preset("dates", model))
    folder = RUNS / f"dates-{model}-{config.training.max_steps}"
    encdec.train(config, run=folder)
    return folder


transformer = trained("transformer")

# %%
learning_picture([load_run(transformer)])

# %% [markdown]
# ## Translate, and see where it looked
#
# Each row is a character of the translation, each column one of the source; the darker a cell, the
# more the row looked at the column. Change `TEXT` above, or call `translator` with a text.

# %%
translator = encdec.load(transformer)
found = translator(TEXT)
print(found.text)
attention_picture(translator, found, layer=2)

# %% [markdown]
# The source looks at itself too, in the encoder. Here the first head of its first layer:

# %%
attention_picture(translator, found, "encoder", layer=1, head=1)

# %% [markdown]
# ## The three generations side by side
#
# Metrics on dates that were never trained on, by greedy search.

# %%
runs = {"transformer": transformer} | {m: trained(m) for m in ("attention", "seq2seq")}

# %%
print(f"{'model':<12}  exact match  BLEU   nats a token")
for model, folder in runs.items():
    last = measured(folder / "metrics.jsonl").valid[-1]
    print(f"{model:<12}  {last['exact_match']:11.3f}  {last['bleu']:5.1f}  {last['loss']:.3f}")
learning_picture([load_run(folder) for folder in runs.values()], "exact_match")

# %% [markdown]
# The model with attention has one map. Digits of the year jump from the end of the source to the
# front of the translation:

# %%
translator = encdec.load(runs["attention"])
attention_picture(translator, translator(TEXT))

# %% [markdown]
# ## Your own corpus
#
# A file with source, tab, target in each line. Characters suit short texts; for sentences take
# `vocabulary="sentencepiece"`, and the preset's own number of steps.

# %%
if UPLOAD:
    from google.colab import files

    OWN_TSV = next(iter(files.upload()), "")
if not OWN_TSV:
    OWN_TSV = "sums.tsv"
    sums = [(a, b) for a in range(100) for b in range(100)]
    Path(OWN_TSV).write_text("".join(f"{a} + {b}\t{a + b}\n" for a, b in sums))

recipe = preset("tiny", "attention")
data = replace(
    recipe.data,
    tsv=(str(Path(OWN_TSV).absolute()),),
    vocabulary="chars",
    max_source_length=128,
    max_target_length=128,
    batch_tokens=2048,
    num_buckets=2,
)
training = replace(recipe.training, max_steps=1000)
own = shortened(replace(recipe, data=data, training=training))
own_run = RUNS / f"{Path(OWN_TSV).stem}-{own.training.max_steps}"
encdec.train(own, run=own_run)

# %%
translator = encdec.load(own_run)
held_out = translator.run.held_out
for source, reference in list(zip(*held_out, strict=True))[:5]:
    print(f"{source}   {translator(source).text}   (reference: {reference})")
attention_picture(translator, translator(held_out.src[0]))

# %% [markdown]
# ## Further
#
# `!encdec --help` lists what else there is: BLEU by length, significance, export, a page to translate
# in. The folder `experiments/` holds a script for each question, with what was seen in its README.
