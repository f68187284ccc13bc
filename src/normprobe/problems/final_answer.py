r"""The final answer in a text: its last `\boxed{…}`, a line `#### …`, what follows "the answer is", or its end."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from normprobe.problems.exact_number import NUMBER, read_quantity

_MINUS = str.maketrans(
    dict.fromkeys("−﹣－⁻", "-") | dict.fromkeys("\u00a0\u2007\u2009\u202f", " ") | {"⁄": "/", "∕": "/"}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_SIGNS = {
    "×": r"\times ",
    "÷": "/",
    "·": r"\cdot ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "√": r"\sqrt ",
    "∪": r"\cup ",
    "∩": r"\cap ",
}
_SIGNS |= {"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "≈": r"\approx ", "∅": r"\emptyset "}

_BOX = re.compile(r"\\f?boxed?\s*\{|\\fbox\s*\{")
_LINE = re.compile(r"^\s*#### *(.+?)\s*$", re.MULTILINE)
_MARK = re.compile(
    r"\banswers?\b(?:[^.\n:=]{0,80}?(?:\b(?:is|are|was|be|equals?)\b|[:=])(?:\s*[:=])?|\W{0,4}\n|(?<=^answer)\s+)[\s*_:`\"]*",
    re.IGNORECASE | re.MULTILINE,
)
_COPULAS = (re.compile(r"\b(?:is|are|was|were|equals?|be)\b\s*:?\s*", re.IGNORECASE), re.compile(r"[:=]\s*"))
_END = re.compile(r"[.!?](?=[\s*\"')]|$)|\n")
_BULLET = re.compile(r"(?m)^[ \t]*[-•][ \t]+(?=\S)")
_STEP = re.compile(r"(?m)^[ \t]*\d{1,2}[.)][ \t]+(?=\S)")

_LATEX = r"\\(?:[dtc]?frac|sqrt|pi)(?![a-zA-Z])(?:\[\d+\])?\s?(?:\{(?:[^{}]|\{[^{}]*\})*\}|\d)*"
_ATOM = rf"(?:\\?\$\s?|[€£¥₹]\s?)?(?:{NUMBER}(?:\s?\\?%|\s(?:thousand|[mbtr]+illion)s?\b)?"
_ATOM += rf"(?:\s\d+/\d+)?(?:{_LATEX})?|{_LATEX})(?:\^\{{[-+]?\d+\}})?"
_OPERATOR = r"\s*(?:(?<=\d)\*\*(?=\d)|[-+*/^]|\\times|\\cdot|\\div)\s*"
# What is bound to a letter is no number of its own: x2, cm^2, 5x.
_RUN = re.compile(
    rf"(?<![\w^.\\])(?<!\w-)(?:(?<![\d)])-|(?<== )- )?{_ATOM}(?:{_OPERATOR}\(?-?{_ATOM}\)?)*(?![xyznkabpq]\b)"
)
_BOUND = re.compile(r"(?:[+^/]|(?:(?<!\w)[A-Za-z]|\d|\))\s*-)\s*$")
_SPAN = re.compile(
    r"\$\$(.{1,500}?)\$\$|\\\[(.{1,500}?)\\\]|\\\((.{1,500}?)\\\)|(?<!\\)\$([^$\n]{1,300}?)(?<!\\)\$",
    re.DOTALL,
)
_PROSE = re.compile(r"(?<![\\{A-Za-z])[A-Za-z]{3,}")


@dataclass(frozen=True)
class FinalAnswer:
    """What a text gives as its answer.

    pieces: the whole texts that may be it, most explicit first. explicit: whether a box or a line `#### …` holds it, so
    that nothing else belongs to it. marked: whether it follows "the answer is" (or stands in a box).
    """

    pieces: tuple[str, ...]
    explicit: bool
    marked: bool

    @property
    def number(self) -> str | None:
        """What counts as its number; None without one.

        A whole piece if that is a number; else the first mathematics after "the answer is", or the last in the text.
        """
        if not self.pieces:
            return None
        whole = next((piece for piece in self.pieces[:3] if read_quantity(piece) is not None), None)
        if self.explicit or whole is not None:
            return whole or self.pieces[0]
        runs = _runs(self.pieces[-1 if self.marked else 0])
        if not runs:
            return None
        return runs[0] if self.marked else runs[-1]


def final_answer(text: str) -> FinalAnswer:
    """The final answer of a text, which `plain` has made plain before. The pieces are empty where there is no text."""
    text = _BULLET.sub("", text)
    if (box := last_box(text)) is not None:
        return FinalAnswer((box,), explicit=True, marked=True)
    if lines := _LINE.findall(text):
        return FinalAnswer((lines[-1],), explicit=True, marked=True)
    if marks := list(_MARK.finditer(text)):
        rest = text[marks[-1].end() :].strip()
        if rest:
            line = rest.splitlines()[0]
            sentence = _sentence(rest)
            return FinalAnswer((sentence, _clause(sentence), line), explicit=False, marked=True)
    text = text.strip()
    if not text:
        return FinalAnswer((), explicit=False, marked=False)
    line = text.splitlines()[-1].strip()
    last = [part for part in _sentences(text) if part.strip()][-1:]
    ends = [
        part[found[-1].end() :]
        for part in last
        for copula in _COPULAS
        if (found := list(copula.finditer(part)))
    ]
    spans = [content for _, content in _spans(text)][-1:]
    pieces = [text, line, *last, *ends, *map(_clause, ends), *spans]
    return FinalAnswer(tuple(filter(str.strip, pieces)), explicit=False, marked=False)


def answer_key(text: str) -> str:
    """What tells the final answer of a text from another one: its number, else its shortest piece without case, outer
    signs and white space; empty where there is none."""
    found = final_answer(plain(text))
    key = found.number or min(found.pieces, key=len, default="")
    return " ".join(key.casefold().split()).strip("*_`\"'.,;:!? ")


def plain(text: str) -> str:
    """The text with one sign for each minus, space and digit, and the signs of mathematics as LaTeX."""
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda raised: f"^{{{raised[0].translate(_RAISED)}}}", text)
    text = re.sub(r"(?<=\d)[\u00a0\u2007\u2009\u202f](?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text.translate(_MINUS))
    text = unicodedata.normalize("NFKC", text).translate(_MINUS)
    text = re.sub(r"(?<![\w)\]])[–—](?=[\d.])", "-", text)
    return "".join(_SIGNS.get(character, character) for character in text)


def last_box(text: str) -> str | None:
    r"""The content of the last closed `\boxed{…}` or `\fbox{…}`, with all braces that it holds; None without one."""
    openings = {found.end() - 1 for found in _BOX.finditer(text)}
    open_braces, last = list[int](), None
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        if brace[0] == "{":
            open_braces.append(brace.start())
        elif open_braces and (start := open_braces.pop()) in openings and (last is None or start > last[0]):
            last = (start, brace.start())
    return None if last is None else text[last[0] + 1 : last[1]]


def _runs(text: str) -> list[str]:
    """The pieces of mathematics in prose, in order; of a chain of equations only what follows its last sign."""
    if len(_STEP.findall(text)) > 1:
        text = _STEP.sub("", text)
    spans = _spans(text)
    runs, rest = list(spans), text
    if places := dict(spans):
        rest = _SPAN.sub(lambda span: "\0" * len(span[0]) if span.span() in places else span[0], text)
    for run in _RUN.finditer(rest):
        start, end = run.span()
        if not _BOUND.search(rest[max(start - 12, 0) : start]) and not re.match(
            r"\s*[+^]", rest[end : end + 9]
        ):
            pair = "," in run[0] and rest[start - 1 : start] == "(" and rest[end : end + 1] == ")"
            runs.append((run.span(), f"({run[0]})" if pair else run[0]))
    joined: list[tuple[tuple[int, int], str]] = []
    for place, content in sorted(runs):
        if joined:
            between = text[joined[-1][0][1] : place[0]]
            if re.fullmatch(r"\s*(?:=|\\approx)\s*", between):
                joined[-1] = ((joined[-1][0][0], place[1]), content)
                continue
            if re.fullmatch(r"\s*,?\s*(?:or|and)\s*", between):
                joined[-1] = ((joined[-1][0][0], place[1]), f"{joined[-1][1]},{content}")
                continue
        joined.append((place, content))
    return [content for _, content in joined]


def _spans(text: str) -> list[tuple[tuple[int, int], str]]:
    """Where mathematics stands between dollars or brackets, and what it is. Two prices are no such pair."""
    found = []
    for span in _SPAN.finditer(text):
        content = next(filter(None, span.groups()))
        if not _PROSE.search(re.sub(r"\\(?:text|mathrm|mbox|textbf)\s*\{[^{}]*\}", "", content)):
            found.append((span.span(), content))
    return found


def _sentences(text: str) -> list[str]:
    return _END.split(text)


def _sentence(text: str) -> str:
    """The first sentence of a text."""
    return _sentences(text)[0].strip() or text


def _clause(sentence: str) -> str:
    """What stands before the first comma, bracket or reason; of what begins in bold, the bold part."""
    if bold := re.match(r"\s*(\*\*|__|`)(.+?)\1", sentence):
        return bold[2]
    return re.split(r",\s|\s\(|;|\s(?:because|since|as|so|which)\s", sentence, maxsplit=1)[0]
