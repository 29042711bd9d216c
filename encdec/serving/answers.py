"""Answers to requests, as JSON values."""

import json
from typing import Any

import numpy as np
from starlette.responses import Response

from encdec.inference.translation import Translation


def json_text(value: Any) -> str:
    """JSON in ASCII: half of a surrogate pair cannot be sent otherwise."""
    return json.dumps(value, allow_nan=False)


class JSONAnswer(Response):
    """A response of JSON values."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Returns the body."""
        return json_text(content).encode()


def answer(sentences: list[list[Translation]], index: int | None) -> dict[str, Any]:
    """The answer to a request.

    Args:
      sentences: of each sentence the translations, with their attention.
      index: of the attention map that is sent; None for the mean of all.
    """
    return {"sentences": [_sentence(found, index) for found in sentences if found]}


def _sentence(translations: list[Translation], index: int | None) -> dict[str, Any]:
    """The JSON values of one source sentence and its translations."""
    return {
        "source": translations[0].src_tokens,
        "translations": [
            {
                "text": translation.text,
                "score": round(translation.score, 4),
                "tokens": translation.tgt_tokens,
                "attention": _attention(translation.attention, index),
            }
            for translation in translations
        ],
    }


def _attention(maps: np.ndarray | None, index: int | None) -> list[list[float]] | None:
    """One of the maps [M, T, S], or the mean of all; None for a model that has none."""
    if maps is None or not maps.size:
        return None
    chosen = maps.mean(0) if index is None else maps[index]
    rounded: list[list[float]] = np.round(chosen.astype(float), 3).tolist()
    return rounded
