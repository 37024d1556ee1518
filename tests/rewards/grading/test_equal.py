"""The comparison itself, in this process: the published-by-hand cases, and oracles that are sympy's or Python's own."""

from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.grading.equal import equal
from rewards.grading.extract import extract, extract_gold


def test_all_hand_written_cases(equivalence_cases):
    assert len(equivalence_cases) == 195
    accepted, rejected = [], []
    for case in equivalence_cases:
        found = extract(case["prediction"])
        same = found is not None and equal(extract_gold(case["gold"]), found.answer)[0]
        if same and not case["equivalent"]:
            accepted.append((case["gold"], case["prediction"]))
        if case["equivalent"] and not same:
            rejected.append((case["gold"], case["prediction"]))
    assert accepted == []
    assert rejected == []


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"90^\circ", "90 degrees"), (r"864 \mbox{ inches}^2", r"864\text{ square inches}"), (r"5\text{ m/s}", r"5\text{ meters per second}"),
        (r"x \in [-2,7]", r"-2 \le x \le 7"), (r"(0,9) \cup (9,36)", r"(0,36)\setminus\{9\}"), (r"\{1\pm\sqrt{5},-2\}", r"-2,1+\sqrt5,1-\sqrt5"),
        ("f(x)=1/x", "f(x) = x^{-1}"), (r"\binom{2n}{n}", r"\frac{(2n)!}{(n!)^2}"), ("(6,3),(9,3)", r"\{(9,3),(6,3)\}"), ("1,-2", r"x=1 \text{ or } x=-2"),
        ("(3,2)", "x=3, y=2"), ("0.15", r"\frac{3}{20}"), ("1/3", "0.3333333333333333"), ("-2,-2", "-2, -2"), (r"\lceil n / 2\rceil+1", r"\lfloor (n+1)/2\rfloor + 1"),
        (r"\frac{\log 2}{\log 2-\log 3}", r"\frac{\ln 2}{\ln 2 - \ln 3}"), ("4.5e33", r"4.5 \times 10^{33}"), ("I(0)e^{-t/(RC)}", r"I(0) e^{-\frac{t}{RC}}"),
        (r"E_{1}+2e^t", "2e^t+E_1"), ("5", "five"), ("42", r"\text{The answer is }42"),
        (r"\frac{d x}{d t}=k x-a", "kx-a"), (r"\sin 30^\circ", r"\frac12"), (r"0.1\overline{6}", r"\frac16"), (r"x<-5", r"(-\infty,-5)"),
    ],
)  # fmt: skip
def test_the_same(gold, answer):
    assert equal(gold, answer)[0]
    assert equal(answer, gold)[0]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2n", "2k"), ("N/2", "n/2"), ("x'", "x"), ("f'(x)=2x", "f(x)=2x"), ("12", "1 2"), ("1000", "1000.05"), ("1000000", "1000001"), (r"\frac{dM}{dt}", "0"),
        ("I(0)", "0"), ("E", "e"), ("i", "I"), (r"\emptyset", "0"), (r"\{0,1\}", "(0,1)"), ("0", "10^{-60}"), ("1.5", "1.4999"), (r"\lfloor x\rfloor", "x"),
        (r"\lfloor x\rfloor", r"\lceil x\rceil"), (r"50\%", r"5000\%"), ("x>2", "y>2"), (r"\log x", r"\ln x"), ("3", r"3\text{ or }4"),
        (r"2\pi", "6.28"), ("40", "40_9"), (r"\hbar\omega(v+1/2)-\frac{E_0^2e^2}{2m\omega^2}", "2"), ("12:30", "6:15"), (r"\text{nave}", "vane"), ("2^{1009}", "2^{1008}"),
    ],
)  # fmt: skip
def test_not_the_same(gold, answer):
    assert not equal(gold, answer)[0]
    assert not equal(answer, gold)[0]


def test_one_answer_said_in_two_ways_is_one_answer():
    assert equal(r"\frac{639}{40}", r"15\frac{39}{40}\text{ or }\frac{639}{40}")[0]
    assert not equal(r"15\frac{39}{40}\text{ or }\frac{639}{40}", r"\frac{639}{40}")[0]
    assert not equal("-2,-2", "-2")[0]


FRACTIONS = st.fractions(min_value=-50, max_value=50, max_denominator=60)


def latex(fraction):
    return str(fraction) if fraction.denominator == 1 else rf"\frac{{{fraction.numerator}}}{{{fraction.denominator}}}"


@settings(max_examples=150, deadline=None)
@given(FRACTIONS, FRACTIONS)
def test_fractions_agree_with_python(a, b):
    assert equal(latex(a), latex(b))[0] == (a == b)
    assert equal(latex(a), f"{b.numerator}/{b.denominator}")[0] == (a == b)
    whole, rest = divmod(abs(a), 1)
    if whole and rest:
        mixed = ("-" if a < 0 else "") + str(whole) + latex(Fraction(rest))
        assert equal(latex(a), mixed)[0]
        assert equal(latex(a), latex(b) + mixed)[0] is False or b == 0


X, Y = sympy.symbols("x y", real=True)
EXPRESSIONS = st.recursive(
    st.one_of(st.sampled_from([X, Y, sympy.pi]), st.integers(-4, 6).map(sympy.Integer)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(sum),
        st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
        inner.map(lambda e: e**2),
        inner.map(sympy.sin),
        inner.map(lambda e: sympy.sqrt(e**2 + 1)),
        inner.map(lambda e: sympy.exp(e / 3)),
    ),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(
    EXPRESSIONS, st.sampled_from([sympy.expand, sympy.factor, lambda e: sympy.sin(X) ** 2 * e + e * sympy.cos(X) ** 2])
)
def test_a_formula_equals_its_rewritten_self_and_not_its_neighbour(expression, rewrite):
    written = sympy.latex(expression)
    assert equal(written, sympy.latex(rewrite(expression)))[0]
    assert not equal(written, sympy.latex(expression + sympy.Rational(1, 10**9)))[0]
    assert not equal(written, sympy.latex(expression + X / 7))[0]


@settings(max_examples=100, deadline=None)
@given(st.lists(FRACTIONS, min_size=2, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_order_counts_in_tuples_only(numbers, random):
    shuffled = list(numbers)
    random.shuffle(shuffled)
    listed, again = ", ".join(map(latex, numbers)), ", ".join(map(latex, shuffled))
    assert equal(listed, again)[0]
    assert equal(rf"\{{{listed}\}}", again)[0]
    assert equal(f"({listed})", f"({again})")[0] == (numbers == shuffled)
    assert not equal(listed, ", ".join(map(latex, numbers[1:])))[0]
    assert not equal(rf"\{{{listed}\}}", f"({again})")[0]


ENDS = st.sampled_from("()[]")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=4, max_size=4, unique=True).map(sorted),
    st.lists(ENDS, min_size=8, max_size=8),
)
def test_intervals_agree_with_sympy(points, ends):
    def interval(a, b, left, right):
        left, right = "([)("[(")" in right) * 0] if left in "(" else "[", ")" if right in "()" else "]"
        return f"{left}{a},{b}{right}", sympy.Interval(a, b, left == "(", right == ")")

    a, b, c, d = points
    texts, sets = zip(
        *(interval(*p, *ends[2 * k : 2 * k + 2]) for k, p in enumerate([(a, b), (c, d), (a, c), (b, d)])), strict=True
    )
    for union in (0, 2):
        for other in (0, 2):
            written = rf"{texts[union]}\cup {texts[union + 1]}", rf"{texts[other + 1]}\cup {texts[other]}"
            same = sympy.Union(*sets[union : union + 2]) == sympy.Union(*sets[other : other + 2])
            assert equal(*written)[0] == same
