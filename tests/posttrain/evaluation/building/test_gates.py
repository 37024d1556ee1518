"""The gates: what a score lets through and must not pass, and what it would lose and must stay."""

import pytest

from posttrain.evaluation.building import gates
from posttrain.evaluation.building.chunks import Chunk
from posttrain.evaluation.building.gates import Passed, Refused, check
from posttrain.evaluation.building.questions import Draft

TEXT = (
    "The observatory on Mount Hale was opened in 2022 after nine years of work. Its mirror is made of 412 hexagonal "
    "segments, each of which can be moved by three motors. The visitors' centre has 512 seats and was added in 2023."
)
HALE = "The observatory on Mount Hale was opened in 2022 after nine years of work."
MIRROR = "Its mirror is made of 412 hexagonal segments"


def of(text=TEXT):
    return [Chunk("d.txt", 0, 0, len(text), 50, text)]


def ask(answer="2022", citations=(HALE,), question="When was the observatory on Mount Hale opened?", **more):
    return Draft(question, answer, tuple(citations), **more)


def test_a_faithful_one_passes_with_its_place():
    found = check(ask(), of())
    assert isinstance(found, Passed)
    (place,) = found.places
    assert TEXT[place.start : place.end] == place.text == HALE
    assert place.verbatim
    assert found.scores.chunk == 100


def test_changed_figures_score_97_and_are_refused():
    """2023 and 512 both occur elsewhere in the chunk: it is the passage that must hold them."""
    changed = HALE.replace("2022", "2023")
    found = check(ask("2023", [changed]), of())
    assert isinstance(found, Refused)
    assert found.reason == gates.FIGURES
    found = check(ask("512", [MIRROR.replace("412", "512")]), of())
    assert found.reason == gates.FIGURES
    found = check(
        ask("412 of 2022", ["opened in 412 after nine years of work. Its mirror is made of 2022 hexagonal"]), of()
    )
    assert found.reason in (gates.FIGURES, gates.ABSENT), "figures in another order"


def test_another_name_in_a_sentence_of_the_text():
    """A match of 85 and more, without a figure: the name that was changed is the answer."""
    text = "Ann Lee became its first director in the spring, and stayed for a long time."
    changed = "Bo Lee became its first director in the spring"
    found = check(ask("Bo Lee", [changed], "Who was the first director of Mount Hale?"), of(text))
    assert isinstance(found, Refused)
    assert found.reason == gates.CHANGED
    assert found.detail.startswith("bo: ")
    slip = "Ann Lee became its frst director in the spring"
    assert isinstance(check(ask("Ann Lee", [slip]), of(text)), Passed)


def test_a_right_answer_in_other_words_stays():
    """The total would be under 85: the cut is not on it."""
    found = check(ask("It took builders almost a decade", [HALE]), of())
    assert isinstance(found, Passed)
    assert found.scores.chunk == 100
    assert found.scores.citation < 85


def test_the_answer_of_multiple_choice_is_its_text():
    found = check(ask("412", [MIRROR], choices=("310", "412"), right=1), of())
    assert isinstance(found, Passed)
    assert check(ask("310", [MIRROR], choices=("310", "412"), right=0), of()).reason == gates.ANSWER


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"citations": ()}, gates.NO_CITATION),
        ({"citations": ("the",)}, gates.SHORT),
        ({"citations": ("Incomprehensibilities reign",)}, gates.SHORT),
        ({"citations": (HALE, "")}, gates.SHORT),
        ({"citations": (HALE, "Penguins huddle to keep warm during the polar night.")}, gates.ABSENT),
        ({"citations": (TEXT + " And more.",)}, gates.ABSENT),
        ({"citations": (HALE, TEXT * 5)}, gates.LONG),
        ({"answer": "word " * 201}, gates.LONG),
        ({"question": "Why? " * 201}, gates.LONG),
        ({"answer": "2021"}, gates.ANSWER),
        ({"answer": "ten years"}, gates.ANSWER),
        ({"question": "According to the given passage, when was it opened?"}, gates.POINTS),
    ],
)
def test_reasons(changes, reason):
    found = check(ask(**changes), of())
    assert isinstance(found, Refused)
    assert found.reason == reason


def test_written_numbers_are_numbers():
    assert isinstance(check(ask("9 years"), of()), Passed)
    assert isinstance(check(ask("nine years"), of()), Passed)
    assert isinstance(check(ask("the one on Mount Hale"), of()), Passed)


def test_a_small_slip_of_the_pen_passes():
    found = check(ask("412", ["Its mirrors is made of 412 hexagonal segment"]), of())
    assert isinstance(found, Passed)
    assert not found.places[0].verbatim
    assert MIRROR.split()[-1] in found.places[0].text


def test_the_best_of_several_chunks():
    chunks = [Chunk("a", 0, 0, 30, 5, "Nothing of that is written here."), *of()]
    found = check(ask(), chunks)
    assert found.places[0].document == "d.txt"
