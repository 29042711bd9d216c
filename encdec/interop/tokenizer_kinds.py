"""Tokenizers of each kind, read from the files of a folder as `Pieces`."""

from collections.abc import Iterable, Mapping

from encdec.data.pretrained_pieces import BytePieces, Pieces, SentencePieceTable, TokenizerJson
from encdec.interop import language_codes
from encdec.interop.tokenizer_files import NAMED, TokenizerFolder, added_tokens, damaged, read
from encdec.types import InputError


def tokenizer_json(folder: TokenizerFolder) -> TokenizerJson:
    """Reads tokenizer.json.

    Raises:
      InputError: it is damaged.
    """
    path = folder.path / "tokenizer.json"
    data = read(path)
    try:
        pieces = TokenizerJson(data.decode("utf-8"), folder.clean_up())
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
        added = added_tokens(folder, table, ("eos", "unk", "pad"), own_ids=name != "vocab.json")
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
    added = added_tokens(folder, table | languages, ("bos", "eos", "unk", "pad"))
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
    unused = [f"<unk_{i}>" for i in range(2, offset)]
    special = ("<pad>", "</s>", "<mask_1>", "<mask_2>", *unused)[: offset + 2]
    return _numbered(folder, proto, (*special, *pieces[2:]), ("eos", "unk", "pad"), special)


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
        for token in added_tokens(folder, table, ("eos", "unk", "pad"), extra)
    )
    return BytePieces(added, 1, folder.clean_up())


def bart(folder: TokenizerFolder) -> Pieces:
    """BART without a tokenizer.json: byte pairs of vocab.json and merges.txt."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    table = folder.table("vocab.json")
    merges = read(folder.path / "merges.txt").decode("utf-8", "replace").split("\n")
    split = (line.split(" ") for line in merges if line and not line.startswith("#version"))
    try:
        pairs = [(first, second) for first, second in split]
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=table, merges=pairs))
    except Exception as error:  # the library raises no other class
        raise InputError(
            f"{folder.path}: vocab.json and merges.txt do not belong together: download them again"
        ) from error
    prefix = bool(folder.config.get("add_prefix_space"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    added = added_tokens(folder, table, NAMED)
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
    added = added_tokens(folder, table, named, special)
    unknown = _unknown(folder, table, "the SentencePiece model")
    return SentencePieceTable(proto, table, unknown, added, clean_up=folder.clean_up())


def _unknown(folder: TokenizerFolder, table: Mapping[str, int], name: str) -> int:
    token = folder.token("unk", "<unk>")
    if token not in table:
        raise InputError(f"{folder.path}: {name} has no {token}: download it again")
    return table[token]
