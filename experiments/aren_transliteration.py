"""Does a Transformer that others trained compute the same in our module?

    python experiments/aren_transliteration.py FOLDER آتزمون آزا

FOLDER is `tests/data/models/v2/aren-transliteration` of the repository OpenNMT/CTranslate2 (MIT): a
Transformer of 182,731 parameters that writes Arabic names in Latin letters, in the format of
CTranslate2: `model.bin`, `source_vocabulary.txt`, `target_vocabulary.txt`. The script maps its
arrays to our parameters, prints what greedy and beam search give for the words, and where
CTranslate2 is installed (`pip install ctranslate2`) compares greedy search with its own.

Expected: atzmon for آتزمون and azza for آزا from either search, as the tests of CTranslate2 expect;
on 2026-11-26 both gave the same for 500 of 500 random words of 1 to 12 letters.
Duration: 25 s on 2 CPU cores, most of it importing and compiling.
"""

import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tyro.conf import Positional

from encdec.cli.main import as_command
from encdec.config import TransformerConfig
from encdec.models import registry
from encdec.search.beam import beam_search
from encdec.search.sampling import greedy
from encdec.types import InputError, Params, SpecialIds

PAD, START, END = range(3)  # of both sides; the last id is that of unknown letters
MAX_LETTERS = 40
BEAMS = 4
HEADS = 8
"""Version 2 of the format does not hold it: 8 is what CTranslate2 assumes."""


@dataclass(frozen=True)
class Options:
    """The model, and words to write in Latin letters."""

    folder: Positional[Path]
    """Folder of model.bin and the two vocabularies."""
    words: Positional[tuple[str, ...]] = ("آتزمون", "آزا")
    """Arabic words."""
    random_words: int = 500
    """Random words to compare with CTranslate2 on, if it is installed."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file in version 2 of CTranslate2's format, by name.

    The file holds: version u32, a string (its length as u16 with the closing NUL, then the bytes),
    revision u32, count u32; for each array its name, rank u8, sizes u32, bytes of an item u8,
    number of items u32, and the data.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    place = 0

    def take(form: str) -> Any:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(f"<{form}")
        return value

    def take_name() -> str:
        size = take("H")
        return take(f"{size}s")[:-1].decode()

    try:
        version = take("I")
        if version != 2:
            raise InputError(f"{path} has version {version} of the format: version 2 is read here")
        take_name()  # the kind of model
        take("I")  # its revision
        arrays = {}
        for _ in range(take("I")):
            name = take_name()
            sizes = [take("I") for _ in range(take("B"))]
            item, count = take("B"), take("I")
            arrays[name] = np.frombuffer(take(f"{item * count}s"), "<f4").reshape(sizes)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a model of CTranslate2, or damaged: {error}") from error
    return arrays


def read_tokens(path: Path) -> list[str]:
    """The tokens of a vocabulary, one for each line, and <unk>, which the file leaves out."""
    try:
        return [*path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), "<unk>"]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a vocabulary of CTranslate2: {error}") from error


def config_of(arrays: dict[str, np.ndarray]) -> TransformerConfig:
    """The settings: sizes are those of the arrays, the rest is what CTranslate2 computes."""
    layers = [
        sum(name.startswith(side) and name.endswith("/ffn/linear_0/bias") for name in arrays)
        for side in ("encoder", "decoder")
    ]
    hidden, width = arrays["encoder/layer_0/ffn/linear_0/weight"].shape
    return TransformerConfig(
        layers=layers[0],
        decoder_layers=layers[1],
        width=width,
        feed_forward=hidden,
        heads=HEADS,
        norm="pre",
        norm_epsilon=1e-5,
        biases="all",
        positions="sinusoidal-tensor2tensor",
        position_offset=1,
    )


def params_of(arrays: dict[str, np.ndarray]) -> Params:
    """The parameters of our module."""

    def norm(name: str) -> Params:
        return {"scale": arrays[f"{name}/gamma"], "bias": arrays[f"{name}/beta"]}

    def dense(name: str) -> Params:
        return {"kernel": arrays[f"{name}/weight"].T, "bias": arrays[f"{name}/bias"]}

    def attention(name: str) -> Params:
        # Self-attention has queries, keys and values in one matrix [3D, D]; encoder-decoder
        # attention has queries in one, keys and values in the next.
        layers = [f"{name}/linear_{i}" for i in range(3) if f"{name}/linear_{i}/bias" in arrays]
        *inputs, output = map(dense, layers)
        kernels, biases = (
            np.split(np.concatenate([layer[part] for layer in inputs], axis=-1), 3, axis=-1)
            for part in ("kernel", "bias")
        )
        width = len(output["bias"])
        heads = (HEADS, width // HEADS)
        params = {f"w{x}": w.reshape(width, *heads) for x, w in zip("qkv", kernels, strict=True)}
        params |= {f"b{x}": b.reshape(heads) for x, b in zip("qkv", biases, strict=True)}
        return params | {"wo": output["kernel"].reshape(*heads, width), "bo": output["bias"]}

    def layer(name: str, sublayers: dict[str, str]) -> Params:
        params = {ours: attention(f"{name}/{theirs}") for ours, theirs in sublayers.items()}
        linear = {f"Dense_{i}": dense(f"{name}/ffn/linear_{i}") for i in range(2)}
        norms = {
            f"add_norms_{i}": {"norm": norm(f"{name}/{sublayer}/layer_norm")}
            for i, sublayer in enumerate([*sublayers.values(), "ffn"])
        }
        return params | norms | {"feed_forward": linear}

    config = config_of(arrays)
    of_encoder = {"attention": "self_attention"}
    of_decoder = {"self_attention": "self_attention", "cross_attention": "attention"}
    return {
        "src_embedding": {"embedding": arrays["encoder/embeddings/weight"]},
        "tgt_embedding": {"embedding": arrays["decoder/embeddings/weight"]},
        **{f"encoder_{i}": layer(f"encoder/layer_{i}", of_encoder) for i in range(config.layers)},
        **{
            f"decoder_{i}": layer(f"decoder/layer_{i}", of_decoder)
            for i in range(config.layers_of_decoder)
        },
        "final_norms_0": norm("encoder/layer_norm"),
        "final_norms_1": norm("decoder/layer_norm"),
        "logits": dense("decoder/projection"),
    }


def transliterate(folder: Path, words: list[str], beams: int) -> list[str]:
    """The best hypothesis of each word; greedy search where `beams` is 1."""
    arrays = read_arrays(folder / "model.bin")
    letters, latin = (read_tokens(folder / f"{s}_vocabulary.txt") for s in ("source", "target"))
    model = registry.build(config_of(arrays), len(letters), len(latin))
    ids = {letter: i for i, letter in enumerate(letters)}
    lengths = np.array([len(word) for word in words])
    src = np.full((len(words), lengths.max()), PAD, np.int32)
    for row, word in enumerate(words):
        src[row, : len(word)] = [ids.get(letter, len(letters) - 1) for letter in word]

    @jax.jit
    def search(params: Params, src: Any, mask: Any) -> Any:
        bound = partial(model.apply, {"params": params})
        memory = bound(src, mask, method="encode")
        init_cache: Any = partial(bound, memory, beams, method="init_cache")
        step: Any = partial(bound, method="decode_step")
        method = greedy if beams == 1 else partial(beam_search, beams=beams)
        specials = SpecialIds(PAD, START, END, len(latin) - 1)
        limits = jnp.full(len(words), MAX_LETTERS)
        common: Any = {"max_len": MAX_LETTERS, "specials": specials, "banned": (PAD, START)}
        return method(step, memory, init_cache, limits, **common)

    result = search(params_of(arrays), src, np.arange(src.shape[1]) < lengths[:, None])
    return [
        "".join(latin[i] for i in tokens[:length] if i != END)
        for tokens, length in zip(result.tokens[:, 0], result.lengths[:, 0], strict=True)
    ]


def compare(folder: Path, count: int) -> str:
    """One line: for how many random words greedy search gives what CTranslate2 gives."""
    try:
        import ctranslate2
    except ImportError:
        return "no comparison: CTranslate2 is not installed"
    letters = read_tokens(folder / "source_vocabulary.txt")[END + 1 : -1]
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(letters, rng.integers(1, 13))) for _ in range(count)]
    theirs = ctranslate2.Translator(str(folder), compute_type="float32").translate_batch(
        [list(word) for word in words], beam_size=1, max_decoding_length=MAX_LETTERS
    )
    pairs = zip(transliterate(folder, words, 1), theirs, strict=True)
    equal = sum(ours == "".join(result.hypotheses[0]) for ours, result in pairs)
    return f"greedy search equals that of CTranslate2 for {equal} of {count} random words"


def main(options: Options) -> None:
    """Prints each word in Latin letters, and the comparison."""
    words = list(options.words)
    searches = [transliterate(options.folder, words, beams) for beams in (1, BEAMS)]
    for word, *found in zip(words, *searches, strict=True):
        print(word, *found, sep="\t")
    print(compare(options.folder, options.random_words))


if __name__ == "__main__":
    with as_command("aren_transliteration.py"):
        main(tyro.cli(Options, description=__doc__))
