"""Does a recurrent encoder-decoder that others trained compute the same in our modules?

    pip download g2p-en --no-deps && unzip -o g2p_en-*.whl   # only its weights are read
    python experiments/g2p_en.py g2p_en/checkpoint20.npz activationist transliteration

The package g2p-en (Park and Kim, Apache-2.0) pronounces English words that are in no dictionary.
Its model is a GRU encoder-decoder, one layer of 128 units, trained in PyTorch: so its cell is
"gru-reset-after" of `Seq2SeqConfig`, and its arrays are mapped by `encdec.interop.torch_rnn`.

Expected: AE2 K T IH0 V EY1 SH AH0 N IH0 S T for "activationist", as the package itself prints; on
2026-11-26 both gave the same phonemes for 500 of 500 random words of 1 to 14 letters.
Duration: 10 s on 2 CPU cores, most of it importing and compiling.
"""

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
from encdec.config import Seq2SeqConfig
from encdec.interop.torch_rnn import recurrent_params
from encdec.models import registry
from encdec.search.sampling import greedy
from encdec.types import InputError, Params, SpecialIds

PAD, UNKNOWN, START, END = range(4)  # of the phonemes
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
SOURCE_END = LETTERS.index("</s>")
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
STRESSED = [f"{vowel}{stress}" for vowel in VOWELS.split(" ") for stress in range(3)]
# In alphabetical order, with one UW that has no stress.
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted([*STRESSED, *CONSONANTS.split(" "), "UW"])]

MAX_PHONEMES = 20
"""The package's own limit."""


@dataclass(frozen=True)
class Options:
    """The weights, and words to pronounce."""

    checkpoint: Positional[Path]
    """checkpoint20.npz of the package."""
    words: Positional[tuple[str, ...]] = ("activationist",)
    """English words in lower case."""


def read_params(path: Path) -> Params:
    """The parameters of our module from the package's arrays."""
    try:
        saved = dict(np.load(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not the checkpoint20.npz of g2p-en: {error}") from error

    def layer(side: str) -> Params:
        names = {"weight": "w", "bias": "b"}
        arrays = {
            f"{name}_{which}_l0": saved[f"{side}_{letter}_{which}"]
            for name, letter in names.items()
            for which in ("ih", "hh")
        }
        return recurrent_params(arrays, "gru-reset-after")

    return {
        "src_embedding": {"embedding": saved["enc_emb"]},
        "tgt_embedding": {"embedding": saved["dec_emb"]},
        "encoder_0": layer("enc"),
        "decoder_0": layer("dec"),
        "logits": {"kernel": saved["fc_w"].T, "bias": saved["fc_b"]},
    }


def pronounce(params: Params, words: tuple[str, ...]) -> list[str]:
    """The likeliest phonemes of each word, one after another, with spaces between."""
    letters, width = params["src_embedding"]["embedding"].shape
    hidden = params["logits"]["kernel"].shape[0]
    config = Seq2SeqConfig(cell="gru-reset-after", embed=width, hidden=hidden, reverse_source=False)
    model = registry.build(config, letters, len(PHONEMES))
    ids = [[*(LETTERS.index(c) if c in LETTERS else UNKNOWN for c in w), SOURCE_END] for w in words]
    src = np.zeros((len(words), max(map(len, ids))), np.int32)
    mask = np.zeros(src.shape, bool)
    for row, sentence in enumerate(ids):
        src[row, : len(sentence)], mask[row, : len(sentence)] = sentence, True

    @jax.jit
    def search(params: Params, src: Any, mask: Any) -> Any:
        bound = partial(model.apply, {"params": params})
        memory = bound(src, mask, method="encode")
        init_cache: Any = partial(bound, memory, 1, method="init_cache")
        step: Any = partial(bound, method="decode_step")
        limits = jnp.full(len(words), MAX_PHONEMES)
        specials = SpecialIds(PAD, START, END, UNKNOWN)
        common: Any = {"max_len": MAX_PHONEMES, "specials": specials, "banned": (PAD, START)}
        return greedy(step, memory, init_cache, limits, **common)

    found = search(params, src, mask)
    return [
        " ".join(PHONEMES[i] for i in tokens[:length] if i != END)
        for tokens, length in zip(found.tokens[:, 0], found.lengths[:, 0], strict=True)
    ]


def main(options: Options) -> None:
    """Prints each word and its pronunciation."""
    for word, phonemes in zip(
        options.words, pronounce(read_params(options.checkpoint), options.words), strict=True
    ):
        print(f"{word}\t{phonemes}")


if __name__ == "__main__":
    with as_command("g2p_en.py"):
        main(tyro.cli(Options, description=__doc__))
