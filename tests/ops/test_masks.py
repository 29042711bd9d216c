from encdec.ops import masks


def test_a_causal_mask_shows_the_past() -> None:
    assert masks.causal(4).tolist() == [[s <= t for s in range(4)] for t in range(4)]
