"""Tokenizers of models in the hub library's format as vocabularies of ours.

What each architecture puts around the ids of a text:

| | source | target, after the start token |
|---|---|---|
| Marian | [>>language<<] text end | text end |
| M2M100, NLLB, mBART-50 | language text end | language text end |
| NLLB, legacy behaviour | text end language | language text end |
| mBART-25 | text end language | text end; it starts with the language |
| BART | `<s>` text end | `<s>` text end |
| Pegasus, T5, mT5, UMT5, ByT5 | text end | text end |
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from encdec.data.pretrained_pieces import Pieces, SentencePieceTable, TokenizerJson
from encdec.data.pretrained_vocabulary import LanguagePlace, PretrainedVocabulary
from encdec.interop import language_codes, tokenizer_kinds
from encdec.interop.names import Fields
from encdec.interop.tokenizer_files import TokenizerFolder, open_folder
from encdec.types import InputError, SpecialIds


class Framing(NamedTuple):
    """How a family of tokenizers frames a text.

    Attributes:
      source, target: where the id of the language is; None where there is none.
      language: what the token of a language looks like, with its code as the only group.
      starts_with_end: whether the decoder starts with the end token, unless config.json says
        otherwise; else with padding.
      bos: whether `<s>` comes before the text.
    """

    source: LanguagePlace | None = None
    target: LanguagePlace | None = None
    language: str = ""
    starts_with_end: bool = False
    bos: bool = False


FRAMINGS = {
    "Marian": Framing("default", None, ">>(.+)<<"),
    "M2M100": Framing("before", "before", "__([a-z]{2,3})__", True),
    "Nllb": Framing("before", "before", "([a-z]{3}_[A-Z][a-z]{3})", True),
    "MBart": Framing("end", "start", "([a-z]{2}_[A-Z]{2})", True),
    "MBart50": Framing("before", "before", "([a-z]{2}_[A-Z]{2})", True),
    "Bart": Framing(starts_with_end=True, bos=True),
    "Pegasus": Framing(),
    "T5": Framing(),
    "ByT5": Framing(),
}
"""By the name of the tokenizer's class, without "Tokenizer"."""
_ALIASES = {"Roberta": "Bart", "MT5": "T5"}
_BY_MODEL = {"marian": "Marian", "bart": "Bart", "pegasus": "Pegasus", "mt5": "T5", "umt5": "T5"}
"""Where no class is named: by `model_type`, unless several tokenizers belong to one."""


def read_vocabularies(
    folder: Path,
    fields: Fields,
    source_language: str | None = None,
    target_language: str | None = None,
    normalize_punctuation: bool = False,
) -> tuple[PretrainedVocabulary, PretrainedVocabulary]:
    """The source and the target vocabulary of a model.

    Args:
      folder: with the files of the tokenizer.
      fields: config.json of the model.
      source_language: code of the source language; None takes that of the files.
      target_language: code of the target language; None takes that of the files. For Marian it
        may stay open: a text can begin with `>>fra<<` itself.
      normalize_punctuation: whether punctuation is normalized by Moses' rules first, as the
        training data of Marian was. The hub library does not do so.

    Raises:
      InputError: a file is missing or damaged, a language is unknown, missing, or given for a
        tokenizer that has none.
    """
    tokenizer = open_folder(folder)
    family = _family(tokenizer, fields)
    framing = FRAMINGS[family]
    if family == "Nllb" and tokenizer.config.get("legacy_behaviour"):
        framing = framing._replace(source="end")
    punctuation = tokenizer.config.get("source_lang", "") if normalize_punctuation else None
    pieces = _pieces(tokenizer, family, punctuation)
    size = fields.require("vocab_size", int)
    sizes = (size, fields.get("decoder_vocab_size", int, size))
    special = _special_ids(tokenizer, fields, max(sizes))
    places = (framing.source, framing.target)
    try:
        source, target = (
            _vocabulary(side, size, tokenizer, framing, special, place)
            for side, size, place in zip(pieces, sizes, places, strict=True)
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f"the tokenizer in {folder} does not belong to the model: {error}; copy the files of "
            "both again"
        ) from error
    if family == "Marian":
        if source_language is not None:
            raise InputError(
                f"--source-language cannot be used: the tokenizer in {folder} knows languages of "
                "the target only"
            )
        return _choose(source, target_language, "target", folder), target
    stated = _stated_languages(tokenizer, fields, target)
    return (
        _choose(source, source_language or stated[0], "source", folder),
        _choose(target, target_language or stated[1], "target", folder),
    )


def _choose(
    vocabulary: PretrainedVocabulary, language: str | None, side: str, folder: Path
) -> PretrainedVocabulary:
    """The vocabulary with a language, where it needs one."""
    option = f"--{side}-language"
    place = vocabulary.language_place
    if language is None:
        if place in (None, "default"):
            return vocabulary
        raise InputError(
            f"the tokenizer in {folder} knows {len(vocabulary.languages)} languages: give {option}"
        )
    if place is None:
        raise InputError(
            f"{option} cannot be used: the tokenizer in {folder} has no languages to choose from"
        )
    try:
        return vocabulary.with_language(language)
    except InputError as error:
        raise InputError(f"{option}: {error}") from error


def _vocabulary(
    pieces: Pieces,
    size: int,
    tokenizer: TokenizerFolder,
    framing: Framing,
    named: Mapping[str, int],
    place: LanguagePlace | None,
) -> PretrainedVocabulary:
    """A vocabulary for which no language is chosen yet.

    Args:
      pieces, size: of this side.
      tokenizer, framing: of both sides.
      named: special ids by the fields that name them, see `_special_ids`.
      place: where the id of the language is.
    """

    def special(field: str, name: str, default: str) -> int:
        # The two sides of Marian may differ in length, and the last id of each is padding.
        if named.get(field, size) < size:
            return named[field]
        i = pieces.id_of(tokenizer.token(name, default))
        if i is None:
            raise InputError(
                f"config.json in {tokenizer.path} has no {field}, nor has the tokenizer: add the "
                "field"
            )
        return i

    pad, end = special("pad_token_id", "pad", "<pad>"), special("eos_token_id", "eos", "</s>")
    start = named.get("decoder_start_token_id", size)
    if start >= size:
        start = end if framing.starts_with_end else pad
    unknown = pieces.id_of(tokenizer.token("unk", "<unk>"))
    bos = pieces.id_of(tokenizer.token("cls", "<s>")) if framing.bos else None
    return PretrainedVocabulary(
        pieces,
        size,
        SpecialIds(pad, start, end, pad if unknown is None else unknown),
        before=() if bos is None else (bos,),
        after=(end,) if place == "end" else (),
        language_place=place,
        language_ids={} if place is None else _language_ids(pieces, framing.language, size),
    )


def _special_ids(tokenizer: TokenizerFolder, fields: Fields, size: int) -> dict[str, int]:
    """The special ids that the settings name, by field.

    Decoding starts with the token that generation names, as in the hub library.
    """
    start = "decoder_start_token_id"
    places = [(fields, name) for name in ("pad_token_id", "eos_token_id", start)]
    named: dict[str, int] = {}
    for file, name in [*places, (_generation(tokenizer), start)]:
        i = file.get(name, int | list)  # a list, of several ends, is no id of a vocabulary
        if not isinstance(i, int):
            continue
        if not 0 <= i < size:
            raise InputError(
                f"{file.path}: {name} = {i} cannot be used: it must be from 0 to {size - 1}"
            )
        named[name] = i
    return named


def _generation(tokenizer: TokenizerFolder) -> Fields:
    """generation_config.json; no fields where there is none."""
    name = "generation_config.json"
    values = tokenizer.object(name) if tokenizer.has(name) else {}
    return Fields(values, str(tokenizer.path / name))


def _language_ids(pieces: Pieces, pattern: str, size: int) -> dict[str, int]:
    """The ids of the tokens that name a language, by its code; without those of no row."""
    assert isinstance(pieces, SentencePieceTable | TokenizerJson)
    tokens = {token.text: token.id for token in pieces.added if token.special}
    if isinstance(pieces, SentencePieceTable):
        tokens = {**pieces.table, **tokens}  # Marian's languages are ordinary pieces
    matches = ((re.fullmatch(pattern, text), i) for text, i in tokens.items())
    return {match[1]: i for match, i in matches if match and i < size}


def _stated_languages(
    tokenizer: TokenizerFolder, fields: Fields, target: PretrainedVocabulary
) -> tuple[str | None, str | None]:
    """The languages that the files name."""
    if target.language_place is None:
        return None, None
    codes = {i: code for code, i in target.language_ids.items()}
    # mBART-25 starts with the language; the others are made to continue with it.
    field = "decoder_start_token_id" if target.language_place == "start" else "forced_bos_token_id"
    ids = [file.values.get(field) for file in (_generation(tokenizer), fields)]
    forced = next((codes[i] for i in ids if isinstance(i, int) and i in codes), None)
    return tokenizer.config.get("src_lang"), tokenizer.config.get("tgt_lang") or forced


def _family(tokenizer: TokenizerFolder, fields: Fields) -> str:
    """Which of `FRAMINGS` a tokenizer belongs to."""
    named = tokenizer.config.get("tokenizer_class") or fields.values.get("tokenizer_class") or ""
    name = re.sub("Tokenizer(Fast)?$", "", str(named))
    name = _ALIASES.get(name, name)
    kind = fields.require("model_type", str)
    if name in FRAMINGS:
        return name
    if kind == "m2m_100":
        return "M2M100" if tokenizer.has("vocab.json") else "Nllb"
    if kind == "mbart":
        # As for the hub library, unless the tokens tell that it is the larger one.
        last = language_codes.MBART_50.split()[-1]
        is_larger = tokenizer.has("tokenizer.json") and last in (
            token.text for token in tokenizer_kinds.tokenizer_json(tokenizer).added
        )
        return "MBart50" if is_larger else "MBart"
    if kind == "t5":
        files = ("tokenizer.json", "spiece.model")
        return "T5" if any(map(tokenizer.has, files)) else "ByT5"
    if kind in _BY_MODEL:
        return _BY_MODEL[kind]
    raise InputError(f"{fields.path}: the tokenizer of a {kind!r} model cannot be read")


def _pieces(
    tokenizer: TokenizerFolder, family: str, punctuation: str | None
) -> tuple[Pieces, Pieces]:
    """The tokenizers of source and target."""
    if family == "Marian":
        return tokenizer_kinds.marian(tokenizer, punctuation)
    if punctuation is not None:
        raise InputError("normalize_punctuation cannot be used: only Marian was trained with it")
    if family == "M2M100":
        pieces = tokenizer_kinds.m2m100(tokenizer)
    elif family == "ByT5":
        pieces = tokenizer_kinds.byt5(tokenizer)
    elif tokenizer.has("tokenizer.json"):
        pieces = tokenizer_kinds.tokenizer_json(tokenizer)
    elif family == "Bart":
        pieces = tokenizer_kinds.bart(tokenizer)
    elif family == "T5":
        pieces = tokenizer_kinds.t5(tokenizer)
    elif family == "Pegasus":
        pieces = tokenizer_kinds.pegasus(tokenizer)
    else:
        lists = {
            "Nllb": language_codes.NLLB.split(),
            "MBart": language_codes.MBART_50.split()[:25],
            "MBart50": language_codes.MBART_50.split(),
        }
        pieces = tokenizer_kinds.fairseq(tokenizer, lists[family])
    return pieces, pieces
