r"""Translates regular expressions of JSON Schemas to GBNF of JSON strings.

The rules that hold here:

* A pattern is supported as a whole or refused; the error names the place in it and what to write instead.
* Supported are the patterns that ECMA-262 (with its flag ``u``), Python and Rust read alike. Where they differ in the
  characters of a class, the texts are those that match for all of them: ``\w``, ``\d`` and ``\s`` are ASCII, their
  opposites are ASCII too, and ``.`` excludes every character that some reader takes for the end of a line.
* A pattern may match anywhere in the string, so other characters may come before and after it unless ``^`` and ``$``
  bind it.
* A character is written as itself, or with a backslash where JSON has a short escape for it. Control characters
  without a short escape are not written.
"""

from collections.abc import Iterable
from typing import Final

from attrs import define

from reenact.runtime.grammar.gbnf import ALL, MAX_REPEAT, Ranges, without

MAX_DEPTH: Final = 40
"""The deepest nesting of groups."""

_ASCII: Final = ((0x01, 0x7F),)
_LINE_ENDS: Final = ((0x0A, 0x0A), (0x0D, 0x0D), (0x85, 0x85), (0x2028, 0x2029))
_SETS: Final[dict[str, Ranges]] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((0x09, 0x0D), (0x20, 0x20)),
}
_SET_ESCAPES: Final = frozenset(rf"\{sign}" for sign in "dDwWsS")
_NOT_SPACE: Final = ((0x09, 0x0D), (0x1C, 0x20))
_SHORT: Final = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}
"""The characters that must be escaped in JSON and have a short escape."""
_NOT_ITSELF: Final = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F))
_CONTROLS: Final = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
_HEX: Final = {"x": 2, "u": 4}
_SIGNS: Final = "^$.*+?()[]{}|/\\-"
_SET_SIGNS: Final = ("&&", "--", "~~", "||")
_SHOWN: Final = 20


class PatternError(Exception):
    """A pattern is wrong, or not supported."""


def string_of(pattern: str, char: str) -> str:
    """Return GBNF for the text between the quotes of a JSON string that a pattern matches.

    Args:
        pattern: The pattern.
        char: The GBNF expression for any character.

    Raises:
        PatternError: It is not a pattern, or not supported.
    """
    reader = _Reader(pattern, char)
    found = reader.whole()
    if reader.at < len(pattern):
        raise reader.error("a ')' closes nothing; write \\)")
    return found


@define
class _Reader:
    """Reads a pattern."""

    pattern: str
    char: str
    at: int = 0
    depth: int = 0

    def whole(self) -> str:
        """Return all alternatives, each with the characters that may come before and after it."""
        found = []
        while True:
            before = "" if self._take("^") else f"{self.char}*"
            inner = self._sequence()
            behind = "" if self._take("$") else f"{self.char}*"
            found.append(" ".join(filter(None, (before, inner, behind))) or '""')
            if not self._take("|"):
                return f"({' | '.join(found)})"

    def _sequence(self) -> str:
        items = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            if self.pattern[self.at] == "$" and not self.depth and self.pattern[self.at + 1 : self.at + 2] in {"", "|"}:
                break
            items.append(self._counted(self._item()))
        return " ".join(items)

    def _item(self) -> str:
        sign = self.pattern[self.at]
        if sign in "^$":
            raise self.error(f"{sign} is supported only at an end of the pattern or of an outermost alternative")
        if sign in "*+?{":
            raise self.error(f"there is nothing to repeat; write \\{sign}")
        self.at += 1
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._written(self._class())
        if sign == ".":
            return self._written(without(ALL, _LINE_ENDS))
        if sign == "\\":
            return self._written(self._escape(in_class=False))
        return self._written(((ord(sign), ord(sign)),))

    def _group(self) -> str:
        if self._take("?") and not self._take(":"):
            if self.pattern.startswith(("P<", "<"), self.at) and not self.pattern.startswith(("<=", "<!"), self.at):
                raise self.error("named groups are written differently by different readers; write ( )")
            raise self.error("only the groups ( ) and (?: ) are supported")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"groups are nested more than {MAX_DEPTH} deep")
        found = [self._sequence()]
        while self._take("|"):
            found.append(self._sequence())
        if not self._take(")"):
            raise self.error("')' is missing")
        self.depth -= 1
        return f"({' | '.join(one or chr(34) * 2 for one in found)})"

    def _counted(self, item: str) -> str:
        """Return an item with its count, if it has one; a lazy count allows the same texts."""
        sign = self.pattern[self.at : self.at + 1]
        if sign not in {"*", "+", "?", "{"}:
            return item
        self.at += 1
        count = self._bounds() if sign == "{" else sign
        self._take("?")
        if self.pattern[self.at : self.at + 1] in {"*", "+", "?", "{"}:
            raise self.error("a count follows a count; write a group around the first")
        # Repeating an empty item gives nothing.
        return "" if item in {'""', '("")'} else f"{item}{count}"

    def _bounds(self) -> str:
        low = self._number()
        high: int | None = low
        if self._take(","):
            high = None if self.pattern.startswith("}", self.at) else self._number()
        if not self._take("}"):
            raise self.error("'}' is missing; write \\{ for the character")
        if high is not None and high < low:
            raise self.error(f"{{{low},{high}}} ends before it begins")
        return f"{{{low},{'' if high is None else high}}}"

    def _number(self) -> int:
        digits = ""
        while self.pattern[self.at : self.at + 1] in set("0123456789"):
            digits += self.pattern[self.at]
            self.at += 1
        if not digits:
            raise self.error("a number is missing; write {0,n} for at most n, and \\{ for the character")
        if len(digits) > len(str(MAX_REPEAT)) or int(digits) >= MAX_REPEAT:
            raise self.error(f"a count must stay below {MAX_REPEAT}")
        return int(digits)

    # ------------------------------------------------------------ characters

    def _class(self) -> Ranges:
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        escaped = set[str]()
        if self.pattern.startswith("]", self.at):
            raise self.error("a class of characters is empty; write \\] for the character")
        while not self._take("]"):
            if self.at >= len(self.pattern):
                raise self.error("] is missing; write \\[ for the character")
            if self.pattern.startswith("[", self.at) or self.pattern.startswith(_SET_SIGNS, self.at):
                raise self.error("different readers take this differently; write a backslash before it")
            escaped |= {self.pattern[self.at : self.at + 2]} & _SET_ESCAPES
            low = self._member()
            if self.pattern.startswith("-", self.at) and not self.pattern.startswith("-]", self.at):
                self.at += 1
                high = self._member() if self.at < len(self.pattern) else ()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                    raise self.error("a range goes from one character to another")
                if high[0][0] < low[0][0]:
                    raise self.error("a range ends before it begins")
                low = ((low[0][0], high[0][0]),)
            found += low
        if not negated:
            return without(ALL, without(ALL, found))
        return without(_ASCII if escaped else ALL, [*found, *(_NOT_SPACE if r"\s" in escaped else ())])

    def _member(self) -> Ranges:
        sign = self.pattern[self.at]
        self.at += 1
        return self._escape(in_class=True) if sign == "\\" else ((ord(sign), ord(sign)),)

    def _escape(self, *, in_class: bool) -> Ranges:
        sign = self.pattern[self.at : self.at + 1]
        self.at += 1
        if sign in _SETS:
            return _SETS[sign]
        if sign.lower() in _SETS and sign:
            return without(_ASCII, _NOT_SPACE if sign == "S" else _SETS[sign.lower()])
        if sign in _CONTROLS:
            code = _CONTROLS[sign]
        elif sign in _HEX:
            code = self._hex(_HEX[sign])
        elif sign and (sign in _SIGNS or (not sign.isalnum() and sign.isascii() and sign.isprintable())):
            if sign in "<>":
                raise self.error(f"\\{sign} is the end of a word to some readers; write {sign} without the backslash")
            code = ord(sign)
        elif sign in {"b", "B"} and not in_class:
            raise self.error("the end of a word is not supported; write the characters next to it")
        elif sign.isdigit():
            raise self.error("a reference to an earlier group is not supported; write its text out")
        else:
            raise self.error(f"\\{sign} is not supported; write the characters in brackets")
        return ((code, code),)

    def _hex(self, length: int) -> int:
        digits = self.pattern[self.at : self.at + length]
        self.at += length
        if len(digits) < length or not set(digits) <= set("0123456789abcdefABCDEF"):
            raise self.error(f"{length} hexadecimal digits are missing")
        code = int(digits, 16)
        if 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004  # the surrogates
            raise self.error(f"\\u{digits} is half a character to some readers; write the character itself")
        return code

    def _written(self, ranges: Ranges) -> str:
        """Return GBNF for one of these characters as JSON strings have it."""
        plain = without(without(ALL, without(ALL, ranges)), _NOT_ITSELF)
        short = "".join(sign for code, sign in _SHORT.items() if any(low <= code <= high for low, high in ranges))
        found = [_bracketed(plain)] if plain else []
        if short:
            signs = _bracketed(sorted((ord(sign), ord(sign)) for sign in short))
            found.append(f'"\\\\" {signs}')
        if not found:
            raise self.error("no character is left that JSON can write here")
        return found[0] if len(found) == 1 and plain else f"({' | '.join(found)})"

    def _take(self, text: str) -> bool:
        if not self.pattern.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def error(self, reason: str) -> PatternError:
        """Return an error that names its place."""
        rest = self.pattern[self.at : self.at + _SHOWN]
        return PatternError(f"{reason}, " + (f"at {rest!r}" if rest else "at its end"))


def _bracketed(ranges: Iterable[tuple[int, int]]) -> str:
    """Return characters as a class of GBNF."""
    signs = [_signed(low) if low == high else f"{_signed(low)}-{_signed(high)}" for low, high in ranges]
    return f"[{''.join(signs)}]"


def _signed(code: int) -> str:
    sign = chr(code)
    return sign if sign.isascii() and sign.isalnum() else f"\\U{code:08X}"
