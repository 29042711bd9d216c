"""Small trained tokenizers of the hub library, in every dialect that we import."""

import io
import json
import random
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import sentencepiece

from tests.interop.hub_models import transformers

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyzéüßñ",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "αβγδεζηθικλμνξοπρστυφχψωάέή",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "कखगघङचछजझटठडढणतथदधनपफबभमयरलवशषसहािीुूेो्ं",
    "กขคงจฉชซณดตถทธนบปผพฟภมยรลวศสหอะาิีุูเแโ่้",
    "가나다라마바사아자차카타파하거너더러머버서어저처고노도로모보소오",
    "一二三四五六七八九十人大小中日月木水火土金上下左右手口目耳山川",
    "あいうえおかきくけこさしすせそアイウエオカキクケコー",
    "աբգդեզէըթժիլխծկհձղճմյնշոչպջռս",
    "აბგდევზთიკლმნოპჟრსტუფქღყშჩც",
)
SPACES = (" ",) * 30 + ("\t", "\u00a0", "\u3000", "  ", "   ", "\u200b", "\u2009", "\u2028", "\r")
RARE = (
    *(
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "👍🏽",
        "e\u0301",
        "n\u0303o",
        "\u0301",
        "\u200d",
        "\ufeff",
        "\u00ad",
        "\x00",
    ),
    *("\x01", "\x1b[0m", "\x7f", "\u0085", "ﬁ", "Å", "①", "ｆｕｌｌ", "ｶﾞ", "…", "—", "“q”", "«»"),
    *("▁", "▁▁a", "__en__", "__xx__", "eng_Latn", "ro_RO", "<mask>", "<mask_1>", "<unk_3>"),
    *(
        "</s>",
        "<pad>",
        "<unk>",
        "<s>",
        " </s> ",
        ">>fra<<",
        ">>xyz<<",
        "<extra_id_0>",
        "<extra_id_7>",
    ),
    *("don't", "we 've", " .", " ,", "12,345.67", "𐍈𐌰", "𝔘𝔫", "ꙮ", "\U0010ffff", "\ufffd", "&amp;"),
)
"""What tokenizers may trip over."""


def word(draw: random.Random) -> str:
    letters = draw.choice(ALPHABETS)
    # Squares make the first letters frequent, so that there is something to merge.
    text = "".join(
        letters[int(len(letters) * draw.random() ** 2)] for _ in range(draw.randint(1, 7))
    )
    return text.title() if draw.random() < 0.1 else text


def lines(number: int, seed: int, rare: float = 0.12) -> list[str]:
    """Random texts of a dozen scripts, with odd white space and rare characters."""
    draw = random.Random(seed)
    texts = []
    for _ in range(number):
        text = ""
        for _ in range(draw.randint(0, 9)):
            text += draw.choice(RARE) if draw.random() < rare else word(draw)
            text += draw.choice(SPACES) if draw.random() < 0.9 else draw.choice(",.!?;:")
        start = draw.choice(("", "", "", " ", "\t", "  ", ">>fra<< ", ">>deu<<", ">>no<<", ">>"))
        text = start + (text if draw.random() < 0.5 else text.strip())
        texts.append(unicodedata.normalize(draw.choice(("NFC", "NFD")), text))
    return texts


@cache
def train(kind: str = "unigram", seed: int = 0, size: int = 400, **how: Any) -> bytes:
    """A SentencePiece model that does not know every character of `lines`."""
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines(600, seed, rare=0)),
        model_writer=proto,
        model_type=kind,
        vocab_size=size,
        character_coverage=0.98,
        minloglevel=2,
        **how,
    )
    return proto.getvalue()


def pieces(proto: bytes) -> list[str]:
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


def table(*parts: Iterable[str]) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: i for i, name in enumerate(names)}


def write(folder: Path, **files: bytes | dict[str, Any]) -> None:
    """Writes files; `__` in a name is a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name.replace("__", ".")).write_bytes(data)


def marian(folder: Path) -> Any:
    source, target = train(seed=1), train(seed=2)
    names = (">>fra<<", ">>deu<<", ">>spa<<")
    vocabulary = table(("</s>", "<unk>"), pieces(source)[3:], pieces(target)[3:-40], names)
    write(folder, source__spm=source, target__spm=target)
    write(folder, vocab__json={**vocabulary, "<pad>": len(vocabulary)})
    return transformers.MarianTokenizer.from_pretrained(folder)


def marian_two(folder: Path) -> Any:
    source, target = train(seed=1), train(seed=2)
    ends = ("</s>", "<unk>")
    write(folder, source__spm=source, target__spm=target)
    one = table(ends, pieces(source)[3:], (">>fra<<", ">>deu<<", "<pad>"))
    # As long as the other: the hub library takes padding's id of one for that of the other.
    other = table(ends, pieces(target)[3:], ("unused", "unused too", "<pad>"))
    write(folder, vocab__json=one, target_vocab__json=other)
    write(folder, tokenizer_config__json={"separate_vocabs": True, "source_lang": "en"})
    return transformers.MarianTokenizer.from_pretrained(folder)


def m2m100(folder: Path) -> Any:
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    model = train("bpe")
    vocabulary = table(("<s>", "<pad>", "</s>", "<unk>"), pieces(model)[3:])
    languages = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    write(folder, sentencepiece__bpe__model=model, vocab__json=vocabulary)
    write(folder, special_tokens_map__json={"additional_special_tokens": languages})
    return transformers.M2M100Tokenizer.from_pretrained(folder, src_lang="en", tgt_lang="fr")


def with_languages(kind: str, model: str, codes: str) -> Callable[[Path], Any]:
    """NLLB or mBART, saved with a tokenizer.json."""

    def make(folder: Path) -> Any:
        names = [f"{side}_lang" for side in ("src", "tgt")]
        write(folder, sentencepiece__bpe__model=train(model))
        return getattr(transformers, f"{kind}TokenizerFast").from_pretrained(
            folder, **dict(zip(names, codes.split(), strict=True))
        )

    return make


def nllb(folder: Path, **how: Any) -> Any:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    how["extra_special_tokens"] = FAIRSEQ_LANGUAGE_CODES  # or it forgets the languages
    write(folder, sentencepiece__bpe__model=train("bpe"))
    return transformers.NllbTokenizerFast.from_pretrained(
        folder, src_lang="eng_Latn", tgt_lang="fra_Latn", **how
    )


def t5_model() -> bytes:
    return train(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def t5(kind: str, **how: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        write(folder, spiece__model=t5_model())
        return getattr(transformers, kind).from_pretrained(folder, **how)

    return make


def umt5(folder: Path) -> Any:
    t5("T5TokenizerFast")(folder).save_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    named = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder, **named)


def bart(folder: Path) -> Any:
    import tokenizers

    trained = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(
        lines(600, 0, rare=0), vocab_size=500, special_tokens=[*special, "<mask>"]
    )
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    return transformers.BartTokenizerFast.from_pretrained(folder)


MAKERS: dict[str, Callable[[Path], Any]] = {
    "marian": marian,
    "marian-two-vocabularies": marian_two,
    "m2m100": m2m100,
    "nllb": nllb,
    "nllb-legacy": partial(nllb, legacy_behaviour=True),
    "mbart": with_languages("MBart", "unigram", "en_XX ro_RO"),
    "mbart50": with_languages("MBart50", "unigram", "en_XX sl_SI"),
    "bart": bart,
    "t5": t5("T5TokenizerFast"),
    "mt5": t5("T5TokenizerFast", extra_ids=0),
    "umt5": umt5,
    "pegasus": t5("PegasusTokenizerFast"),
    "byt5": lambda folder: transformers.ByT5Tokenizer(),
}
"""By name, functions that train a tokenizer with files in a folder."""

CONFIGS: dict[str, dict[str, Any]] = {
    "marian": {"model_type": "marian", "pad_token_id": 424, "eos_token_id": 0}
    | {"decoder_start_token_id": 424},
    "marian-two-vocabularies": {"model_type": "marian", "pad_token_id": 401, "eos_token_id": 0}
    | {"decoder_start_token_id": 401, "decoder_vocab_size": 402},
    "m2m100": {"model_type": "m2m_100"},
    "mbart": {"model_type": "mbart"},
    "bart": {"model_type": "bart", "decoder_start_token_id": 2},
    "pegasus": {"model_type": "pegasus", "decoder_start_token_id": 0},
    "t5": {"model_type": "t5"},
    "mt5": {"model_type": "mt5", "decoder_start_token_id": 0},
    "umt5": {"model_type": "umt5", "decoder_start_token_id": 0},
}
CONFIGS |= {"nllb": CONFIGS["m2m100"], "nllb-legacy": CONFIGS["m2m100"]}
CONFIGS |= {"mbart50": CONFIGS["mbart"], "byt5": CONFIGS["t5"]}
"""config.json of a model with such a tokenizer."""
