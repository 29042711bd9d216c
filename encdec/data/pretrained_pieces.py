"""How tokenizers of models trained elsewhere cut a text into ids, and join ids to a text.

Each kind of tokenizer is a `Pieces`. What a model puts around the ids of a text, such as the
language, is not part of it: see `pretrained_vocabulary`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

import sentencepiece

from encdec.config.checks import fits
from encdec.data.added_tokens import AddedToken, Splitter
from encdec.data.sentencepiece_model import piece_surface, well_formed
from encdec.data.simple_vocabularies import byte_label

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""White space that the hub library takes away from English, where a tokenizer says so."""

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + n): byte for n, byte in enumerate(b for b in range(0x100) if b not in _PRINTABLE)
}
"""The byte that a character of a byte-level token stands for."""


class Pieces(Protocol):
    """A tokenizer without the tokens that it puts around a text."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. Lone surrogates are read as question marks."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens, and ids that no piece has, leave no trace."""

    def label(self, i: int) -> str | None:
        """A name of an id for plots, with ▁ for a space; None if no piece has the id."""

    def piece(self, i: int) -> str | None:
        """The token of an id as the tokenizer itself writes it; None if no piece has the id."""

    def surface(self, i: int) -> bytes:
        """What an id adds to a text, the space before a word included; b"" for special tokens."""

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name."""

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `pieces_from_json` builds it again."""


@dataclass(frozen=True)
class SentencePieceTable:
    """SentencePiece cuts the text; a table says which id a piece has.

    Marian and M2M100 number the pieces of SentencePiece in an order of their own; so do, by an
    offset, mBART, NLLB and Pegasus.

    Attributes:
      proto: the serialized SentencePiece model.
      table: the id of each piece, added tokens included.
      unknown: the id of all other pieces.
      added: tokens that are found first; the texts between them are cut one by one.
      reads_codes: whether a code such as >>fra<< at the beginning of a text is one piece (Marian).
      clean_up: whether white space before English punctuation is taken away after decoding.
      punctuation: the language by whose Moses rules punctuation is normalized first, empty for
        the rules of no language; None leaves the text as it is.
    """

    proto: bytes
    table: Mapping[str, int]
    unknown: int
    added: tuple[AddedToken, ...] = ()
    reads_codes: bool = False
    clean_up: bool = False
    punctuation: str | None = None

    @cached_property
    def _model(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.proto)

    @cached_property
    def _splitter(self) -> "Splitter":
        return Splitter(self.added)

    @cached_property
    def _by_id(self) -> dict[int, str]:
        return {i: piece for piece, i in self.table.items()} | {t.id: t.text for t in self.added}

    @cached_property
    def _skipped(self) -> frozenset[int]:
        return frozenset(token.id for token in self.added if token.special)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        split = [self._splitter(self._normalized(well_formed(text))) for text in texts]
        parts = [part for parts in split for part in parts]
        bare = [part for part in parts if isinstance(part, str)]
        codes, rest = zip(*map(self._code, bare), strict=True) if bare else ((), ())
        # One call for all texts: most of the time of a short one is that of the call.
        cut = zip(codes, self._model.encode(list(rest), out_type=str), strict=True)
        ids = [
            [part.id]
            if isinstance(part, AddedToken)
            else [self.table.get(p, self.unknown) for p in chain(*next(cut))]
            for part in parts
        ]
        ends = accumulate(map(len, split), initial=0)
        return [[*chain(*ids[start:end])] for start, end in pairwise(ends)]

    def decode(self, ids: Sequence[int]) -> str:
        kept = (i for i in ids if i in self._by_id and i not in self._skipped)
        text = self._model.decode_pieces([self._by_id[i] for i in kept])
        # A piece that SentencePiece does not know comes back as it is.
        return _cleaned(text.replace("▁", " ").strip(), self.clean_up)

    def label(self, i: int) -> str | None:
        return self._by_id.get(i)

    piece = label

    def surface(self, i: int) -> bytes:
        return b"" if i in self._skipped else piece_surface(self._by_id.get(i, ""))

    def id_of(self, token: str) -> int | None:
        return next((t.id for t in self.added if t.text == token), self.table.get(token))

    def to_json(self) -> dict[str, Any]:
        proto = base64.b64encode(self.proto).decode()
        return {"kind": "sentencepiece", **asdict(self), "proto": proto}

    def _code(self, text: str) -> tuple[list[str], str]:
        """Splits the code at the beginning of a text from the rest."""
        end = text.find("<<") + 2
        if self.reads_codes and text.startswith(">>") and end >= 2:
            return [text[:end]], text[end:]
        return [], text

    def _normalized(self, text: str) -> str:
        if self.punctuation is None or not text:
            return text
        return self._normalizer.normalize(text)

    @cached_property
    def _normalizer(self) -> Any:
        from sacremoses import MosesPunctNormalizer

        return MosesPunctNormalizer(self.punctuation)


@dataclass(frozen=True)
class TokenizerJson:
    """A tokenizer.json, which the `tokenizers` library runs.

    The file is followed. Version 5 of the hub library builds some parts from the class of the
    tokenizer instead: of files that version 4 saved it keeps white space at the end, for instance.

    Attributes:
      text: the file.
      clean_up: whether white space before English punctuation is taken away after decoding; never
        done for byte pairs.
    """

    text: str
    clean_up: bool = False

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.text)
        except Exception as error:  # the library raises no other class
            raise ValueError(str(error)) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _format(self) -> dict[str, Any]:
        return json.loads(self.text)

    @cached_property
    def _is_bpe(self) -> bool:
        return type(self._tokenizer.model).__name__ == "BPE"

    @property
    def added(self) -> tuple[AddedToken, ...]:
        """The tokens that are found first, in the order of their ids."""
        tokens = sorted(self._tokenizer.get_added_tokens_decoder().items())
        return tuple(
            AddedToken(token.content, i, token.lstrip, token.rstrip, token.special)
            for i, token in tokens
        )

    @cached_property
    def _added(self) -> dict[int, AddedToken]:
        return {token.id: token for token in self.added}

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        texts = [well_formed(text) for text in texts]
        return [e.ids for e in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return _cleaned(text, self.clean_up and not self._is_bpe)

    def piece(self, i: int) -> str | None:
        return self._tokenizer.id_to_token(i)

    def label(self, i: int) -> str | None:
        token = self.piece(i)
        if token is None or (self._format.get("decoder") or {}).get("type") != "ByteLevel":
            return token
        # The characters of such a token stand for bytes, not all of them for whole characters.
        text = self._tokenizer.decode([i], skip_special_tokens=False)
        return token.replace("Ġ", "▁") if "\ufffd" in text else text.replace(" ", "▁")

    def surface(self, i: int) -> bytes:
        token = self._tokenizer.id_to_token(i)
        added = self._added.get(i)
        if token is None or added is not None:
            return b"" if added is None or added.special else added.text.encode()
        if (self._format.get("decoder") or {}).get("type") != "ByteLevel":
            return piece_surface(token)
        return bytes(_BYTES[c] for c in token if c in _BYTES)

    def id_of(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "tokenizers", **asdict(self)}


@dataclass(frozen=True)
class BytePieces:
    """The bytes of UTF-8: byte b has the id 3 + b (ByT5).

    Attributes:
      added: tokens that are found first: padding, end, unknown, and those that mask spans.
      end: the id of the end token. A text that ends with it does not get a second one, so it is
        left out there.
      clean_up: whether white space before English punctuation is taken away after decoding.
    """

    added: tuple[AddedToken, ...]
    end: int
    clean_up: bool = False

    @cached_property
    def _splitter(self) -> "Splitter":
        return Splitter(self.added)

    @cached_property
    def _by_id(self) -> dict[int, AddedToken]:
        return {token.id: token for token in self.added}

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode(well_formed(text)) for text in texts]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._splitter(text):
            ids += [part.id] if isinstance(part, AddedToken) else [b + 3 for b in part.encode()]
        return ids[:-1] if ids[-1:] == [self.end] else ids

    def decode(self, ids: Sequence[int]) -> str:
        data = b""
        for i in ids:
            if i in self._by_id:
                data += b"" if self._by_id[i].special else self._by_id[i].text.encode()
            elif 3 <= i < 259:
                data += bytes([i - 3])
        return _cleaned(data.decode("utf-8", "ignore"), self.clean_up)

    def label(self, i: int) -> str | None:
        if i in self._by_id:
            return self._by_id[i].text
        return byte_label(i - 3) if 3 <= i < 259 else None

    piece = label

    def surface(self, i: int) -> bytes:
        if i in self._by_id:
            return b"" if self._by_id[i].special else self._by_id[i].text.encode()
        return bytes([i - 3]) if 3 <= i < 259 else b""

    def id_of(self, token: str) -> int | None:
        return next((t.id for t in self.added if t.text == token), None)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bytes", **asdict(self)}


def pieces_from_json(tree: dict[str, Any]) -> Pieces:
    """Builds pieces again.

    Raises:
      Exception: the values are damaged; the libraries of tokenizers raise errors of many types.
    """
    fields = {name: value for name, value in tree.items() if name != "kind"}
    for name, value in fields.items():
        if not fits(value, _JSON_TYPES[name]):
            raise ValueError(f"{name} is not of its type")
    if not all(fits(i, int) and i >= 0 for i in fields.get("table", {}).values()):
        raise ValueError("ids of pieces are not integers from 0")
    if "added" in fields:
        fields["added"] = tuple(map(_added_token, fields["added"]))
    if tree["kind"] == "sentencepiece":
        proto = base64.b64decode(fields.pop("proto"), validate=True)
        pieces: Pieces = SentencePieceTable(proto, **fields)
    else:
        pieces = {"tokenizers": TokenizerJson, "bytes": BytePieces}[tree["kind"]](**fields)
    pieces.encode_all([""])  # reads the files, which may be damaged
    return pieces


_JSON_TYPES: dict[str, Any] = {
    **{"proto": str, "table": dict, "unknown": int, "added": list, "reads_codes": bool},
    **{"clean_up": bool, "punctuation": str | None, "text": str, "end": int},
}
"""The types of the fields of pieces in JSON."""


def _added_token(values: Any) -> AddedToken:
    token = AddedToken(*values)
    hints = get_type_hints(AddedToken)
    if not all(map(fits, token, hints.values())) or token.id < 0:
        raise ValueError(f"{values} is no added token")
    return token


def _cleaned(text: str, clean_up: bool) -> str:
    for spaced in _CLEANED if clean_up else ():
        text = text.replace(spaced, spaced.strip())
    return text
