"""Tokenizers of models in the hub library's format: the files of a folder as `Pieces`."""

import json
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece

from encdec.data.pretrained_pieces import (
    AddedToken,
    BytePieces,
    Pieces,
    SentencePieceTable,
    TokenizerJson,
)
from encdec.interop import language_codes
from encdec.types import InputError

NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "target_vocab.json", "merges.txt", "source.spm", "target.spm"),
    *("sentencepiece.bpe.model", "spiece.model"),
)
"""All files that belong to a tokenizer."""
NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""The special tokens that settings name, as `bos_token` and so on."""


class TokenizerFolder(NamedTuple):
    """The folder of a tokenizer, and its settings.

    Attributes:
      path: the folder.
      config: tokenizer_config.json, over special_tokens_map.json; empty where there are none.
    """

    path: Path
    config: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file()

    def clean_up(self) -> bool:
        """Whether white space before punctuation is taken away after decoding."""
        return bool(self.config.get("clean_up_tokenization_spaces"))

    def token(self, name: str, default: str) -> str:
        """The text of a special token, by its name in the settings."""
        return _text(self.config.get(f"{name}_token") or default)

    def object(self, name: str) -> dict[str, Any]:
        """A JSON file that is an object.

        Raises:
          InputError: it is missing or damaged.
        """
        try:
            values = json.loads(_read(self.path / name))
        except ValueError as error:
            raise damaged(self.path / name) from error
        if not isinstance(values, dict):
            raise damaged(self.path / name)
        return values

    def table(self, name: str) -> dict[str, int]:
        """A JSON file of the id of each piece."""
        values = self.object(name)
        if not all(isinstance(i, int) for i in values.values()):
            raise damaged(self.path / name)
        return values

    def sentencepiece(self, name: str) -> tuple[bytes, list[str]]:
        """A SentencePiece model, and its pieces in the order of their ids there."""
        proto = _read(self.path / name)
        try:
            model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        except RuntimeError as error:
            raise damaged(self.path / name) from error
        return proto, [model.id_to_piece(i) for i in range(model.get_piece_size())]


def open_folder(path: Path) -> TokenizerFolder:
    """Reads the settings of a tokenizer.

    Raises:
      InputError: they are damaged.
    """
    folder = TokenizerFolder(path, {})
    names = ("special_tokens_map.json", "tokenizer_config.json")
    parts = [folder.object(name) for name in names if folder.has(name)]
    config: dict[str, Any] = {}
    for part in parts:
        config |= {name: value for name, value in part.items() if value is not None}
    return TokenizerFolder(path, config)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that belong to its tokenizer, which an export gives back."""
    return [folder / name for name in NAMES if (folder / name).is_file()]


def damaged(path: Path) -> InputError:
    """The error of a file that cannot be understood."""
    return InputError(f"{path} is damaged: download it again")


def tokenizer_json(folder: TokenizerFolder) -> TokenizerJson:
    """Reads tokenizer.json.

    Raises:
      InputError: it is damaged.
    """
    path = folder.path / "tokenizer.json"
    try:
        pieces = TokenizerJson(_read(path).decode("utf-8"), folder.clean_up())
        pieces.encode_all([""])
    except ValueError as error:
        raise damaged(path) from error
    return pieces


def marian(folder: TokenizerFolder, punctuation: str | None) -> tuple[Pieces, Pieces]:
    """Source and target of Marian, of which each has a SentencePiece model of its own.

    Args:
      folder: with source.spm, target.spm, vocab.json, and perhaps target_vocab.json.
      punctuation: the language by whose rules punctuation is normalized; None leaves it.
    """
    names = ["vocab.json"] * 2
    if folder.config.get("separate_vocabs") or folder.has("target_vocab.json"):
        names[1] = "target_vocab.json"
    sides: list[Pieces] = []
    for name, model in zip(names, ("source.spm", "target.spm"), strict=True):
        table = folder.table(name)
        added = _added_tokens(folder, table, ("eos", "unk", "pad"), own_ids=name != "vocab.json")
        unknown = _unknown(folder, table, name)
        proto, _ = folder.sentencepiece(model)
        sides.append(
            SentencePieceTable(proto, table, unknown, added, True, folder.clean_up(), punctuation)
        )
    return sides[0], sides[1]


def m2m100(folder: TokenizerFolder) -> Pieces:
    """M2M100: pieces are numbered by vocab.json, and the languages come after them."""
    table = folder.table("vocab.json")
    wmt = folder.config.get("language_codes") == "wmt21"
    codes = (language_codes.WMT21 if wmt else language_codes.M2M100).split()
    languages = {f"__{code}__": len(table) + i for i, code in enumerate(codes)}
    added = _added_tokens(folder, table | languages, ("bos", "eos", "unk", "pad"))
    unknown = _unknown(folder, table, "vocab.json")
    proto, _ = folder.sentencepiece("sentencepiece.bpe.model")
    return SentencePieceTable(proto, table | languages, unknown, added, clean_up=folder.clean_up())


def fairseq(folder: TokenizerFolder, languages: list[str]) -> Pieces:
    """mBART and NLLB: all pieces but the special ones are one further than in SentencePiece."""
    proto, pieces = folder.sentencepiece("sentencepiece.bpe.model")
    names = ("<s>", "<pad>", "</s>", "<unk>", *pieces[3:], *languages, "<mask>")
    return _numbered(folder, proto, names, NAMED, languages)


def pegasus(folder: TokenizerFolder) -> Pieces:
    """Pegasus: pieces come after the tokens of its pretraining."""
    proto, pieces = folder.sentencepiece("spiece.model")
    offset = folder.config.get("offset", 103)
    masks = ("<mask_1>", "<mask_2>")
    unused = [f"<unk_{i}>" for i in range(2, offset)]
    special = ("<pad>", "</s>", *masks, *unused)
    names = (*special[: offset + 2], *pieces[2:])
    return _numbered(folder, proto, names, ("eos", "unk", "pad"), special)


def t5(folder: TokenizerFolder) -> Pieces:
    """T5 and mT5: the ids of SentencePiece, then the tokens that mask spans, last one first."""
    proto, pieces = folder.sentencepiece("spiece.model")
    extra = [f"<extra_id_{i}>" for i in reversed(range(folder.config.get("extra_ids", 100)))]
    return _numbered(folder, proto, (*pieces, *extra), ("eos", "unk", "pad"), extra)


def byt5(folder: TokenizerFolder) -> Pieces:
    """ByT5, which has no file but its settings."""
    extra = {f"<extra_id_{i}>": 259 + i for i in range(125)}
    table = {"<pad>": 0, "</s>": 1, "<unk>": 2} | extra
    # The hub library takes white space away beside the first three.
    added = tuple(
        token._replace(strip_left=True, strip_right=True) if token.id < 3 else token
        for token in _added_tokens(folder, table, ("eos", "unk", "pad"), extra)
    )
    return BytePieces(added, 1, folder.clean_up())


def bart(folder: TokenizerFolder) -> Pieces:
    """BART without a tokenizer.json: byte pairs of vocab.json and merges.txt."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    table = folder.table("vocab.json")
    merges = _read(folder.path / "merges.txt").decode("utf-8", "replace").splitlines()
    pairs = [tuple(line.split(" ")) for line in merges if not line.startswith("#version") and line]
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=table, merges=pairs))
    except Exception as error:  # the library raises no other class
        raise InputError(
            f"{folder.path}: vocab.json and merges.txt do not belong together: download them again"
        ) from error
    prefix = bool(folder.config.get("add_prefix_space"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    added = _added_tokens(folder, table, NAMED)
    tokenizer.add_special_tokens(
        [
            tokenizers.AddedToken(
                t.text, lstrip=t.strip_left, rstrip=t.strip_right, normalized=False, special=True
            )
            for t in added
        ]
    )
    return TokenizerJson(tokenizer.to_str(), folder.clean_up())


def _numbered(
    folder: TokenizerFolder,
    proto: bytes,
    names: Iterable[str],
    named: Iterable[str],
    special: Iterable[str],
) -> Pieces:
    """Pieces whose ids are their places in a list."""
    table: dict[str, int] = {}
    for i, name in enumerate(names):
        table.setdefault(name, i)
    added = _added_tokens(folder, table, named, special)
    unknown = table[folder.token("unk", "<unk>")]
    return SentencePieceTable(proto, table, unknown, added, clean_up=folder.clean_up())


_DEFAULTS = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>"}


def _added_tokens(
    folder: TokenizerFolder,
    table: Mapping[str, int],
    named: Iterable[str],
    special: Iterable[str] = (),
    own_ids: bool = False,
) -> tuple[AddedToken, ...]:
    """The tokens that are found in a text first.

    Args:
      folder: its settings list tokens, of older versions by name, of newer ones with their ids.
      table: ids that are known.
      named: special tokens that have a name in the settings.
      special: other special tokens that the architecture has.
      own_ids: the ids in the settings belong to another table.
    """
    config = folder.config
    found: dict[str, AddedToken] = {}
    for name in named:
        value = config.get(f"{name}_token") or _DEFAULTS.get(name, f"<{name}>")
        flags = value if isinstance(value, dict) else {"lstrip": name == "mask"}
        found.setdefault(_text(value), _token(_text(value), -1, flags, special=True))
    lists = (config.get(f"{kind}_special_tokens") or () for kind in ("additional", "extra"))
    extra = chain(*(part.values() if isinstance(part, dict) else part for part in lists))
    for value in (*special, *extra):
        flags = value if isinstance(value, dict) else {}
        found.setdefault(_text(value), _token(_text(value), -1, flags, special=True))
    for key, value in (config.get("added_tokens_decoder") or {}).items():
        text = _text(value)
        is_special = text in found or bool(value.get("special"))
        found[text] = _token(text, -1 if own_ids else int(key), value, is_special)
    others = folder.table("added_tokens.json") if folder.has("added_tokens.json") else {}
    for text, i in others.items():
        found.setdefault(text, AddedToken(text, i, special=False))
    # A token without an id comes after all others, as when the hub library reads these files.
    known = {**others, **table}
    free = max((*known.values(), *(token.id for token in found.values())), default=-1) + 1
    tokens = []
    for token in found.values():
        i = token.id if token.id >= 0 else known.get(token.text, free)
        free += i == free
        tokens.append(token._replace(id=i))
    return tuple(sorted(tokens, key=lambda token: token.id))


def _token(text: str, i: int, flags: Mapping[str, Any], special: bool) -> AddedToken:
    return AddedToken(text, i, bool(flags.get("lstrip")), bool(flags.get("rstrip")), special)


def _unknown(folder: TokenizerFolder, table: Mapping[str, int], name: str) -> int:
    token = folder.token("unk", "<unk>")
    if token not in table:
        raise InputError(f"{folder.path / name} has no {token}: download it again")
    return table[token]


def _text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; copy the tokenizer's files too"
        ) from error
