import numpy as np
import pytest

from encdec.data import vocabulary
from encdec.data.sources import Pairs
from encdec.data.tokens import Tokens, encode_pairs, tokens_of
from encdec.types import SpecialIds

EOS = SpecialIds().end


def test_pairs_are_encoded_whatever_their_length() -> None:
    pairs = Pairs(["ab", "abc", "", "b"], ["xy", "x", "xyx", "x"])
    src, tgt = vocabulary.build("chars", ["abc"], None), vocabulary.build("chars", ["xy"], None)
    examples = encode_pairs(pairs, src, tgt)
    for tokens, texts, vocab in zip(examples, pairs, (src, tgt), strict=True):
        assert [list(tokens[i]) for i in range(4)] == [[*vocab.encode(t), EOS] for t in texts]
    assert [list(side) for side in examples.lengths()] == [[3, 4, 1, 2], [3, 2, 4, 2]]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_padding_is_what_a_plain_loop_writes(dtype) -> None:
    rng = np.random.default_rng(2)
    rows = [list(map(int, rng.integers(4, 60_000, n))) for n in (3, 0, 5, 1)]
    tokens = tokens_of(rows, SpecialIds())
    tokens = Tokens(tokens.flat.astype(dtype), tokens.offsets, tokens.specials)
    block, mask = tokens.padded(np.array([2, 1, 2, 0]), rows=6, length=7)
    expected = [[*rows[i], EOS, *[0] * (6 - len(rows[i]))] for i in (2, 1, 2, 0)]
    assert block.tolist() == [*expected, [0] * 7, [0] * 7]
    assert block.dtype == np.int32
    np.testing.assert_array_equal(mask, block != 0)
    assert mask.dtype == bool
