"""How a model in the hub library's format generates text, as search options of ours."""

from collections.abc import Callable
from typing import Any

from encdec.config import SearchOptions
from encdec.interop.names import Fields
from encdec.types import InputError, SpecialIds

_DEFAULT_TOKENS = 20
"""Tokens of a translation where the settings name no length."""

_STOPS: dict[Any, str] = {True: "first", False: "heuristic", "never": "never"}

_IGNORED = {
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": None,
    "typical_p": 1.0,
    "eta_cutoff": 0.0,
    "min_p": None,
    "top_h": None,
    "stop_strings": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "begin_suppress_tokens": None,
    "guidance_scale": None,
    "renormalize_logits": False,
    "force_words_ids": None,
    "constraints": None,
}
"""Settings that we do not follow, and the values at which they change nothing."""


def search_options(
    fields: Fields,
    specials: SpecialIds,
    before: tuple[int, ...],
    *,
    has_languages: bool,
    say: Callable[[str], None],
) -> SearchOptions:
    """The search options that find what the hub library's `generate` finds with these settings.

    A length there counts the start token, which ours does not.

    Args:
      fields: generation_config.json, or config.json where there is none.
      specials: of the target vocabulary.
      before: what the target vocabulary puts before each target.
      has_languages: whether that is a language, which is always forced.
      say: is called with a line for each setting that is not followed.

    Raises:
      InputError: a setting has another type, or a value that no search of ours has.
    """
    forced = fields.get("forced_bos_token_id", int)
    if forced is not None and not has_languages and before != (forced,):
        raise InputError(
            f"{fields.path}: forced_bos_token_id = {forced} cannot be used: the tokenizer does not "
            "put that token before a target"
        )
    _check_end(fields, specials)
    _tell_ignored(fields, say)
    banned, never = _banned(fields, specials)
    most = _most_tokens(fields, say)
    try:
        return SearchOptions(
            beam=fields.get("num_beams", int, 1),
            length_penalty=float(fields.get("length_penalty", float, 1.0)),
            length_penalty_kind="mean",
            stop=_stop(fields),  # type: ignore[arg-type]
            max_ratio=0.0,
            max_extra=most,
            # With more than that none ends before its limit, as the hub library has it.
            min_length=min(_least_tokens(fields), most + 1),
            ban_ids=banned,
            ban_special=never,
            force_first=forced is not None or has_languages,
            force_end=fields.get("forced_eos_token_id", int | list) is not None,
            no_repeat_ngram=fields.get("no_repeat_ngram_size", int, 0),
            repetition_penalty=float(fields.get("repetition_penalty", float, 1.0)),
            **_of_sampling(fields),
        )
    except InputError as error:
        raise fields.named(error) from error


def _stop(fields: Fields) -> str:
    value = fields.get("early_stopping", bool | str, False)
    if value not in _STOPS:
        raise InputError(
            f"{fields.path}: early_stopping = {value!r} is not supported: give true, false or never"
        )
    return _STOPS[value]


def _check_end(fields: Fields, specials: SpecialIds) -> None:
    """Raises InputError where other tokens than ours end a translation."""
    ends = fields.get("eos_token_id", int | list, specials.end)
    if ends not in (specials.end, [specials.end]):
        raise InputError(
            f"{fields.path}: eos_token_id = {ends} is not supported: give one end token"
        )
    forced = fields.get("forced_eos_token_id", int | list)
    if forced not in (None, specials.end, [specials.end]):
        raise InputError(
            f"{fields.path}: forced_eos_token_id = {forced} is not the end token, {specials.end}"
        )


def _tell_ignored(fields: Fields, say: Callable[[str], None]) -> None:
    """Says which settings change what `generate` finds, but not what we find."""
    for name, neutral in _IGNORED.items():
        value = fields.values.get(name)
        if value not in (None, neutral):
            say(f"{fields.path}: {name} = {value} is not followed")
    beam = fields.get("num_beams", int, 1)
    if fields.get("do_sample", bool) and beam > 1:
        say(
            f"{fields.path}: do_sample with num_beams = {beam} becomes independent draws, without "
            "a beam"
        )


def _of_sampling(fields: Fields) -> dict[str, Any]:
    """The options of sampling; none where nothing is drawn."""
    if not fields.get("do_sample", bool):
        return {}
    return {
        "sample": True,
        "temperature": fields.get("temperature", float, 1.0),
        "top_k": fields.get("top_k", int, 50),
        "top_p": fields.get("top_p", float, 1.0),
        "epsilon_cutoff": fields.get("epsilon_cutoff", float, 0.0),
    }


def _most_tokens(fields: Fields, say: Callable[[str], None]) -> int:
    """The most tokens of a translation, the end token included."""
    new: int | None = fields.get("max_new_tokens", int)
    if new is not None:
        return new
    longest: int | None = fields.get("max_length", int)
    if longest is not None:
        return longest - 1
    say(
        f"{fields.path} names no max_length: translations have at most {_DEFAULT_TOKENS} tokens, "
        "as the hub library has it; --max-extra gives another limit"
    )
    return _DEFAULT_TOKENS


def _least_tokens(fields: Fields) -> int:
    """The fewest tokens of a translation, the end token included."""
    new = fields.get("min_new_tokens", int)
    if new is not None:  # which has precedence there
        return int(new) + 1 if new else 0
    least: int = fields.get("min_length", int, 0)
    return least


def _banned(fields: Fields, specials: SpecialIds) -> tuple[tuple[str, ...], bool]:
    """The phrases that are banned, as ids, and whether padding and start are never chosen.

    The hub library allows these two unless its settings ban them.
    """
    phrases = [*fields.get("bad_words_ids", tuple[tuple[int, ...], ...], ())]
    phrases += [[token] for token in fields.get("suppress_tokens", tuple[int, ...], ())]
    special = [[token] for token in {specials.pad, specials.start} - {specials.end}]
    never = all(token in phrases for token in special)
    if never:
        phrases = [phrase for phrase in phrases if phrase not in special]
    return tuple(" ".join(map(str, phrase)) for phrase in phrases), never
