"""A run of a Transformer in the hub library's format: parameters, settings, tokenizer.

    model.safetensors        the parameters, float32
    config.json              settings of the model
    generation_config.json   how it generates
    ...                      the files of the tokenizer

An imported model gets its own settings and files back, and its parameters under the names that they
had. A run that was trained here becomes a Marian model if its norms are after the sub-layers, and a
Pegasus model if they are before them; both have Marian's tokenizer.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from encdec.config import RunConfig, TransformerConfig
from encdec.config.search import SearchOptions
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.data.sentencepiece_model import SentencePieceVocabulary
from encdec.data.vocabulary import Vocabulary
from encdec.files import parse_json, write_text
from encdec.interop import hub
from encdec.interop.names import Entry, Fields, to_theirs
from encdec.interop.paper_dialect import as_marian
from encdec.interop.tokenizer_files import tokenizer_files
from encdec.models.transformer_positions import SINUSOIDS
from encdec.runs.checkpoints import flat
from encdec.runs.run import Run
from encdec.types import InputError, Params

_STOPS = {"first": True, "heuristic": False, "never": "never"}
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu-tanh": "gelu_new", "silu": "silu"}
_FREE = ("dropout", "tie_embeddings", "share_embeddings", "max_positions", "output_bias")
"""Settings, or parts of their names, that a format need not hold: the arrays show them, or they
matter in training alone."""


class HubFormat(NamedTuple):
    """What the files of a model say.

    Attributes:
      config: of the model, in the dialect of the format.
      params: in that dialect.
      fields: config.json.
      generation: generation_config.json.
      names: of the arrays that the files have; None for one name for each parameter.
    """

    config: TransformerConfig
    params: Params
    fields: dict[str, Any]
    generation: dict[str, Any]
    names: tuple[str, ...] | None


def write_model(
    run: Run, params: Params, folder: Path, say: Callable[[str], None] = lambda line: None
) -> None:
    """Writes the files that the head of this module lists.

    Args:
      run: a run of a Transformer.
      params: its parameters, whole.
      folder: an empty folder.
      say: is called with a line for each thing that the format cannot hold and that does not change
        the model itself.

    Raises:
      InputError: the format cannot hold a setting of the model, or its tokenizer; it is named.
      OSError: a file cannot be written.
    """
    config: Any = run.config.model
    made = _original(run, config, params) if run.original else _ours(run, config, params, say)
    _check_held(made.config, made.fields, run.path)
    architecture = hub.ARCHITECTURES[made.fields["model_type"]]
    shares = "src_embedding" not in made.params
    entries = {entry.ours: entry for entry in architecture.table(made.config, shares)}
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in flat(made.params).items():
        for theirs in _names(entries[name], made.names):
            arrays[theirs] = to_theirs(np.asarray(leaf, np.float32), entries[name])
    tables = ("src_positions.table", "tgt_positions.table")
    positions = {theirs for name in tables if name in entries for theirs in entries[name].theirs}
    has_positions = made.names or (positions if made.fields["model_type"] == "pegasus" else ())
    # Sines and cosines are no parameters, but some files have them.
    for theirs in positions.intersection(has_positions) - arrays.keys():
        rows = made.fields["max_position_embeddings"]
        sines = SINUSOIDS[made.config.positions](rows, made.config.width)
        arrays[theirs] = np.asarray(sines, np.float32)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", made.fields)
    _write_json(folder / "generation_config.json", made.generation)
    if run.original:
        copy_tokenizer(run, folder)
    else:
        _write_tokenizer(run, folder)


def _names(entry: Entry, present: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names under which an array is written."""
    if present is None:
        return entry.theirs[:1]
    return tuple(name for name in entry.theirs if name in present)


def _original(run: Run, config: TransformerConfig, params: Params) -> HubFormat:
    """An imported model, for its languages of now."""
    assert run.original is not None
    fields = dict(hub.read_fields(run.original / "config.json").values)
    fields |= {name: "float32" for name in ("dtype", "torch_dtype") if name in fields}
    file = run.original / "generation_config.json"
    generation = dict(hub.read_fields(file).values) if file.is_file() else {}
    target = run.tgt_vocabulary
    if isinstance(target, PretrainedVocabulary) and target.language_place is not None:
        chosen: dict[str, Any] = {"decoder_start_token_id": target.specials.start}
        if target.language_place == "before":
            chosen["forced_bos_token_id"] = target.before[0]
        generation |= chosen
    names = parse_json((run.original / hub.NAMES_FILE).read_text(encoding="utf-8"))
    return HubFormat(config, params, fields, generation, tuple(names))


def _ours(
    run: Run, config: TransformerConfig, params: Params, say: Callable[[str], None]
) -> HubFormat:
    """A run that was trained here."""
    config, params = as_marian(config, params)
    joint = run.config.data.joint_vocabulary
    pad, start, end, _ = run.tgt_vocabulary.specials
    is_post = config.norm == "post"
    source, target = run.src_vocabulary.size, run.tgt_vocabulary.size
    one_table = joint and (config.tie_embeddings or config.share_embeddings)
    if not is_post and not one_table:
        raise InputError(
            f"{run.path} has norm = 'pre' and an embedding for each side: the hub library has a "
            "model with such norms for one shared embedding only (joint_vocabulary with "
            "tie_embeddings or share_embeddings); ctranslate2 can hold this one"
        )
    fields = {
        "architectures": ["MarianMTModel" if is_post else "PegasusForConditionalGeneration"],
        "model_type": "marian" if is_post else "pegasus",
        "is_encoder_decoder": True,
        "dtype": "float32",
        "vocab_size": source,
        "decoder_vocab_size": target,
        "d_model": config.width,
        "encoder_layers": config.layers,
        "decoder_layers": config.layers_of_decoder,
        "num_hidden_layers": config.layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.feed_forward,
        "decoder_ffn_dim": config.feed_forward,
        "activation_function": _ACTIVATIONS[config.activation],
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "max_position_embeddings": 2048,
        "scale_embedding": config.scale_embeddings,
        "share_encoder_decoder_embeddings": one_table,
        "tie_word_embeddings": config.tie_embeddings,
        "static_position_embeddings": True,
        "pad_token_id": pad,
        "bos_token_id": start,
        "eos_token_id": end,
        "decoder_start_token_id": start,
        "forced_eos_token_id": None,
        "use_cache": True,
    }
    return HubFormat(config, params, fields, _generation(run.config, run, say), None)


_PLAIN = SearchOptions()
_NOT_GENERATED = ("prefix", "ban", "force_first", "force_end", "beam_groups", "mbr", "sample")
"""Options of a search that the settings of `generate` written here do not have."""


def _generation(config: RunConfig, run: Run, say: Callable[[str], None]) -> dict[str, Any]:
    """How a run that was trained here generates."""
    search, (pad, start, end, unknown) = config.search, run.tgt_vocabulary.specials
    extra = run.extra_length if search.max_extra is None else search.max_extra
    longest = int(search.max_ratio * config.data.max_source_length) + extra
    if search.length_penalty_kind == "wu" and search.length_penalty and search.beam > 1:
        say(
            "the hub library has no length penalty of Wu: generation_config.json has the mean's "
            f"with the same exponent, as --length-penalty-kind mean --length-penalty "
            f"{search.length_penalty:g} --stop {search.stop} has it here"
        )
    if lost := [name for name in _NOT_GENERATED if getattr(search, name) != getattr(_PLAIN, name)]:
        say(
            f"generation_config.json has no {' and no '.join(lost)}: translations there differ in "
            "that"
        )
    banned = [[pad], [start]] if search.ban_special else []
    banned += [[unknown]] if search.ban_unknown else []
    banned += [[*map(int, ids.split())] for ids in search.ban_ids]
    settings: dict[str, Any] = {
        "decoder_start_token_id": start,
        "pad_token_id": pad,
        "bos_token_id": start,
        "eos_token_id": end,
        "num_beams": search.beam,
        "length_penalty": search.length_penalty,
        "early_stopping": _STOPS[search.stop],
        "max_length": longest + 1,
        "bad_words_ids": banned or None,
    }
    more = {
        "min_length": search.min_length,
        "no_repeat_ngram_size": search.no_repeat_ngram,
        "repetition_penalty": search.repetition_penalty,
    }
    neutral = {"min_length": 0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0}
    return settings | {name: value for name, value in more.items() if value != neutral[name]}


def _check_held(config: TransformerConfig, fields: dict[str, Any], path: Path) -> None:
    """Raises InputError unless a reader of the settings would build this very model."""
    kind = fields["model_type"]
    held = hub.ARCHITECTURES[kind].model_config(Fields(fields, "config.json"))
    held = replace(held, decoder_layers=held.layers_of_decoder, head_width=held.width_of_head)
    ours = replace(config, decoder_layers=config.layers_of_decoder, head_width=config.width_of_head)
    for name, value in vars(ours).items():
        if not any(part in name for part in _FREE) and getattr(held, name) != value:
            raise InputError(
                f"{path} has {name} = {value!r}, which the hub library's {kind} format cannot "
                f"hold: there it is {getattr(held, name)!r}; ctranslate2 and safetensors can"
            )


def copy_tokenizer(run: Run, folder: Path) -> None:
    """The tokenizer files of an imported model, for its languages of now."""
    assert run.original is not None
    for file in tokenizer_files(run.original):
        shutil.copyfile(file, folder / file.name)
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        tree = parse_json(settings.read_text(encoding="utf-8"))
        sides = {"src_lang": run.src_vocabulary, "tgt_lang": run.tgt_vocabulary}
        for name, side in sides.items():
            language = side.language if isinstance(side, PretrainedVocabulary) else None
            if name in tree and language is not None:
                tree[name] = language
        _write_json(settings, tree)


def _write_tokenizer(run: Run, folder: Path) -> None:
    """Marian's tokenizer files for the SentencePiece vocabularies of a run.

    Raises:
      InputError: the vocabularies are of another kind, or the text is preprocessed.
    """
    sides = {"source": run.src_vocabulary, "target": run.tgt_vocabulary}
    tables = {}
    for side, given in sides.items():
        model = sentencepiece_of(given, run.path, side)
        (folder / f"{side}.spm").write_bytes(model.proto)
        tables[side] = {token: i for i, token in enumerate(pieces_of(model))}
    joint = tables["source"] == tables["target"]
    _write_json(folder / "vocab.json", tables["source"])
    if not joint:
        _write_json(folder / "target_vocab.json", tables["target"])
    data = run.config.data
    settings = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": data.source_language,
        "target_lang": data.target_language,
        "separate_vocabs": not joint,
        "model_max_length": data.max_source_length + 1,
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    _write_json(folder / "tokenizer_config.json", settings)


def sentencepiece_of(vocabulary: Vocabulary, path: Path, side: str) -> SentencePieceVocabulary:
    """The vocabulary of a run as SentencePiece, which other formats read.

    Raises:
      InputError: it is of another kind, or the text is preprocessed before it.
    """
    if isinstance(vocabulary, SentencePieceVocabulary):
        return vocabulary
    kind = vocabulary.to_json()["kind"]
    if kind == "sentencepiece":
        raise InputError(
            f"{path} preprocesses its {side} text (lowercase, normalization or tokenizer), which "
            "the tokenizers of other libraries do not: train on text that is preprocessed already"
        )
    raise InputError(
        f"{path} has a {side} vocabulary of {kind}, which the tokenizers of other libraries cannot "
        "hold: train with --vocabulary sentencepiece, or export it as safetensors or stablehlo"
    )


def pieces_of(vocabulary: SentencePieceVocabulary) -> list[str]:
    """The pieces of a vocabulary by id, the special ones as other libraries write them."""
    pad, start, end, unknown = vocabulary.specials
    names = {pad: "<pad>", start: "<s>", end: "</s>", unknown: "<unk>"}
    pieces = vocabulary.tokens(range(vocabulary.size))
    return [names.get(i, piece) for i, piece in enumerate(pieces)]


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
