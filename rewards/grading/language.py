"""Answers in words: letters of a multiple choice, times of day, ordinary words and what some of them stand for."""

from __future__ import annotations

import re

from rewards.grading.normalise import closed
from rewards.grading.shapes import Choice, Clock, Listing, Region, Shape, Word
from rewards.grading.units import Expression
from rewards.grading.words import fraction_of_words, number_of_words

TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?")
_MORE_CHOICES = re.compile(r"^(?:or|and|nor|but|,|/|\\text\{\s*(?:or|and))(?![a-z])|\([A-J]\)")
_CHOICE_AND = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])[).:])\s*(\S.*)", re.DOTALL)


def unwrapped(text: str) -> str:
    """`\\text{13}` → `13`; text that holds ordinary words stays wrapped."""
    while (whole := TEXT.fullmatch(text)) and not re.search(r"[A-Za-z]{2}", whole[1]):
        inner = closed(whole[1])
        if inner == text or not inner:
            break
        text = inner
    return text


def choice(text: str) -> Choice | None:
    """A letter of a multiple choice, with what is behind it; None if the text is none."""
    bare = closed(TEXT.sub(r"\1", text))
    if whole := _CHOICE.fullmatch(bare):
        return Choice(whole[1])
    labelled = _CHOICE_AND.fullmatch(bare)
    if (
        labelled
        and not _MORE_CHOICES.search(labelled[3])
        and (labelled[3][0].isdigit() or labelled[3][0] in "-+.\\$(" or TEXT.match(text))
    ):
        wrapped = re.match(r"\\text\s*\{\s*\(?[A-J][).:]+\s*\}\s*(.*)", text, re.DOTALL)
        if " " in bare[:5] or wrapped:
            return Choice(labelled[1] or labelled[2], wrapped[1] if wrapped else labelled[3])
    return None


_SAID = {
    **dict.fromkeys(("all real numbers", "all reals", "all real values", "real numbers", "the reals", "set of all real numbers"), r"\mathbb{R}"),
    **dict.fromkeys(("empty set", "no solution", "no solutions", "none", "no real solution", "no real solutions", "no solution exists", "there is no solution", "there are no solutions"), r"\emptyset"),
    **dict.fromkeys(("all integers", "integers", "the integers", "set of all integers"), r"\mathbb{Z}"),
}  # fmt: skip
_SAID_NUMBER = {
    **dict.fromkeys(("infinity", "positive infinity", "plus infinity"), r"\infty"),
    **dict.fromkeys(("negative infinity", "minus infinity"), r"-\infty"),
}


def said_in_words(word: Word) -> Shape:
    """What some words mean: a number, infinity, the real numbers, no solution, a letter of a multiple choice."""
    said = word.text.lower()
    if said in _SAID:
        return Region(_SAID[said])
    if said in _SAID_NUMBER:
        return Expression(_SAID_NUMBER[said])
    if chosen := re.fullmatch(r"(?:option|choice|answer)\s+([A-J])", word.text, re.IGNORECASE):
        return Choice(chosen[1].upper())
    if (number := number_of_words(said)) is not None:
        return Expression(str(number))
    if (part := fraction_of_words(said)) is not None:
        return Expression(f"\\frac{{{part[0]}}}{{{part[1]}}}")
    if said in ("does not exist", "d.n.e", "dne", "the limit does not exist"):
        return Word("DNE")
    letters = re.split(r"\s*(?:,|\band\b|&)\s*", re.sub(r"[()]", "", word.text))
    if len(letters) > 1 and all(re.fullmatch(r"[A-J]", letter) for letter in letters):
        return Listing(tuple(Choice(letter) for letter in letters), "bare")
    names = [n for n in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", word.text) if n]
    if len(names) > 1 and all(len(n.split()) <= 2 for n in names):
        return Listing(tuple(Word(n) for n in names), "bare")
    return word


_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?\s*(?:\\text\s*\{\s*([ap])\.?\s?m\.?\s*\}|([ap])\.?m\.?)", re.IGNORECASE)


def clock_in(text: str) -> Clock | None:
    """A time that says its half of the day, or None."""
    found = _CLOCK.fullmatch(closed(whole[1]) if (whole := TEXT.fullmatch(text)) else text)
    if not found or not 0 < int(found[1]) <= 12:
        return None
    return Clock(int(found[1]), int(found[2] or 0), (found[3] or found[4]).lower())


_ORDINARY = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?!and\b|or\b)", re.IGNORECASE)


def word_in(text: str) -> Word | None:
    """A text that is nothing but ordinary words, without its article; None if it is more."""
    wrapped = TEXT.fullmatch(text)
    bare = closed(wrapped[1] if wrapped else text)
    if not _ORDINARY.fullmatch(re.sub(r"(?<=[a-z]),(?= )", "", bare) if wrapped else bare) or not re.search(
        r"[A-Za-z]{2}", bare
    ):
        return None
    if wrapped or re.search(r"[a-z]{3}", bare):
        return Word(_ARTICLE.sub("", " ".join(bare.split()), count=1).rstrip("."))
    return None
