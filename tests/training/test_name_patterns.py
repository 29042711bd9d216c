"""Patterns of parameters' names."""

import pytest

from encdec.training.name_patterns import match
from encdec.types import InputError


def test_patterns_match_dotted_names() -> None:
    names = ["encoder_0.wq", "encoder_1.wq", "src_embedding.embedding", "logits.bias"]
    assert match("freeze", ["encoder*"], names) == {"encoder_0.wq", "encoder_1.wq"}
    assert match("freeze", ["*_1.w?", "logits.[ab]*"], names) == {"encoder_1.wq", "logits.bias"}
    with pytest.raises(InputError, match=r"'src_embeding\*' matches no parameter.*src_embedding\*"):
        match("freeze", ["encoder*", "src_embeding*"], names)
    with pytest.raises(InputError, match=r"'logits' matches no .* did you mean logits"):
        match("freeze", ["logits"], names)
