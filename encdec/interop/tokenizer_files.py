"""The files of a tokenizer in the hub library's format, and the tokens that they list."""

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece

from encdec.config.checks import fits
from encdec.data.added_tokens import AddedToken
from encdec.files import parse_json
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
        return text_of(self.config.get(f"{name}_token") or default)

    def object(self, name: str) -> dict[str, Any]:
        """A JSON file that is an object.

        Raises:
          InputError: it is missing or damaged.
        """
        data = read(self.path / name)
        try:
            values = parse_json(data)
        except ValueError as error:
            raise damaged(self.path / name) from error
        if not isinstance(values, dict):
            raise damaged(self.path / name)
        return values

    def table(self, name: str) -> dict[str, int]:
        """A JSON file of the id of each piece."""
        values = self.object(name)
        if not all(fits(i, int) and i >= 0 for i in values.values()):
            raise damaged(self.path / name)
        return values

    def sentencepiece(self, name: str) -> tuple[bytes, list[str]]:
        """A SentencePiece model, and its pieces in the order of their ids there."""
        proto = read(self.path / name)
        if not proto:  # an empty model is loaded, and reports each use on stderr
            raise damaged(self.path / name)
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


_DEFAULTS = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>"}


def added_tokens(
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
    try:
        listed = _listed(folder.config, named, special)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(folder.path / "tokenizer_config.json") from error
    found = {t.text: t._replace(id=-1) if own_ids else t for t in listed}
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


def _listed(
    config: Mapping[str, Any], named: Iterable[str], special: Iterable[str]
) -> list[AddedToken]:
    """The tokens that settings list; the id of one that has none there is -1."""
    found: dict[str, AddedToken] = {}
    for name in named:
        value = config.get(f"{name}_token") or _DEFAULTS.get(name, f"<{name}>")
        flags = value if isinstance(value, dict) else {"lstrip": name == "mask"}
        found.setdefault(text_of(value), _token(text_of(value), -1, flags, special=True))
    lists = (config.get(f"{kind}_special_tokens") or () for kind in ("additional", "extra"))
    extra = chain(*(part.values() if isinstance(part, dict) else part for part in lists))
    for value in (*special, *extra):
        flags = value if isinstance(value, dict) else {}
        found.setdefault(text_of(value), _token(text_of(value), -1, flags, special=True))
    for key, value in (config.get("added_tokens_decoder") or {}).items():
        text = text_of(value)
        is_special = text in found or bool(value.get("special"))
        found[text] = _token(text, int(key), value, is_special)
    return list(found.values())


def _token(text: str, i: int, flags: Mapping[str, Any], special: bool) -> AddedToken:
    return AddedToken(text, i, bool(flags.get("lstrip")), bool(flags.get("rstrip")), special)


def text_of(token: Any) -> str:
    """The text of a token, which settings give with or without its flags."""
    return str(token["content"]) if isinstance(token, dict) else str(token)


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
      InputError: it is missing.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; copy the tokenizer's files too"
        ) from error
