"""Citation scores (the specification's figures and a slow oracle), places, numbers."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.grounding import locate, partial_ratio, scores
from posttrain.evaluation.building.matching import plain, quoted
from posttrain.evaluation.building.numbers import in_order, numbers

CHUNK = (
    "The observatory on Mount Hale was opened in 2022 after nine years of work. Its mirror is made of 412 hexagonal "
    "segments, each of which can be moved by three motors. In the first year it was used by 38 teams from eleven countries."
)
CITATION = "The observatory on Mount Hale was opened in 2022 after nine years of work. Its mirror is made of 412 hexagonal segments"


def of(text=CHUNK, start=0):
    return Chunk("d", 0, start, start + len(text), 50, text)


def lcs(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        above = 0
        for j, y in enumerate(b):
            above, row[j + 1] = row[j + 1], above + 1 if x == y else max(row[j + 1], row[j])
    return row[-1]


def slow_partial_ratio(a, b):
    """By definition: every window of the longer text, those that hang over its ends too."""
    short, long = (a, b) if len(a) <= len(b) else (b, a)
    if not short or not long:
        return 100.0 if short == long else 0.0
    n = len(short)
    windows = {long[max(i, 0) : i + n] for i in range(1 - n, len(long))}
    if len(a) == len(b):  # neither is the longer one: windows of both are asked
        windows = {(short, w) for w in windows} | {(long, short[max(i, 0) : i + n]) for i in range(1 - n, n)}
    else:
        windows = {(short, w) for w in windows}
    return max(200 * lcs(x, w) / (len(x) + len(w)) for x, w in windows)


@given(st.text("ab c", max_size=8), st.text("ab c", max_size=14))
@settings(deadline=None, max_examples=300)
def test_the_partial_ratio_is_the_one_of_the_specification(a, b):
    assert partial_ratio(a, b) == pytest.approx(slow_partial_ratio(a, b))


def test_the_four_cases_of_the_specification():
    """Faithful; two figures changed; right answer in other words; unrelated. The total is 0.7 and 0.3 of the parts."""
    faithful = scores([CITATION], CITATION, [CHUNK])
    assert (faithful.chunk, faithful.answer, faithful.citation) == (100, 100, pytest.approx(100))
    changed = CITATION.replace("2022", "2023").replace("412", "512")
    blind = scores([changed], changed, [CHUNK])
    assert 96 < blind.chunk < 99
    assert blind.answer == 100
    assert blind.citation == pytest.approx(0.7 * blind.chunk + 30)
    assert blind.citation > 97, "a fuzzy ratio does not see changed figures"
    other = scores([CITATION], "Work on it took nine years, ending in 2022; 412 pieces form the mirror", [CHUNK])
    assert other.chunk == 100
    assert 40 < other.answer < 65
    assert 82 < other.citation < 90
    assert other.citation == pytest.approx(70 + 0.3 * other.answer)
    unrelated = scores(["Penguins huddle to keep warm during the polar night"], "Bananas are yellow", [CHUNK])
    assert unrelated.chunk < 60
    assert unrelated.citation < 60


def test_means_over_citations_best_of_chunks_and_nothing():
    two = scores([CITATION, "zzzz"], "412", ["zzzz", CHUNK])
    assert two.chunk == 100
    half = scores([CITATION, "qqqqqqqqqqqqqqqqqqqqqqqqqq"], "x", [CHUNK])
    assert half.chunk == pytest.approx((100 + partial_ratio("qqqqqqqqqqqqqqqqqqqqqqqqqq", CHUNK)) / 2)
    assert scores([], "x", [CHUNK]).citation == scores(["x"], "x", []).citation == 0


def test_the_traps_of_the_bare_score():
    """Why there are gates: a letter in the citation is worth 30 points, one word and a short chunk score 100."""
    assert scores(["Bees dance"], "B", ["Bees dance"]).answer == 100
    assert scores(["Ants walk"], "B", ["Ants walk"]).answer == 0
    assert scores(["the"], "x", [CHUNK]).chunk == 100
    assert scores([CITATION], "x", ["opened in 2022"]).chunk == 100


# -- places


@pytest.mark.parametrize(
    "citation",
    [
        "opened in 2022 after nine years",
        "OPENED  in\n2022 after nine years",
        "“opened in 2022 after nine years”",
        "...opened in 2022 after nine years...",
    ],
)
def test_word_by_word_whatever_the_typography(citation):
    place = locate(citation, [of(start=1000)])
    assert place.verbatim
    assert place.score == 100
    assert place.text == "opened in 2022 after nine years"
    assert place.start == 1000 + CHUNK.index("opened")
    assert place.end - place.start == len(place.text)


def test_typography_of_the_text_too():
    text = "Ein  ﬁnal e\u0301tude — so the “old”\u00a0rules\u00ad said…"
    place = locate('final étude - so the "old" rules said...', [of(text)])
    assert place.verbatim
    assert place.text == text[5:-1]


def test_a_number_is_not_found_inside_another():
    place = locate("is made of 12 hexagonal segments", [of()])
    assert not place.verbatim
    assert locate("12 hexagonal segments, each of", [of()]).verbatim is False


def test_a_near_quotation_gets_whole_words():
    place = locate("Its mirrors are made of 412 hexagonal segment", [of()])
    assert not place.verbatim
    assert place.score > 90
    assert "412 hexagonal segments" in place.text
    assert place.text in CHUNK


def test_a_citation_longer_than_its_chunk_is_nowhere():
    assert locate(CITATION, [of("opened in 2022")]) is None
    assert locate("", [of()]) is None
    assert locate("...", [of()]) is None


@given(st.text(st.sampled_from("aB ßİﬁ—é🙂\u0301\u00ad“\n\t1"), max_size=30), st.data())
@settings(deadline=None)
def test_places_lead_back_to_the_text(text, data):
    made = plain(text)
    assert len(made.text) == len(made.places)
    assert "  " not in made.text
    assert list(made.places) == sorted(made.places)
    if made.text:
        start = data.draw(st.integers(0, len(made.text) - 1))
        end = data.draw(st.integers(start + 1, len(made.text)))
        first, last = made.span(start, end)
        assert 0 <= first < last <= len(text)
        assert made.text[start:end].strip() in plain(text[first:last]).text


def test_quotation_marks_and_dots_are_taken_off():
    assert quoted(' "...the  end." ') == "the end."
    assert quoted("''") == ""


# -- numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,234.50 and 7", ["1234.5", "7"]),
        ("in 2019,412 people", ["2019", "412"]),
        ("2019-20, a minus of -5 (-6)", ["2019", "20", "-5", "-6"]),
        ("twenty-five of thirty, seventeen and one", ["25", "30", "17", "1"]),
        ("the 3rd h100, 50%", ["3", "100", "50"]),
        ("someone often", []),
        ("1,23", ["1", "23"]),
    ],
)
def test_numbers(text, found):
    assert numbers(text) == [Decimal(one) for one in found]


@given(st.lists(st.integers(-(10**30), 10**30), max_size=6))
def test_numbers_round_trip(values):
    assert numbers(" and ".join(f"{v:,}" for v in values)) == values


def test_one_is_a_pronoun():
    assert numbers("one of two", one=False) == [2]


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_in_order_is_a_subsequence(wanted, there):
    from itertools import combinations

    slow = any(list(c) == wanted for c in combinations(there, len(wanted))) if len(there) < 9 else None
    if slow is not None:
        assert in_order(wanted, there) == slow
