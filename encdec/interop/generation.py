"""How a model in the hub library's format generates text, as search options of ours."""

from collections.abc import Callable, Mapping
from typing import Any

from encdec.config import SearchOptions
from encdec.types import InputError, SpecialIds

_DEFAULT_TOKENS = 20
"""Tokens of a translation where the settings name no length."""

_STOPS: dict[Any, str] = {True: "first", False: "heuristic", None: "heuristic", "never": "never"}

_IGNORED = {
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": None,
    "typical_p": 1.0,
    "eta_cutoff": 0.0,
    "min_p": None,
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
    settings: Mapping[str, Any],
    path: str,
    specials: SpecialIds,
    before: tuple[int, ...],
    *,
    has_languages: bool,
    say: Callable[[str], None],
) -> SearchOptions:
    """The search options that find what the hub library's `generate` finds with these settings.

    A length there counts the start token, which ours does not.

    Args:
      settings: generation_config.json, or config.json where there is none.
      path: that file, for errors.
      specials: of the target vocabulary.
      before: what the target vocabulary puts before each target.
      has_languages: whether that is a language, which is always forced.
      say: is called with a line for each setting that is not followed.

    Raises:
      InputError: a setting has a value that no search of ours has.
    """

    forced = settings.get("forced_bos_token_id")
    if forced is not None and not has_languages and before != (forced,):
        raise InputError(
            f"{path}: forced_bos_token_id = {forced} cannot be used: the tokenizer does not put "
            "that token before a target"
        )
    _check_end(settings, path, specials)
    _tell_ignored(settings, path, say)
    banned, never = _banned(settings, specials)
    most = _most_tokens(settings, path, say)
    try:
        return SearchOptions(
            beam=_get(settings, "num_beams", 1),
            length_penalty=float(_get(settings, "length_penalty", 1.0)),
            length_penalty_kind="mean",
            stop=_STOPS[settings.get("early_stopping")],  # type: ignore[arg-type]
            max_ratio=0.0,
            max_extra=most,
            # With more than that none ends before its limit, as the hub library has it.
            min_length=min(_least_tokens(settings), most + 1),
            ban_ids=banned,
            ban_special=never,
            force_first=forced is not None or has_languages,
            force_end=settings.get("forced_eos_token_id") is not None,
            no_repeat_ngram=_get(settings, "no_repeat_ngram_size", 0),
            repetition_penalty=float(_get(settings, "repetition_penalty", 1.0)),
            **_of_sampling(settings),
        )
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error


def _get(settings: Mapping[str, Any], name: str, default: Any) -> Any:
    """A setting, where null is as good as none."""
    value = settings.get(name)
    return default if value is None else value


def _check_end(settings: Mapping[str, Any], path: str, specials: SpecialIds) -> None:
    """Raises InputError where other tokens than ours end a translation."""
    ends = _get(settings, "eos_token_id", specials.end)
    if ends not in (specials.end, [specials.end]):
        raise InputError(f"{path}: eos_token_id = {ends} is not supported: give one end token")
    forced = settings.get("forced_eos_token_id")
    if forced not in (None, specials.end, [specials.end]):
        raise InputError(
            f"{path}: forced_eos_token_id = {forced} is not the end token, {specials.end}"
        )


def _tell_ignored(settings: Mapping[str, Any], path: str, say: Callable[[str], None]) -> None:
    """Says which settings change what `generate` finds, but not what we find."""
    for name, neutral in _IGNORED.items():
        if _get(settings, name, neutral) != neutral:
            say(f"{path}: {name} = {settings[name]} is not followed")
    beam = _get(settings, "num_beams", 1)
    if settings.get("do_sample") and beam > 1:
        say(f"{path}: do_sample with num_beams = {beam} becomes independent draws, without a beam")


def _of_sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of sampling; none where nothing is drawn."""
    if not settings.get("do_sample"):
        return {}
    return {
        "sample": True,
        "temperature": _get(settings, "temperature", 1.0),
        "top_k": _get(settings, "top_k", 50),
        "top_p": _get(settings, "top_p", 1.0),
        "epsilon_cutoff": _get(settings, "epsilon_cutoff", 0.0),
    }


def _most_tokens(settings: Mapping[str, Any], path: str, say: Callable[[str], None]) -> int:
    """The most tokens of a translation, the end token included."""
    if settings.get("max_new_tokens") is not None:
        return int(settings["max_new_tokens"])
    if settings.get("max_length") is None:
        say(
            f"{path} names no max_length: translations have at most {_DEFAULT_TOKENS} tokens, as "
            "the hub library has it; --max-extra gives another limit"
        )
        return _DEFAULT_TOKENS
    return int(settings["max_length"]) - 1


def _least_tokens(settings: Mapping[str, Any]) -> int:
    """The fewest tokens of a translation, the end token included."""
    least = settings.get("min_length") or 0
    new = settings.get("min_new_tokens")
    return max(least, new + 1 if new else 0)


def _banned(settings: Mapping[str, Any], specials: SpecialIds) -> tuple[tuple[str, ...], bool]:
    """The phrases that are banned, as ids, and whether padding and start are never chosen.

    The hub library allows these two unless its settings ban them.
    """
    phrases = [*(settings.get("bad_words_ids") or ())]
    phrases += [[token] for token in settings.get("suppress_tokens") or ()]
    special = [[token] for token in {specials.pad, specials.start} - {specials.end}]
    never = all(token in phrases for token in special)
    if never:
        phrases = [phrase for phrase in phrases if phrase not in special]
    return tuple(" ".join(map(str, phrase)) for phrase in phrases), never
