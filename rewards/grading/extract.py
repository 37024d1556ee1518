"""From what a model wrote to the one span that is its answer, or None. Linear in the text; no mathematics here.

In this order: the last box (boxes joined by "or", "and" or a comma are one answer), `#### 18`, a line `A: 18` or
`Answer: 18`, "the answer is 18", a text that is nothing but an answer, and the end of a last sentence that begins with
"so", "thus", "hence" or "therefore". A formula that only occurs somewhere is no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_TEXT = 200_000
"""Only so many characters at the end of a text are looked at."""
TAIL = 4_000
"""Where there is no box, the answer must be in so many characters at the end."""

ENDS = ("</think>", "</thinking>", "</thought>", "</reasoning>", "[/THINK]", "<|end_of_thought|>")
BEGINNINGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "[THINK]", "<|begin_of_thought|>")


@dataclass(frozen=True, slots=True)
class Found:
    """The answer as written, and by which mark it was recognised: box, boxes, hashes, label, phrase, whole, conclusion."""

    answer: str
    by: str


def after_reasoning(text: str) -> str:
    """What follows the last end-of-thinking mark; nothing, if a span begins the text and never ends."""
    ends = [text.rfind(mark) + len(mark) for mark in ENDS if mark in text]
    if ends:
        return text[max(ends) :]
    return "" if text.lstrip().startswith(BEGINNINGS) else text


def extract(text: str, *, boxed_only: bool = False) -> Found | None:
    """The answer of a model's text; None if it gives none.

    `boxed_only`: nothing but a box counts.
    """
    text = after_reasoning(text[-LONGEST_TEXT:])
    boxes = _boxes(text)
    if boxes:
        return _from_boxes(text, boxes)
    if boxed_only:
        return None
    return _without_box(text)


def extract_gold(gold: str) -> str | None:
    """The answer in a data set's gold: a bare answer, or a solution that ends in a box or in `#### 18`."""
    boxes = _boxes(gold[-LONGEST_TEXT:])
    if boxes:
        found = _from_boxes(gold[-LONGEST_TEXT:], boxes)
        return found.answer if found else None
    hashes = _HASHES.search(gold[-TAIL:])
    answer = (hashes[1] if hashes else gold).strip()
    return answer or None


_BRACE = re.compile(r"\\{1,2}(?:boxed|fbox|framebox)|\\[^\n]|[{}]")


@dataclass(frozen=True, slots=True)
class _Box:
    start: int
    end: int
    """One past the closing brace."""
    inner: str


def _boxes(text: str) -> list[_Box]:
    """Boxes whose braces close, from left to right; of boxes in a box the inner ones, unless more than words is around them.
    `\\boxed 7` counts too."""
    if "box" not in text:
        return []
    found: list[_Box] = []
    open_braces: list[tuple[int, int]] = []  # (start of the box or -1, first character inside)
    for mark in _BRACE.finditer(text):
        token = mark[0]
        if token.endswith("box") or token.endswith("boxed"):
            place = mark.end()
            while place < len(text) and text[place] in " \t\n":
                place += 1
            if place < len(text) and text[place] == "{":
                open_braces.append((mark.start(), place + 1))
            elif bare := _BARE.match(text, mark.end()):
                found.append(_Box(mark.start(), bare.end(), bare[1]))
        elif token == "{":
            if not (open_braces and open_braces[-1][1] == mark.end()):  # not the brace that a box just opened
                open_braces.append((-1, mark.end()))
        elif token == "}" and open_braces:
            start, first = open_braces.pop()
            if start < 0:
                continue
            within = [box for box in found if box.start > start]
            if within and not _says_more(text[first : within[0].start] + text[within[-1].end : mark.start()]):
                continue
            del found[len(found) - len(within) :]
            found.append(_Box(start, mark.end(), text[first : mark.start()]))
    return found


def _says_more(around: str) -> bool:
    """Whether there is mathematics around a box in a box: `\\boxed{\\boxed{4}+1}`."""
    return re.search(r"[\d+*/^=<>-]|\\(?:frac|dfrac|sqrt)", re.sub(r"\\text\s*\{[^{}]*\}", "", around)) is not None


_BARE = re.compile(r"\s+([^\s$.,;{}\\]{1,40})")

_LINK = re.compile(
    r"(?:,|;|\\?&|\band\b|\bor\b|\\quad|\\qquad|\\\\|\\text\{\s*(?:and|or)\s*\}|\\(?:,|;|:|\s)|\s)*", re.IGNORECASE
)
_AROUND = re.compile(r"\$|\\\(|\\\)|\\\[|\\\]")
_NAME = re.compile(r"[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=\s*$")


def _from_boxes(text: str, boxes: list[_Box]) -> Found | None:
    """The last box, with those before it that are joined to it."""
    chain = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        gap = text[box.end : chain[0].start]
        if len(gap) > 60:
            break
        gap = _NAME.sub("", _AROUND.sub(" ", gap))
        if not _LINK.fullmatch(gap):
            break
        chain.insert(0, box)
    answers: list[str] = []
    for box in chain:
        answer = box.inner.strip()
        if answer and answer not in answers:
            answers.append(answer)
    if not answers:
        return None
    return Found(", ".join(answers), "box" if len(answers) == 1 else "boxes")


_HASHES = re.compile(r"####[ \t]*([^\n#]{1,300}?)[ \t]*(?:\n[^#]*)?$")
_TAGS = re.compile(r"<answer>([^<]{1,300})</answer>", re.IGNORECASE)
_LABEL = re.compile(
    r"^[ \t>*_#]*(?:(?:final answer|answer|ans)[ \t]*[*_]{0,3}[ \t]*(?:[:=]|(?=\$|\\\(|\\\[))|final answer[ \t]*:?[*_]{0,3}:?[ \t]*\n{1,2}(?=[^\n])|a:)[ \t]*[*_]{0,3}[ \t]*([^\n]{1,300})",
    re.IGNORECASE | re.MULTILINE,
)
_PHRASE = re.compile(
    r"\b(?:answer|correct (?:choice|option))(?:[ \t]+(?:to|for|of)\b[^.\n:]{0,60})?[ \t]*(?:(?:is|are|would be|must be|=)[ \t]*:?(?:[ \t]*(?:therefore|thus|hence|then|simply|indeed|clearly)\b,?)?|:)[ \t]*\n{0,2}[ \t]*(?=([^\n]{1,300}))",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:if|whether|unless|suppose|supposing|assume|assuming|provided)\b[^.!?\n,;]*\Z", re.IGNORECASE
)
_REASON = re.compile(r"\b(?:since|because|where|which|while|whereas|rather than|instead of|but|not)\b", re.IGNORECASE)
_CONCLUSION = re.compile(r"^\W{0,4}(?:so|thus|hence|therefore|consequently|in total|altogether)\b", re.IGNORECASE)
_HOPE = re.compile(r"[.\s]*\bI hope\b.*$", re.IGNORECASE | re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z*$\\(])|\n+")
_MATH = re.compile(
    r"\$\$([^$]{1,300})\$\$|\$((?:[^$\n\\]|\\[^\n]){1,300})\$|\\\(([^\n]{1,300}?)\\\)|\\\[([^\n]{1,300}?)\\\]"
)
_LOOSE = re.compile(r"[-−]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?(?:\s*\\?%)?")


_ENDED = re.compile(r"(?:<\|[a-z_]{1,20}\|>(?:user|assistant)?\s*)+$")
"""Marks of a chat template that a model wrote out at the end."""
_DISPLAY = re.compile(r"(\$\$|\\\[)\s*([^$\n]{1,300}?)\s*(\$\$|\\\])")


_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*\.?")


def _without_box(text: str) -> Found | None:
    tail = _DISPLAY.sub(r"\1\2\3", _ENDED.sub("", text[-TAIL:].rstrip()))
    if not tail:
        return None
    if hashes := _HASHES.search(tail):
        return Found(hashes[1], "hashes")
    if (tags := _TAGS.findall(tail)) and (answer := _span(tags[-1].strip())):
        return Found(answer, "label")
    for pattern, by in ((_LABEL, "label"), (_PHRASE, "phrase")):
        last = None
        for mark in pattern.finditer(tail):
            if not _SUPPOSED.search(tail, max(0, mark.start() - 80), mark.start()):
                last = mark  # the last one counts
        if last is not None and (answer := _span(last[1])):
            return Found(answer, by)
    if (bold := _BOLD.fullmatch(text.strip())) and _is_bare(bold[1].strip()):
        return Found(bold[1].strip(), "whole")
    if (
        len(text) <= 200
        and "\n" not in text.strip()
        and (_MATH.fullmatch(text.strip()) or (_is_bare(text.strip()) and not _CONCLUSION.match(text)))
    ):
        return Found(text.strip(), "whole")
    sentence = [s for s in _SENTENCE.split(tail) if s.strip()][-1]
    if _CONCLUSION.match(sentence) and (answer := _closing(sentence)):
        return Found(answer, "conclusion")
    return None


def _span(rest: str) -> str | None:
    """The answer at the beginning of what follows "the answer is"."""
    rest = _HOPE.sub("", rest).strip()
    if bold := re.match(r"\*\*(.{1,200}?)\*\*", rest):
        rest = bold[1]
    rest = rest.strip("*_` \t")
    if (math := _MATH.match(rest)) and _GOES_ON.match(rest, math.end()):
        return _first_clause(rest)  # "$12$ or $13$"
    if math:
        return next(g for g in math.groups() if g is not None).strip()
    if not rest:
        return None
    if _is_bare(rest.rstrip(" .!")):
        return rest.rstrip(" .!")
    if not rest.startswith(_OPENINGS) and (said := _SAYS.match(rest)):
        return _span(said[1])  # "Final answer: the volume is 120"
    if (lettered := re.match(r"\(?([A-J])\)\s", rest)) and _LETTER_FIRST.match(rest):
        return lettered[1]
    # Words follow: the number, letter or short word at the start is the answer ("80 of them").
    if (math := _MATH.search(rest)) and _QUALIFIED.search(rest[: math.start()]):
        return _first_clause(rest)  # "not equal to $12$"
    if math:
        return next(g for g in math.groups() if g is not None).strip()
    if number := re.match(
        r"(?:(?:about|exactly|just|only|equal to)\s+)?(" + _LOOSE.pattern + r")(?![\w^*+/=(-])", rest
    ):
        return number[1].strip()
    if letter := _LETTER_FIRST.match(rest):
        return letter[1]
    return _first_clause(rest)


_LETTER_FIRST = re.compile(r"(?:(?:option|choice)\s+)?(\(?[A-J]\)|[B-HJ])(?![\w'])")
_OPENINGS = ("$", "\\", "(", "[")
_SAYS = re.compile(r"[A-Za-z](?:[^.$\n]|\$[^$\n]{1,80}\$){0,160}?\s(?:is|are|equals)\s+(.+)")


def _first_clause(rest: str) -> str | None:
    return re.split(r"[.,;](?:\s|$)", rest)[0].strip() or None


_GOES_ON = re.compile(r"\s*(?:or|plus|minus|times|and|to|if|when)\b")
_QUALIFIED = re.compile(
    r"(?:\b(?:not|never|cannot|neither|between)\b|n't\b)[^.]{0,25}$"
    r"|\b(?:(?:fewer|less|more|greater|larger|smaller|other) than|at (?:most|least)|up to|under|over|above|below)\s*$",
    re.IGNORECASE,
)
"""What turns the number that follows into something that is not the answer."""


def _closing(sentence: str) -> str | None:
    """The last formula or number of a concluding sentence, if little follows it."""
    sentence = re.split(r"[\s,;]+$", sentence[: r.start()])[0] if (r := _REASON.search(sentence)) else sentence
    formulas = [m for m in _MATH.finditer(sentence) if len(sentence) - m.end() <= 40]
    if formulas:
        if _QUALIFIED.search(sentence[: formulas[-1].start()]):
            return None
        formula = next(g for g in formulas[-1].groups() if g is not None)
        return formula.strip()
    numbers = [m for m in _LOOSE.finditer(sentence) if len(sentence) - m.end() <= 40]
    if not numbers or _QUALIFIED.search(sentence[: numbers[-1].start()]):
        return None
    return numbers[-1][0]


_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_KNOWN = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "pi", "frac", "text", "mathrm", "max", "min", "gcd", "lcm", "or", "and", "mod"])  # fmt: skip


def _is_bare(text: str) -> bool:
    """True for a text that is an answer and nothing else: mathematics, a number with its unit, or one word."""
    without = re.sub(r"\\(?:text|mathrm|textbf|mbox|operatorname)\s*\{[^{}]*\}", " ", text)
    words = [w for w in _WORD.findall(without) if w.lower() not in _KNOWN]
    if not text or "?" in text or r"\boxed" in text:
        return False
    most = 2 if re.search(r"\d", text) else 1
    return not words or (len(words) <= most and len(text) <= 40)
