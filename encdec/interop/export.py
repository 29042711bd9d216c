"""A run made into files that others can use without this package.

| format | what | read by |
|---|---|---|
| transformers | parameters, settings, tokenizer (`encdec.interop.hub_export`) | the hub library |
| ctranslate2 | the same for CTranslate2 (`encdec.interop.ctranslate2`) | CTranslate2 |
| stablehlo | greedy search as a program (`encdec.interop.stablehlo`), vocabularies | JAX |
| safetensors | parameters by their names in the Linen module, vocabularies | anything |

The last two have the run's config.json, source.vocab and target.vocab. The vocabularies say how
text becomes token ids (see `encdec.data.vocabulary`). For characters and words, token i of `table`
has the id 4 + i; byte b has the id 4 + b; SentencePiece has the ids of its own model. In all of
them padding is 0, start 1, end 2 and unknown 3.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.data.vocabulary import Vocabulary
from encdec.files import atomic_folder, given_path
from encdec.inference.arguments import given_integer
from encdec.interop import ctranslate2, hub_export
from encdec.interop.stablehlo import greedy_program
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.parameters import best_params
from encdec.runs.run import Run
from encdec.types import InputError, Params

Say = Callable[[str], None]

FORMATS = ("transformers", "ctranslate2", "stablehlo", "safetensors")
"""What a run can be written as."""
_SOURCE_LENGTH = 64


def export_run(
    path: str | Path,
    out: str | Path,
    to: str,
    *,
    source_length: int | None = None,
    say: Say = lambda line: None,
) -> list[Path]:
    """Writes the files of a format, or nothing if one cannot be written.

    Args:
      path: the run folder.
      out: a folder that does not exist yet.
      to: transformers, ctranslate2, stablehlo or safetensors.
      source_length: of stablehlo, S in tokens, the end token included; by default 64, or the
        longest source of the run if that is less.
      say: is called with a line for each thing that the format has otherwise.

    Returns:
      The files.

    Raises:
      InputError: there is no run or no checkpoint, the folder `out` exists, the length cannot be
        used, or the format cannot hold the run.
    """
    path, out = given_path("path", path), given_path("out", out)
    if to not in FORMATS:
        raise InputError(f"to = {to!r} is none of {', '.join(FORMATS)}")
    if out.exists():
        raise InputError(f"{out} is there already: name a folder that does not exist yet")
    run = runs.load(path)
    if to in ("transformers", "ctranslate2") and to not in run.config.model.formats:
        raise InputError(
            f"{path} is a run of {run.config.model_name}, which {to} does not have: export it as "
            "stablehlo or safetensors"
        )
    length = _source_length(source_length, to, run)
    params, _ = best_params(run)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(out) as folder:
            if to == "transformers":
                hub_export.write_model(run, params, folder, say)
            elif to == "ctranslate2":
                _write_ctranslate2(run, params, folder)
            else:
                if to == "safetensors":
                    save_file(_contiguous(params), folder / "model.safetensors")
                else:
                    program = greedy_program(run, jax.tree.map(jnp.asarray, params), length)
                    (folder / "greedy.stablehlo").write_bytes(program.serialize())
                for name in ("config.json", "source.vocab", "target.vocab"):
                    shutil.copyfile(run.path / name, folder / name)
            for file in folder.iterdir():  # safetensors writes for the owner only
                file.chmod(folder.stat().st_mode & 0o666)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{out} cannot be written: {reason}") from error
    return sorted(out.iterdir())


def _source_length(given: int | None, to: str, run: Run) -> int:
    """The length of the input of a program, in tokens."""
    longest = run.config.data.max_source_length + 1
    if given is None:
        return min(_SOURCE_LENGTH, longest)
    if to != "stablehlo":
        raise InputError(f"source_length is for stablehlo, not for {to}: leave it out")
    length = given_integer("source_length", given, least=-(2**64))
    if not 2 <= length <= longest:
        raise InputError(
            f"source_length = {length} cannot be used: it must be from 2 to {longest}, the longest "
            "source that the run was trained on with its end token"
        )
    return length


def _contiguous(params: Params) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(leaf) for name, leaf in checkpoints.flat(params).items()}


def _write_ctranslate2(run: Run, params: Params, folder: Path) -> None:
    """A model of CTranslate2, and the files of its tokenizer."""
    config: Any = run.config.model
    source, target = run.src_vocabulary, run.tgt_vocabulary
    sides = {"source": source, "target": target}
    tokens = {side: token_names(v, run.path, side) for side, v in sides.items()}
    same = tokens["source"] == tokens["target"]
    of_source = source.specials
    if same:  # the end token of a source may be its language, which the format does not know
        of_source = target.specials
    ctranslate2.write_model(
        folder,
        config,
        params,
        tokens["source"],
        tokens["source"] if same else tokens["target"],
        src_specials=of_source,
        tgt_specials=target.specials,
        # The tokenizer of an imported model writes the end token itself.
        add_source_eos=run.original is None,
    )
    if run.original:
        hub_export.copy_tokenizer(run, folder)
    else:
        for side, vocabulary in sides.items():
            model = hub_export.sentencepiece_of(vocabulary, run.path, side)
            (folder / f"{side}.spm").write_bytes(model.proto)


def token_names(vocabulary: Vocabulary, path: Path, side: str) -> list[str]:
    """A name for each id of a vocabulary, all different; pieces as the tokenizer writes them."""
    if not isinstance(vocabulary, PretrainedVocabulary):
        return hub_export.pieces_of(hub_export.sentencepiece_of(vocabulary, path, side))
    names: list[str] = []
    for i in range(vocabulary.size):
        piece = vocabulary.pieces.piece(i)
        names.append(f"<unused_{i}>" if piece is None else piece)
    return names
