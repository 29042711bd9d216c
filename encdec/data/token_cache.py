"""A cache of token ids on disk: a corpus is encoded once, and later runs map the files into memory.

    KEY/            KEY is a hash of the corpus, the preprocessing and both vocabularies
      source.tokens, source.offsets, target.tokens, target.offsets
      meta.json     sizes and CRCs of these files
    KEY.lock        held by the process that checks or writes KEY; a killed process frees it
    KEY.*.tmp/      a cache that is being written, or that a killed process did not finish

A cache is used only if the sizes and the CRCs of all its files are right.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from encdec.data import vocabulary
from encdec.data.sources import PairStream
from encdec.data.tokens import Examples, Tokens, tokens_of
from encdec.data.vocabulary import Vocabulary
from encdec.files import atomic_folder, leftovers, parse_json, write_text
from encdec.types import InputError, SpecialIds

FORMAT = "encdec tokens 1"
_SIDES = ("source", "target")
_CHUNK = 10_000
"""Pairs that are encoded at once."""
_BLOCK = 1 << 20
"""Bytes that are read at once for a CRC."""


def cached_examples(
    pairs: PairStream,
    corpus: str,
    src_vocab: Vocabulary,
    tgt_vocab: Vocabulary,
    root: Path,
    *,
    progress: Callable[[int], None],
    say: Callable[[str], None],
) -> Examples:
    """Returns the token ids of all pairs from the cache, which is written first if need be.

    Args:
      pairs: the text; it is read only if the cache does not hold its tokens.
      corpus: a text that identifies the corpus and its preprocessing.
      src_vocab, tgt_vocab: the vocabularies that encode it.
      root: the folder of all caches; it is created if it does not exist.
      progress: receives the number of pairs that were encoded since it was last called.
      say: receives a line when another process writes this cache, or when the cache is damaged.

    Returns:
      Arrays that are mapped from files: uint16 if both vocabularies are small enough, else int32.

    Raises:
      InputError: the cache cannot be written.
    """
    key = cache_key(corpus, src_vocab, tgt_vocab)
    folder = root / key
    try:
        if not _damage(folder):  # without the lock, so that many processes check it at a time
            return _open(folder, src_vocab, tgt_vocab)
        root.mkdir(parents=True, exist_ok=True)
        # With the lock, of several processes with the same text one encodes it and all use it.
        with _locked(root / f"{key}.lock", say):
            if damage := _damage(folder):
                if folder.exists():
                    say(f"{folder}: {damage}, so the text is encoded again")
                    shutil.rmtree(folder)
                _write(folder, pairs, src_vocab, tgt_vocab, progress)
            return _open(folder, src_vocab, tgt_vocab)
    except OSError as error:
        raise InputError(
            f"tokens cannot be kept in {root} ({error.strerror or error}): make room there, or "
            "set the environment variable XDG_CACHE_HOME to another folder"
        ) from error


def cache_key(corpus: str, src_vocab: Vocabulary, tgt_vocab: Vocabulary) -> str:
    """SHA-256 (hex) of everything that determines the content of the files."""
    parts = [FORMAT, corpus, vocabulary.digest(src_vocab), vocabulary.digest(tgt_vocab)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _dtype(src_vocab: Vocabulary, tgt_vocab: Vocabulary) -> np.dtype:
    return np.dtype(np.uint16 if max(src_vocab.size, tgt_vocab.size) < 1 << 16 else np.int32)


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock that the system frees if this process is killed."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("another process is encoding the same text: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write(
    folder: Path,
    pairs: PairStream,
    src_vocab: Vocabulary,
    tgt_vocab: Vocabulary,
    progress: Callable[[int], None],
) -> None:
    """Encodes all pairs and writes the cache folder."""
    # Whoever wrote these was killed, since only the holder of the lock writes.
    for unfinished in leftovers(folder):
        shutil.rmtree(unfinished)
    dtype = _dtype(src_vocab, tgt_vocab)
    with atomic_folder(folder) as temporary:
        with ExitStack() as stack:
            src, tgt = (
                stack.enter_context(_SideWriter(temporary, side, dtype, vocab.specials))
                for side, vocab in zip(_SIDES, (src_vocab, tgt_vocab), strict=True)
            )
            stream = iter(pairs)
            while chunk := list(islice(stream, _CHUNK)):
                sources, targets = zip(*chunk, strict=True)
                src.add(src_vocab.encode_all(sources))
                tgt.add(tgt_vocab.encode_all(targets))
                progress(len(chunk))
        # CRCs of the files as they are read back, which finds errors of writing too.
        files = {file.name: _size_and_crc(file) for file in sorted(temporary.iterdir())}
        meta = {"format": FORMAT, "key": folder.name, "files": files}
        write_text(temporary / "meta.json", json.dumps(meta, indent=2) + "\n")


class _SideWriter:
    """Appends encoded sentences to the two files of one side."""

    def __init__(self, folder: Path, side: str, dtype: np.dtype, specials: SpecialIds) -> None:
        self._dtype, self._specials, self._count = dtype, specials, 0
        self._tokens: BinaryIO = (folder / f"{side}.tokens").open("wb")
        self._offsets: BinaryIO = (folder / f"{side}.offsets").open("wb")
        self._offsets.write(np.zeros(1, np.int64).tobytes())

    def __enter__(self) -> "_SideWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()
        self._offsets.close()

    def add(self, sentences: Sequence[Sequence[int]]) -> None:
        tokens = tokens_of(sentences, self._specials)
        self._tokens.write(tokens.flat.astype(self._dtype).tobytes())
        self._offsets.write((tokens.offsets[1:] + self._count).tobytes())
        self._count += len(tokens.flat)


def _open(folder: Path, src_vocab: Vocabulary, tgt_vocab: Vocabulary) -> Examples:
    """Maps the files into memory; pages are read when their sentences are used."""
    dtype, offsets = _dtype(src_vocab, tgt_vocab), np.dtype(np.int64)

    def mapped(name: str, dtype: np.dtype) -> np.ndarray:
        return np.asarray(np.memmap(folder / name, dtype, "r"))

    def tokens(side: str, vocab: Vocabulary) -> Tokens:
        flat, starts = mapped(f"{side}.tokens", dtype), mapped(f"{side}.offsets", offsets)
        return Tokens(flat, starts, vocab.specials)

    return Examples(tokens("source", src_vocab), tokens("target", tgt_vocab))


def _size_and_crc(path: Path) -> dict[str, int]:
    crc = size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return {"bytes": size, "crc32": crc}


def _damage(folder: Path) -> str:
    """Says what is wrong with a cache; an empty text if it can be used."""
    try:
        meta: Any = parse_json((folder / "meta.json").read_bytes())
        if (meta["format"], meta["key"]) != (FORMAT, folder.name):
            return "it holds tokens of something else"
        if set(meta["files"]) != {f"{s}.{kind}" for s in _SIDES for kind in ("tokens", "offsets")}:
            return "meta.json is damaged"
        for name, expected in meta["files"].items():
            if _size_and_crc(folder / name) != expected:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "meta.json is damaged"
    return ""
