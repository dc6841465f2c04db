"""The rewrites behind the normal form of mathematical text: which spellings mean the same. Tables for `text.py`.

Rules apply from top to bottom. None of them may change a value: what they take away is typography.
"""

import re

_SUPERSCRIPTS = {character: f"^{{{digit}}}" for digit, character in enumerate("\u2070\u00b9\u00b2\u00b3")}
_SUPERSCRIPTS |= {chr(0x2070 + digit): f"^{{{digit}}}" for digit in range(4, 10)}
CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2010\u2011\uff0d", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u00ad", ""),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000\u2002\u2003", " "),
        **_SUPERSCRIPTS,
        "\u00d7": "\\times ",
        "\u00b7": "\\cdot ",
        "\u22c5": "\\cdot ",
        "\u00f7": "\\div ",
        "\u03c0": "\\pi ",
        "\u03b8": "\\theta ",
        "\u221e": "\\infty ",
        "\u2264": "\\le ",
        "\u2265": "\\ge ",
        "\u2260": "\\ne ",
        "\u2208": "\\in ",
        "\u222a": "\\cup ",
        "\u2205": "\\emptyset ",
        "\u00b1": "\\pm ",
        "\u2248": "\\approx ",
        "\u221a": "\\sqrt ",
        "\u211d": "\\mathbb{R}",
        "\u20ac": "\\text{euros}",
        "\u00a3": "\\text{pounds}",
        "\u00bd": "\\frac{1}{2}",
        "\u00bc": "\\frac{1}{4}",
        "\u00be": "\\frac{3}{4}",
        "\uff08": "(",
        "\uff09": ")",
        "\uff0c": ",",
        "\uff0b": "+",
        "\uff1d": "=",
        "\uff0f": "/",
        "\uff0e": ".",
        "\uff05": "\\%",
        "\uff3b": "[",
        "\uff3d": "]",
        "\uff1a": ":",
        "\u2236": ":",
        "\u2220": "\\angle ",
        "\u25b3": "\\triangle ",
        "\u223d": "\\sim ",
        "\u224c": "\\cong ",
        "\u22a5": "\\perp ",
        "\u2225": "\\parallel ",
        **{chr(0x2080 + digit): f"_{digit}" for digit in range(10)},
    }
)

_FUNCTIONS = "arcsin|arccos|arctan|arccot|sinh|cosh|tanh|coth|sin|cos|tan|cot|sec|csc|ln|log|exp|max|min|gcd|det"
_FONTS = "mbox|text|textrm|textbf|textit|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|operatorname|rm|bf"
_END = "(?![a-zA-Z])"
# What TeX takes for a whole argument without braces, as far as it is used.
_BARE_ARGUMENT = r"(?:\w|\\(?:pi|theta|alpha|beta|phi|lambda|infty)(?![a-zA-Z]))"
_BOLD = r"\\(?:mathbf|textbf|boldsymbol|bm)\s*\{([a-zA-Z])\}"
_SWITCHES = "bf|it|rm|sf|tt|em|sl|bfseries|itshape|tiny|small|normalsize|large|Large|LARGE|huge|Huge|boldmath"
COMMANDS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Bold letters beside a dot or a cross are vectors.
        (rf"{_BOLD}\s*\\times\s*{_BOLD}", r"\\vec{\1}\\cross \\vec{\2}"),
        (rf"{_BOLD}\s*\\cdot\s*{_BOLD}", r"\\vec{\1}\\cdot \\vec{\2}"),
        # Colour, size, boxes and empty space are typography.
        (r"\\color\s*\{[^{}]*\}\s*\{([^{}]*)\}", r"\1"),
        (r"\\(?:textcolor|colorbox|color|bbox|class|style)\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}(?=.)", ""),
        (r"\\bbox\s*\[[^\[\]]*\]", ""),
        (r"\\begin\{(?:aligned|align\*?|gathered|split)\}([^&]*?)\\end\{(?:aligned|align\*?|gathered|split)\}", r"\1"),
        (r"\\fcolorbox\s*\{[^{}]*\}\s*\{[^{}]*\}", ""),
        (r"\\(?:[hv]?phantom|[hv]space\*?|label|tag\*?)\s*\{[^{}]*\}|\\(?:nonumber|notag|strut|mathstrut)" + _END, ""),
        (
            r"\\(?:boxed|fbox|framebox|underline|uline|uuline|emph|pmb|smash|ensuremath|mathnormal|mathtt|textsc|hbox)\s*(?=\{)",
            "",
        ),
        (rf"\\(?:{_SWITCHES})(?![a-zA-Z]|\s*\{{)\s*", ""),
        (rf"\\(?:{_SWITCHES})\s*(?=\{{)", r"\\text"),
        (r"\\(?:left|right)\s*\.", ""),
        (rf"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits){_END}", ""),
        (rf"\\(?:[lr]?vert|mid){_END}", "|"),
        (rf"\\lbrace{_END}", r"\\{"),
        (rf"\\rbrace{_END}", r"\\}"),
        (rf"\\[dtc]frac{_END}", r"\\frac"),
        (rf"\\[dt]binom{_END}", r"\\binom"),
        (rf"\\(?:{_FONTS})\*?\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        (rf"\\lg{_END}", r"\\log"),
        (rf"\\[lc]dots{_END}", r"\\dots"),
        (r"\\math(?:rm|it)\s*\{\s*([eid])\s*\}", r"\1"),
        (rf"\\(?:{_FONTS})\*?(?=\s*\{{)", r"\\text"),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\}|\\degree)" + _END + r"|\\degree" + _END + "|\u00b0", "\u00b0"),
        (rf"\\q?quad{_END}", " "),
        (rf"\\(?:leq|leqslant){_END}", r"\\le"),
        (rf"\\(?:geq|geqslant){_END}", r"\\ge"),
        (rf"\\neq{_END}", r"\\ne"),
        (rf"\\lt{_END}", "<"),
        (rf"\\gt{_END}", ">"),
        (rf"\\(?:thickapprox|approxeq|simeq|doteq){_END}", r"\\approx"),
        (rf"\\(?:varnothing){_END}", r"\\emptyset"),
        (rf"\\(?:colon|ratio){_END}|\\mathbin\s*\{{\s*:\s*\}}", ":"),
        (r"\{\s*:\s*\}", ":"),
        (rf"\\(?:measuredangle|sphericalangle){_END}", r"\\angle"),
        (r"\\angle\s*\{\s*([A-Z0-9]{1,3})\s*\}", r"\\angle \1"),
        (rf"\\overrightarrow{_END}", r"\\vec"),
        (r"\\(vec|dot|ddot|bar|hat|tilde)\s+([a-zA-Z])", r"\\\1{\2}"),
        (r"\\bar\s*(?=\{[a-zA-Z]\})", r"\\overline"),
        (r"\^\s*(?:\\(?:top|intercal)|\{\s*\\(?:top|intercal)\s*\}|\{\s*\\(?:text|mathsf)\s*\{\s*T\s*\}\s*\})", "^T"),
        (r"\^\s*\{\s*(\\[a-zA-Z]+)\s*\}", r"^\1 "),
        (r"\\Delta\s*(?=[A-Z]{3}(?![a-zA-Z]))", r"\\triangle "),
        (r"\\not\s*=", r"\\ne "),
        (r"\\not\s*\\in" + _END, r"\\notin "),
        (r"\\(?:cong|sim)(?=\s*-?\s*\.?\d)", r"\\approx "),
        (r"\\(?:text|mathord|mathpunct|mathbin)\s*\{\s*,\s*\}", "{,}"),
        (r"(?<=\d)\s*\\text\s*\{\s*to\s*\}\s*(?=\d)", ":"),
        (r"\\thinspace" + _END, r"\\,"),
        (r"\\negthinspace" + _END, r"\\!"),
        (rf"\\(?:{_FONTS}|boldsymbol|bm)\s+(?=[A-Za-z0-9](?![a-zA-Z]))", ""),
        (r"(?<=\d)\s*\\Omega" + _END, r"\\text{ohm}"),
        # Between vectors it is the cross product, whose factors must not change places.
        (r"(\\(?:vec|text|hat|bar)\s*\{\w{1,2}\})\s*\\times\s*(?=\\(?:vec|text|hat|bar)\s*\{)", r"\1\\cross "),
        (r"^([A-Z])\s*\\times\s*([A-Z])$", r"\1\\cross \2"),
        (rf"\\(?:times|ast){_END}", r"\\cdot"),
        (rf"\\(?:lor|vee){_END}|\\text\s*\{{\s*or\s*\}}", " or "),
        (rf"\\(?:land|wedge){_END}|\\text\s*\{{\s*and\s*\}}", " and "),
        (r"\\(?:bold(?:symbol)?|bm)\s*(?=\{)", ""),
        (r"\\\$", r"\\text{dollars}"),
        (r"\\text\s*\{\s*percent\s*\}", r"\\%"),
        (r"([+\-]\s*)\\text\s*\{\s*(?:const(?:ant)?\.?|C)\s*\}", r"\1C"),
    )
]
"""Rules about commands and the degree sign."""
SIGNS = [
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        ("", r"(?<=\d)(?:\{\\?,\}(?:\\!)*|,\{\}|(?:\\[,!;: ]|~)+|,(?:\\!)+)\s*(?=\d{3}(?!\d))", ""),
        ("\\!", r"\\!", ""),
        ("", r"(?<!\\)\\[,;:> ]|~", " "),
        ("\\", rf"(\\frac|\\binom)\s*({_BARE_ARGUMENT})\s*({_BARE_ARGUMENT})", r"\1{\2}{\3}"),
        ("\\", rf"(\\frac|\\binom)\s*({_BARE_ARGUMENT})\s*\{{", r"\1{\2}{"),
        ("\\", rf"(\\(?:frac|binom)\s*\{{[^{{}}]*\}})\s*({_BARE_ARGUMENT})", r"\1{\2}"),
        ("\\sqrt", rf"\\sqrt\s*(\[[^\[\]]*\])?\s*({_BARE_ARGUMENT})", r"\\sqrt\1{\2}"),
        ("\\mathbb", r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        ("\\in", r"(?<=\\in)\s*(?:\\text\{([RZNQ])\})", r"\\mathbb{\1}"),
        ("_", r"(?<=[01]) (?=[01]{4}(?: [01]{4})*\}?_\{?2(?!\d))", ""),
        (":", r"\{\s*:\s*\}", ":"),
        ("/d", r"(?<![a-zA-Z])d([a-z])/d([a-z])(?![a-zA-Z])", r"\\frac{d\1}{d\2}"),
        ("percent", r"(?<=[\d}]) ?percent$", r"\\%"),
        ("=", r"<=|=<", r"\\le "),
        ("=", r">=|=>", r"\\ge "),
        ("!=", r"(?<!\d)!=", r"\\ne "),
        ("**", r"\*\*", "^"),
        ("*", r"\*", r"\\cdot "),
        ("^", r"\^\s*\{\s*(\w)\s*\}(?!\w)", r"^\1"),
        ("_", r"_\s*\{\s*(\w)\s*\}(?!\w)", r"_\1"),
    )
]
"""Rules about everything else, each with a text without which it changes nothing."""
SPACES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)\s*,\s+(?=\d{3}(?!\d)[^()\[\]{}]*$)", ";"),
        (r"\s+", " "),
        (r" ?([^\w\s]) ?", r"\1"),
        (r"(\\[a-zA-Z]+) (?![a-zA-Z])", r"\1"),
    )
]
"""Rules that take spaces away; the last ones to apply."""
