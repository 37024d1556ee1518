import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.grading.normalise import normal, plain_number


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("−5", "-5"), ("√2", r"\sqrt{2}"), ("9π", r"9\pi"), ("½", r"\frac{1}{2}"), ("x²", "x^{2}"), ("x₁₂", "x_{12}"),
        (r"\dfrac12", r"\frac{1}{2}"), (r"\frac 59", r"\frac{5}{9}"), (r"\frac9{19}", r"\frac{9}{19}"), (r"5 \over 9", r"\frac{5 }{9}"),
        (r"\sqrt3", r"\sqrt{3}"), ("sqrt(x+1)", r"\sqrt{x+1}"), ("x^12", "x^{12}"), ("x**2", "x^2"),
        (r"12\,345", "12345"), ("12{,}345", "12345"), (r"12\!,\!345", "12345"), (r"11,\! 111,\! 100", "11111100"), (r"2\,3", "2 3"), ("1,234", "1,234"),
        ("6.02e23", r"6.02\times 10^{23}"), (r"9.11\mathrm{e}{-31}", r"9.11\times 10^{-31}"), ("1E5", r"1\times 10^{5}"),
        (r"\mathbf{x^2}", "x^2"), (r"\left[2,5\right)", "[2,5)"), (r"\langle 1,2\rangle", "( 1,2)"), (r"\varnothing", r"\emptyset"),
        ("12.5 percent", r"12.5 \%"), ("50%", r"50\%"), (r"\text{yes}.", r"\text{yes}"), ("13.", "13"), (".5", "0.5"), ("-1./3", "-1/3"),
        (r"\leqslant", r"\le"), ("$x$", "x"), ("{5}", "5"), (r"10\ \mathrm{cm}", r"10 \text{cm}"),
    ],
)  # fmt: skip
def test_one_notation(written, wanted):
    assert normal(written) == wanted


@pytest.mark.parametrize(
    ("text", "number"),
    [("073", (73, 1, None)), ("-5", (-5, 1, None)), ("12.50", (1250, 100, 2)), ("-0.5", (-5, 10, 1)), ("-.5", (-5, 10, 1)), ("3/4", (3, 4, None)),
     (r"-\frac{2}{7}", (-2, 7, None)), (r"\frac{-2}{7}", (-2, 7, None)), ("1,234,567", (1234567, 1, None)), ("1,234.5", (12345, 10, 1)),
     ("12 345", (12345, 1, None)), ("1,23", None), ("(1,234)", None), ("2 3", None), ("1/0", None), ("x", None), ("1" * 500, None)],
)  # fmt: skip
def test_plain_numbers(text, number):
    assert plain_number(text) == number


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        alphabet=st.one_of(st.sampled_from(list("\\{}$^_()[]12.,e ")), st.characters(exclude_categories=())),
        max_size=60,
    )
)
def test_never_raises(text):
    assert isinstance(normal(text), str)
    plain_number(normal(text))


@settings(max_examples=300, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_decimals_are_read_exactly(number):
    top, bottom, _ = plain_number(normal(f"{number:f}"))
    assert top == number * bottom
    top, bottom, _ = plain_number(normal(f"{number:,f}"))
    assert top == number * bottom
