"""What must hold for any number: written another way it is right, changed it is wrong, and who is gold does not matter."""

import json
from fractions import Fraction
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rewards.grading import grade, grade_many
from rewards.grading.extract import extract
from rewards.grading.words import number_of_words

INTEGERS = st.integers(-(10**9), 10**9)
TERMINATING = st.tuples(st.integers(-(10**7), 10**7), st.integers(0, 5)).map(lambda p: Fraction(p[0], 10 ** p[1]))
NUMBERS = st.one_of(INTEGERS.map(Fraction), TERMINATING, st.fractions(-1000, 1000, max_denominator=999))


def boxed(answer):
    return f"so $\\boxed{{{answer}}}$."


def ways(number):
    """Ways of writing a number that all say exactly it."""
    top, bottom = number.numerator, number.denominator
    sign, size = ("-" if top < 0 else ""), abs(top)
    written = [
        rf"\frac{{{top}}}{{{bottom}}}", rf"{sign}\dfrac{{{size}}}{{{bottom}}}", rf"\frac{{{3 * top}}}{{{3 * bottom}}}", f"x = {top}/{bottom}",
        f"{sign}{size}/{bottom}".replace("-", "−"), rf"\left({sign}\tfrac{{{size}}}{{{bottom}}}\right)",
    ]  # fmt: skip
    whole, rest = divmod(size, bottom)
    if whole and rest:
        written += [rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}", f"{sign}{whole} {rest}/{bottom}"]
    if bottom == 1:
        written += [
            str(top), f"{top}.0", f"{top}.", f"+{top}" if top > 0 else str(top), f"{top:,}", f"{top:,}".replace(",", "{,}"), rf"\text{{{top}}}",
            f"{top:,}".replace(",", r"\,"), rf"\mathbf{{{top}}}", rf"{top}\text{{ apples}}", f"{sign}00{size}", rf"{top}\cdot 1"
        ]  # fmt: skip
    shifted = number * 10**6
    if shifted.denominator == 1 and bottom != 1:
        decimal = f"{sign}{abs(shifted.numerator) // 10**6}.{abs(shifted.numerator) % 10**6:06d}"
        short = decimal.rstrip("0")
        written += [
            decimal,
            short,
            short.replace("-0.", "-.").removeprefix("0"),
            f"{short}e0",
            rf"{short}\times 10^{{0}}",
        ]
    return written


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_written_another_way_a_number_is_right(number):
    written = ways(number)
    pairs = [(a, boxed(b)) for a in (written[0], written[-1]) for b in written]
    pairs += [(b, boxed(written[0])) for b in written]
    for (gold, text), verdict in zip(pairs, grade_many(pairs), strict=True):
        assert verdict.right, (gold, text, verdict)


CHANGES = st.sampled_from(
    [lambda n: n + 1, lambda n: n - 1, lambda n: -n, lambda n: n * 10, lambda n: n / 10, lambda n: 2 * n, lambda n: n / 1000, lambda n: n + Fraction(1, 100),
     lambda n: 1 / n if n else Fraction(5), lambda n: n * n, lambda n: n + Fraction(1, 10**6), lambda n: n * (1 + Fraction(1, 10**5)), lambda n: 100 - n]
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(NUMBERS, CHANGES)
def test_a_changed_number_is_never_right(number, change):
    other = change(number)
    assume(other != number)
    golds, answers = ways(number), ways(other)
    pairs = [(golds[0], boxed(b)) for b in answers] + [(a, boxed(answers[0])) for a in golds]
    for (gold, text), verdict in zip(pairs, grade_many(pairs), strict=True):
        assert not verdict.right, (gold, text, verdict)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**7), st.integers(0, 6))
def test_one_digit_off_is_never_right(number, place):
    digits = str(number)
    k = place % len(digits)
    other = digits[:k] + str((int(digits[k]) + 1) % 10) + digits[k + 1 :]
    for gold, said in (
        (digits, other),
        (f"0.{digits}1", f"0.{other}1"),
        (rf"{digits}\sqrt{{2}}", rf"{other}\sqrt{{2}}"),
    ):
        if said.lstrip("0") != gold.lstrip("0"):
            assert not grade(gold, boxed(said)).right, (gold, said)


@settings(max_examples=80, deadline=None)
@given(NUMBERS, NUMBERS, st.data())
def test_who_is_gold_does_not_matter(a, b, data):
    one, other = data.draw(st.sampled_from(ways(a))), data.draw(st.sampled_from(ways(b)))
    assert grade(one, boxed(other)).right == grade(other, boxed(one)).right == (a == b)


def test_symmetry_of_the_cases():
    """Both ways round the same verdict, but where the gold alone can say what is meant: a share, a time, a hedge."""
    cases = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text("utf-8").splitlines()]
    pairs = [(c["gold"], found.answer) for c in cases if c["gold"] and (found := extract(c["prediction"]))]
    there = grade_many([(gold, boxed(answer)) for gold, answer in pairs])
    back = grade_many([(answer, boxed(gold)) for gold, answer in pairs])
    odd = {p for p, x, y in zip(pairs, there, back, strict=True) if x.right != y.right}
    assert odd == {
        ("0.35", r"0.35\%"), (r"\frac14", r"\frac14\%"), ("3:5", "6:10"), ("9:45", "18:90"), ("4", r"\boxed{4}+1"),
        ("0.07", r"0.07\%"), ("0.3", r"0.3\%"), ("3:5", "9:15"), ("3:45", "6:90"), (r"\frac{3}{5}", r"0.6\%"), ("4:7", "8:14"),
    }  # fmt: skip
    assert len(pairs) > 1500


NOISE = (
    r"\displaystyle {}", r"\left({}\right)", "{}.", r"{}\,", r"\; {} \;", r"\mathbf{{{}}}", r"\boxed{{{}}}", r"\textcolor{{red}}{{{}}}", "  {}  ",
    r"{{{}}}", r"{}\quad", "${}$",
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(NUMBERS, NUMBERS, st.data())
def test_formatting_changes_no_verdict(a, b, data):
    gold, answer = data.draw(st.sampled_from(ways(a)[:6])), data.draw(st.sampled_from(ways(b)[:3]))
    plain = grade(gold, boxed(answer)).right
    for noise, verdict in zip(NOISE, grade_many([(gold, boxed(n.format(answer))) for n in NOISE]), strict=True):
        assert verdict.right == plain == (a == b), (gold, noise.format(answer), verdict)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 900))
def test_a_bend_far_from_zero_is_seen(bend):
    far = [(f"|x-{bend}|", f"{bend}-x"), (f"|x-{bend}|", f"x-{bend}"), (rf"\lfloor n/{bend}\rfloor", "0")]
    assert not any(v.right for v in grade_many([(gold, boxed(answer)) for gold, answer in far]))
    assert grade(f"|x-{bend}|", boxed(f"|{bend}-x|")).right


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # noqa: SIM905
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905


def in_words(n, joint):
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = f"{joint}{in_words(n % size, joint)}" if n % size else ""
            return f"{in_words(n // size, joint)} {name}{rest}"
    raise AssertionError


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9 - 1), st.sampled_from([" ", " and "]))
def test_numbers_in_words(n, joint):
    assert number_of_words(in_words(n, joint)) == n
    assert number_of_words("minus " + in_words(n, joint)) == -n


def test_what_is_no_number_in_words():
    for text in (
        "",
        "and",
        "twenty eleven",
        "hundred",
        "two three",
        "one thousand thousand",
        "two and",
        "three apples",
        "twenty zero",
        "minus",
    ):
        assert number_of_words(text) is None, text
