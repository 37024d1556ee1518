"""One way of writing for each way of meaning: LaTeX, Unicode and program notation of an answer, brought to a common form.

Pure text to text, linear, never raises. Case is kept: R and r are different letters.
"""

from __future__ import annotations

import re
from functools import lru_cache

LONGEST = 2_000
"""Answers longer than this many characters are compared as text only."""

_UNICODE = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "—": "-",
    "×": r" \times ", "⋅": r" \cdot ", "·": r" \cdot ", "∙": r" \cdot ", "÷": r" \div ", "⁄": "/", "∕": "/", "／": "/",
    "＋": "+", "＝": "=", "（": "(", "）": ")", "，": ",", "：": ":", "｛": r"\{", "｝": r"\}", "．": ".",
    "π": r"\pi ", "∞": r"\infty ", "≤": r" \le ", "≦": r" \le ", "≧": r" \ge ", "⩽": r" \le ", "≥": r" \ge ", "⩾": r" \ge ", "≠": r" \ne ", "≈": r" \approx ",
    "±": r" \pm ", "∓": r" \mp ", "∪": r" \cup ", "∩": r" \cap ", "∈": r" \in ", "∅": r"\emptyset ", "ø": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "∖": r"\setminus ", "⟨": "(", "⟩": ")", "〈": "(", "〉": ")", "…": r"\ldots ", "⋯": r"\ldots ", "°": r"^\circ ", "′": "'",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}",
    "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
    "¢": " cents ", "“": '"', "”": '"', "‘": "'", "’": "'", "％": "%",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ω": r"\omega ", "Ω": r"\Omega ", "Δ": r"\Delta ",
    **dict.fromkeys("\xa0\u2002\u2003\u2004\u2005\u2007\u205f\u3000\t\n\r", " "),
    **dict.fromkeys("\u2009\u200a\u202f\u2006\u2008", r"\,"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\xad", ""),
    **{chr(0xFF10 + d): str(d) for d in range(10)},
}  # fmt: skip
_FROM_UNICODE = str.maketrans(_UNICODE)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_FRACTION_SIGNS = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄/]([₀₁₂₃₄₅₆₇₈₉]+)")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT_SIGN = re.compile(r"([√∛∜])\s*(?:(\d+(?:\.\d+)?|[a-zA-Z])|(?=[({]))")

_SIZED = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?|mleft|mright)(?![a-zA-Z])\s*\.?(?=\s*[\[\](){}|\\./<>]|\s*$)")
_STYLE = re.compile(
    r"\\(?:textcolor\s*\{[a-z!0-9]+\}(?=\s*\{)|tiny|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|sf|tt|normalfont|color\{[a-z]+\}|centering)(?![a-zA-Z])"
)
_WRAPPERS = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|mathit|mathsf|mathtt|mathnormal|mathord|mathstrut|emph|underline|ensuremath|pmb|boxed|fbox)\s*(?=\{)"
)
_BOLD_REALS = re.compile(
    r"^\s*\\(?:mathbf|boldsymbol|bm)\s*\{\s*R\s*\}(?=\s*(?:$|\\(?:setminus|backslash|smallsetminus)(?![a-z])|-\s*\\\{))"
)
"""The real numbers, as older books print them."""
_TEXTS = re.compile(
    r"\\(?:textbf|textit|textrm|textsf|texttt|textnormal|textsc|mbox|hbox|mathrm|operatorname\*?)\s*(?=\{)"
)
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z]{3,}|(?:pi|le|ge|ne|ln|in|mu|nu|xi|pm|mp|lt|gt)(?![a-zA-Z]))")
_E_MINUS = re.compile(r"(?<=\d)\\(?:text|mathrm)\{\s*[eE]([-+])\s*\}(?=\d)")
_CIS = re.compile(
    r"(?:\\(?:operatorname\*?|text|mathrm)\s*\{\s*cis\s*\}|\\cis(?![a-z])|(?<![a-zA-Z\\])cis(?![a-z]))(?:\s|\\[,;: ])*"
    r"(?P<angle>(?:\\left)?\((?:[^()]|\([^()]*\)){1,80}\)|[^()+=,;]{1,80}$)"
)
_FUNCTIONS = re.compile(
    r"\\(?:operatorname\*?|text|mathrm)\s*\{\s*(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|lcm|gcd|det)\s*\}"
)
_SCALES = {
    "hundred": "100",
    "thousand": "1000",
    "million": "10^{6}",
    "billion": "10^{9}",
    "trillion": "10^{12}",
    "dozen": "12",
}
_SCALE = re.compile(
    r"(?<=\d)\s*(?:\\text\s*\{\s*(hundred|thousand|million|billion|trillion|dozen)\b\s*|(?<=\s)(hundred|thousand|million|billion|trillion|dozen)\b\s*)"
)
_UNIT_OVER = re.compile(
    r"\\[dt]?frac\s*\{\s*\\text\s*\{([^{}]*)\}\s*\}\s*\{\s*\\text\s*\{([^{}]*)\}\s*(\^\s*\{?\d\}?)?\s*\}"
)
_COMMANDS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le", "leqslant": "le",
    "geq": "ge", "geqslant": "ge", "neq": "ne", "gt": ">", "lt": "<", "varnothing": "emptyset", "lbrace": "{", "rbrace": "}",
    "langle": "(", "rangle": ")", "lparen": "(", "rparen": ")", "lbrack": "[", "rbrack": "]", "vert": "|", "lvert": "|", "rvert": "|",
    "mid": "|", "middle": "", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "bullet": "cdot", "ast": "cdot",
    "colon": ":", "degree": "^circ", "quad": " ", "qquad": " ", "space": " ", "enspace": " ", "thinspace": " ", "iff": "iff",
    "backslash": "setminus", "smallsetminus": "setminus", "infin": "infty", "lor": "or", "vee": "or", "land": "and", "wedge": "and",
    "sim": "approx", "simeq": "approx", "approxeq": "approx", "thickapprox": "approx", "R": "mathbb{R}", "N": "mathbb{N}", "Z": "mathbb{Z}",
    "imath": "i", "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "tg": "tan", "ctg": "cot", "lg": "log_{10}", "arctg": "arctan",
}  # fmt: skip
_PLAIN = {">", "<", "{", "}", "(", ")", "[", "]", "|", "", " ", ":"}
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_CONNECTIVES = {"or": r"\text{or}", "and": r"\text{and}"}

_SPACING = re.compile(r"(?<!\\)\\[;: ]|~")
_GROUPED = re.compile(
    r"(?<![\d.])(\d{1,3}(?:(?:\\!|\\,| ?\{ ?, ?\}|,\s*\\!\s*|\\!\s*,\s*(?:\\!)?|\\ )+\s*\d{3})+)(?!\d)"
)
_APOSTROPHES = re.compile(r"(?<![\w.'])\d{1,3}(?:'\d{3})+(?![\d'])")
"""Thousands as the Swiss write them."""
_E_NOTATION = re.compile(
    r"(?<![\w.\\])(\d+\.?\d*|\.\d+)\s*(?:[eE]|\\(?:text|mathrm)\{\s*[eE]\s*\})\s*(?:\{\s*([-+]?\d{1,6})\s*\}|([-+]?\d{1,6}))(?![\w]|\.\d)"
)
_OVER = re.compile(r"\{?([^{}\\]{1,40})\\over(?![a-zA-Z])\s*([^{}\\]{1,40})\}?")
_FRAC_HEAD = re.compile(r"\\(frac|binom)\s*(?!\s*\{)([0-9a-zA-Z])")
_FRAC_SECOND = re.compile(r"(\\(?:frac|binom)\s*\{[^{}]*\})\s*([0-9a-zA-Z])")
_SQRT_HEAD = re.compile(r"\\sqrt\s*(\[[^\[\]]{1,10}\])?\s*([0-9a-zA-Z])")
_POWER_PAREN = re.compile(r"(\^|_)\s*\(([^()]{1,40})\)")
_POWER_DIGITS = re.compile(r"(\^|\^\s*-)\s*(\d{2,}|(?<=-)\d)(?![\w{])")
_PERCENT_WORD = re.compile(
    r"\\text\{\s*(?:percent|per cent|percentage|pct)\.?\s*\}|(?<![a-zA-Z\\])(?:percent|per cent|percentage|pct)(?![a-zA-Z])"
)
_WORDS = {
    "sqrt": r"\sqrt", "infinity": r"\infty", "inf": r"\infty", "pi": r"\pi", "oo": r"\infty", "theta": r"\theta", "alpha": r"\alpha",
    "sin": r"\sin", "cos": r"\cos", "tan": r"\tan", "ln": r"\ln", "log": r"\log", "exp": r"\exp", "arcsin": r"\arcsin",
    "arccos": r"\arccos", "arctan": r"\arctan", "cot": r"\cot", "sec": r"\sec", "csc": r"\csc",
}  # fmt: skip
_BARE_WORD = re.compile(r"(?<![\\a-zA-Z{])(" + "|".join(sorted(_WORDS, key=len, reverse=True)) + r")(?![a-zA-Z}])")
_SQRT_PAREN = re.compile(r"\\sqrt\s*\(")


@lru_cache(1024)
def normal(answer: str) -> str:
    """An answer in normal form: ASCII LaTeX without typography, single blanks."""
    if not answer.isascii():
        answer = _FRACTION_SIGNS.sub(
            lambda m: rf"\frac{{{m[1].translate(_SUPERSCRIPTS)}}}{{{m[2].translate(_SUBSCRIPTS)}}}", answer
        )
    text = answer.translate(_FROM_UNICODE) if not answer.isascii() else re.sub(r"[\t\n\r]+", " ", answer)
    if not text.isascii():
        text = _RAISED.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _LOWERED.sub(lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
        text = _ROOT_SIGN.sub(_root, text)
    text = _DOUBLED.sub(r"\\", text) if "matrix" not in text and "array" not in text else text
    text = re.sub(r"(?<!\\)\$", "", text)
    text = re.sub(r"\{\s*([:,])\s*\}|\\text\s*\{([:,.])\}", lambda m: "{,}" if "," in m[0] else m[1] or m[2], text)
    text = re.sub(r"\\(?:text|mbox)\s*\{\s*(\\?\$)\s*\}", r"\1", text)
    text = re.sub(r"\\text\s*\{\s*([-+]?\d[\d.,/ ]*)\}", r"\1", text)
    text = re.sub(r"\\text\s*\{\s*[Ii]nfinity\s*\}", r"\\infty ", text)
    text = _FUNCTIONS.sub(r"\\\1 ", text)
    if "cis" in text:
        text = _CIS.sub(_polar, text)
    text = _E_MINUS.sub(r"e\1", text)
    text = re.sub(r"\\[()\[\]](?![^\\]*\\end)", "", text) if "\\\\" not in text else text
    text = re.sub(r"\.{3,}", r"\\ldots ", text)
    text = re.sub(r"\\pmod\s*(\w+)", r"\\pmod{\1}", text)
    text = _SIZED.sub("", text)
    text = _STYLE.sub("", re.sub(r"\\q?quad(?=[a-zA-Z])", " ", text))
    text = _WRAPPERS.sub("", _BOLD_REALS.sub(r"\\mathbb{R}", text))
    text = _TEXTS.sub(r"\\text", text)
    text = (
        text.replace(r"\text{e}", "e").replace(r"\text{ e}", "e").replace(r"\text{i}", "i").replace(r"\text{d}", "d")
    )
    text = re.sub(
        r"\\text\s*\{\s*\}|\\tag\*?\{[^{}]*\}|\\label\{[^{}]*\}|\\hspace\*?\{[^{}]*\}|\\[hv]?phantom\s*\{[^{}]*\}",
        " ",
        text,
    )
    text = _UNIT_OVER.sub(lambda m: rf"\text{{ {m[1]}/{m[2]}}}" + (m[3] or ""), text)
    text = _SCALE.sub(lambda m: f"\\times {_SCALES[m[1] or m[2]]} " + (r"\text{" if m[1] else ""), text)
    text = re.sub(r"\\text\s*\{\s*\}", " ", text)
    text = _COMMAND.sub(_renamed, text)
    text = _APOSTROPHES.sub(lambda m: m[0].replace("'", ""), text)
    text = _GROUPED.sub(lambda m: re.sub(r"\D", "", m[1]), text)
    text = text.replace(r"\!", "").replace("{,}", ",").replace(r"\,", " ").replace('"', "").replace("\x00", " ")
    text = _SPACING.sub(" ", text)
    text = _PERCENT_WORD.sub(r"\\%", text)
    text = re.sub(r"(?<!\\)%", r"\\%", text)
    text = _BARE_WORD.sub(lambda m: _WORDS[m[1]] + " ", text)
    text = _SQRT_PAREN.sub(r"\\sqrt(", text)
    text = _root_of_parentheses(text)
    text = _E_NOTATION.sub(lambda m: f"{m[1].rstrip('.')}\\times 10^{{{(m[2] or m[3]).lstrip('+')}}}", text)
    text = text.replace("**", "^")
    if r"\over" in text:
        text = _OVER.sub(r"\\frac{\1}{\2}", text)
    for _ in range(3):
        text = _FRAC_HEAD.sub(r"\\\1{\2}", text)
        text = _FRAC_SECOND.sub(r"\1{\2}", text)
    text = _SQRT_HEAD.sub(lambda m: f"\\sqrt{m[1] or ''}{{{m[2]}}}", text)
    text = _POWER_PAREN.sub(r"\1{\2}", text)
    text = _POWER_DIGITS.sub(lambda m: f"^{{{m[1][1:].strip()}{m[2]}}}", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|(?<=\d)\^\s*(?:\{\s*o\s*\}|o(?![\w(]))", r"^\\circ ", text)
    text = re.sub(r"^([-+]) (?=\d)", r"\1", text)
    text = re.sub(r"(?<=\d)\.(?=/|\)|$)|(?<![\d.])(?=\.\d)", lambda m: "" if m[0] else "0", text)
    text = re.sub(r"(?<=\d)\s+(?=!)", "", text)
    return closed(re.sub(r"\s+", " ", text))


_CLOSING = re.compile(r"(?:\s|\.|,|;|:|\\\\)+$")


def closed(text: str) -> str:
    """Without blanks around, final punctuation, and braces around the whole."""
    text = text.strip()
    while True:
        before = text
        text = text[: -len(m[0])].rstrip() if (m := _CLOSING.search(text[-20:])) else text
        if text.startswith("{") and matching(text, 0) == len(text) - 1:
            text = text[1:-1].strip()
        if text == before:
            return text


def _renamed(command: re.Match[str]) -> str:
    new = _COMMANDS.get(command[1])
    if new is None:
        return command[0]
    if new in _CONNECTIVES:
        return _CONNECTIVES[new]
    if new == "{" or new == "}":
        return "\\" + new
    if new in _PLAIN:
        return new
    if new == "^circ":
        return r"^\circ "
    if new == "i":
        return "i"
    return f"\\{new}" + (" " if not new.endswith("}") else "")


def _root(sign: re.Match[str]) -> str:
    order = {"√": "", "∛": "[3]", "∜": "[4]"}[sign[1]]
    return f"\\sqrt{order}{{{sign[2]}}}" if sign[2] else f"\\sqrt{order}"


def matching(text: str, start: int) -> int:
    """Place of the bracket that closes the one at `start`; -1 if none does. `\\{` and `\\}` are no braces."""
    opening = text[start]
    closing = {"{": "}", "(": ")", "[": "]"}[opening]
    depth = 0
    place = start
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 2
            continue
        if character == opening:
            depth += 1
        elif character == closing:
            depth -= 1
            if depth == 0:
                return place
        place += 1
    return -1


def _polar(found: re.Match[str]) -> str:
    """`\\operatorname{cis} t` → `(\\cos t+i\\sin t)`."""
    angle = re.sub(r"\\(?:left|right)(?![a-z])", "", found["angle"]).strip()
    angle = angle[1:-1] if angle.startswith("(") else angle
    return rf"(\cos({angle})+i\sin({angle}))"


def _root_of_parentheses(text: str) -> str:
    """`\\sqrt(x+1)` as program notation writes it → `\\sqrt{x+1}`."""
    for _ in range(8):
        found = _ROOT_PAREN.search(text)
        if not found or (end := matching(text, found.end() - 1)) < 0:
            return text
        text = text[: found.end() - 1] + "{" + text[found.end() : end] + "}" + text[end + 1 :]
    return text


_ROOT_PAREN = re.compile(r"\\sqrt(?:\[\d+\])?\(")
_INTEGER = re.compile(r"[-+]?\d+")
_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)")
_FRACTION = re.compile(r"([-+]?)\s*\\frac\s*\{\s*([-+]?\d+)\s*\}\s*\{\s*([-+]?\d+)\s*\}|([-+]?\d+)\s*/\s*(\d+)")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_MIXED = re.compile(r"([-+]?)(\d+)(?:\s*\\frac\s*\{(\d+)\}\s*\{(\d+)\}| (\d+)/(\d+))")
MOST_DIGITS = 400


def plain_number(text: str) -> tuple[int, int, int | None] | None:
    """A normal form that is one integer, decimal, fraction of integers or mixed number: (numerator, denominator, decimals or None if exact).

    None if it is something else, or has more than `MOST_DIGITS` characters.
    """
    if len(text) > MOST_DIGITS:
        return None
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    if _INTEGER.fullmatch(text):
        return int(text), 1, None
    if _DECIMAL.fullmatch(text):
        whole, _, decimals = text.partition(".")
        return (
            int((whole if whole not in ("", "-", "+") else whole + "0") + decimals),
            10 ** len(decimals),
            len(decimals),
        )
    if fraction := _FRACTION.fullmatch(text):
        sign = -1 if fraction[1] == "-" else 1
        top, bottom = (fraction[2], fraction[3]) if fraction[2] else (fraction[4], fraction[5])
        return (sign * int(top), int(bottom), None) if int(bottom) else None
    if mixed := _MIXED.fullmatch(text):
        whole, top, bottom = int(mixed[2]), int(mixed[3] or mixed[5]), int(mixed[4] or mixed[6])
        if 0 < top < bottom:
            return (-1 if mixed[1] == "-" else 1) * (whole * bottom + top), bottom, None
    return None
