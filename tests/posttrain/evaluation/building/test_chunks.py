"""Windows: the card's figures, and the properties that make a question drawn from chunks fair to the text."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.evaluation.building.chunks import chunk, tokenizer_spans, windows, word_spans
from posttrain.evaluation.building.documents import Document


def plain_loop(n, length, overlap):
    """The loop over starts that the specification warns of."""
    return [(s, min(s + length, n)) for s in range(0, n, length - overlap)]


def contained(found):
    return any(b[1] <= a[1] for a, b in pairwise(found))


def document(text):
    return Document("d", text, "0", "2025-01-01", "file")


def test_published_figures():
    assert plain_loop(7681, 8192, 512) == [(0, 7681), (7680, 7681)]
    assert windows(7681, 8192, 512) == [(0, 7681)]
    assert windows(8192, 8192, 512) == [(0, 8192)]
    assert windows(8193, 8192, 512) == [(0, 8192), (7680, 8193)]
    assert sum(contained(plain_loop(n, 8192, 512)) for n in range(1, 60_001)) == 3584
    for n in range(1, 60_001):
        found = windows(n, 8192, 512)
        assert not contained(found)
        assert found[0][0] == 0
        assert found[-1][1] == n


@given(st.integers(0, 3000), st.integers(1, 200), st.data())
def test_windows_cover_all_and_hold_nothing_twice(n, length, data):
    overlap = data.draw(st.integers(0, length - 1))
    found = windows(n, length, overlap)
    assert (found == []) == (n == 0)
    assert {i for s, e in found for i in range(s, e)} == set(range(n))
    for (s, e), (t, f) in pairwise(found):
        assert e - t == overlap
        assert s < t
        assert e < f
    assert all(e - s == length for s, e in found[:-1])


@pytest.mark.parametrize(("length", "overlap"), [(0, 0), (-1, 0), (5, 5), (5, -1)])
def test_settings_that_would_never_end(length, overlap):
    with pytest.raises(Mistake, match=r"chunk (length|overlap)"):
        windows(10, length, overlap)


texts = st.text(st.sampled_from("ab ü漢\n\t🙂e\u0301."), max_size=60)


def holds(text, spans, length, overlap):
    found = chunk(document(text), length, overlap, spans)
    covered = set()
    for place, one in enumerate(found):
        assert text[one.start : one.end] == one.text == one.text.strip()
        assert one.index == place
        assert 1 <= one.tokens <= length
        covered.update(range(one.start, one.end))
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)


@given(texts, st.integers(1, 8), st.data())
def test_words(text, length, data):
    holds(text, word_spans, length, data.draw(st.integers(0, length - 1)))


@given(texts, st.integers(1, 12), st.data())
@settings(deadline=None)
def test_a_real_tokenizer_of_bytes(tokenizer, text, length, data):
    """One token a byte, so characters are cut in the middle; text is composed first, so places shift."""
    holds(text, tokenizer_spans(tokenizer), length, data.draw(st.integers(0, length - 1)))


@given(texts)
def test_words_are_those_of_split(text):
    places = word_spans(text)
    assert [text[s:e] for s, e in places] == text.split()
    assert places[1:] == list(places)[1:]
    with pytest.raises(IndexError):
        places[len(places)]


def test_a_slow_tokenizer_is_told():
    with pytest.raises(Mistake, match="fast tokenizer"):
        tokenizer_spans(object())
