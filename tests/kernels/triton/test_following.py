"""A prepared call of triton's sees what changes in place afterwards, also where it copies."""

from following import WORDS, follows


def test_new_values_in_the_same_tensors_are_seen() -> None:
    assert [reason for words in WORDS if (reason := follows("triton", words))] == []
