"""One DAG file as DAGMan reads it: commands, words and quotes. Runs on the access point.

The rules are those of DAGMan 25's parser, which takes all that 23.9 took without quotes. Source:
`src/condor_utils/dag_parser.cpp` of 25.14, `src/condor_dagman/parse.cpp` of 23.9.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig

_BLANKS = " \t\r"
_QUOTES = "\"'"
NODE_KEYWORDS = ("JOB", "FINAL", "PROVISIONER", "SERVICE")
#: What may begin a command, with `_` for `-`.
_KEYWORDS = """
    JOB FINAL PROVISIONER SERVICE SUBDAG SPLICE INCLUDE SUBMIT_DESCRIPTION CATEGORY PARENT WEAK
    SCRIPT RETRY ABORT_DAG_ON VARS PRIORITY PRE_SKIP TOLERANCE DONE MAXJOBS CONFIG DOT
    NODE_STATUS_FILE JOBSTATE_LOG SAVE_POINT_FILE SET_JOB_ATTR ENV REJECT CONNECT PIN_IN PIN_OUT
"""
KEYWORDS = frozenset(_KEYWORDS.split())


@dataclass(frozen=True)
class Place:
    """A line of a DAG file, for messages."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


class BadDag(BadConfig):
    """DAGMan would not take the DAG, or htlease cannot work with it."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place


@dataclass(frozen=True)
class Command:
    """One command with its continuation lines."""

    #: Its first line.
    place: Place
    #: In capitals, with `_` for `-`.
    keyword: str
    #: What follows the keyword.
    rest: str
    #: The submit description that follows a `{` or `@=` of this command.
    inline: str | None = None

    def words(self) -> Words:
        """Return a reader for what follows the keyword."""
        return Words(self.place, self.rest)


class Words:
    """Takes words off the front of a command."""

    def __init__(self, place: Place, text: str) -> None:
        self._place = place
        self._text = text
        self._at = 0

    def next(self, keep_quotes: bool = True) -> str:
        """Return the next word, "" at the end. Blanks in quotes are part of a word."""
        word = ""
        quote = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if quote and char == "\\" and self._at + 1 < len(self._text):
                self._at += 1
                word += self._text[self._at]
            elif quote and char == quote:
                word += quote if keep_quotes else ""
                quote = ""
            elif quote:
                word += char
            elif char in _BLANKS:
                if word:
                    break
            elif char in _QUOTES:
                quote = char
                word += quote if keep_quotes else ""
            else:
                word += char
            self._at += 1
        if quote:
            raise BadDag(self._place, f"a quotation mark ({quote}) is never closed")
        return word

    def need(self, what: str, keep_quotes: bool = True) -> str:
        """Return the next word; raises BadDag when there is none."""
        word = self.next(keep_quotes)
        if not word:
            raise BadDag(self._place, f"{what} is missing")
        return word

    def need_number(self, what: str) -> int:
        """Return the next word as a number; raises BadDag."""
        word = self.need(what)
        try:
            return int(word)
        except ValueError:
            raise BadDag(self._place, f"{what} is {word!r}, which is no number") from None

    def remaining(self) -> str:
        """Return all that is left, as it stands."""
        rest, self._at = self._text[self._at :].strip(), len(self._text)
        return rest

    def take_if(self, *keywords: str) -> str:
        """Take the next word if it is one of `keywords` and return that, else ""."""
        before = self._at
        word = self.next().upper().replace("-", "_")
        if word in keywords:
            return word
        self._at = before
        return ""

    def next_pair(self) -> tuple[str, str] | None:
        """Return the next `name = "value"`, None at the end; raises BadDag."""
        rest = self._text[self._at :].lstrip(_BLANKS)
        if not rest:
            return None
        self._at = len(self._text) - len(rest)
        name, equals, value = rest.partition("=")
        name = name.strip(_BLANKS)
        if not equals:
            raise BadDag(self._place, f'{rest.split()[0]!r} is not followed by ="value"')
        if not name or any(char in name for char in _BLANKS + _QUOTES):
            raise BadDag(self._place, f"{name!r} before = is not the name of a variable")
        self._at = len(self._text) - len(value)
        word = self.need(f"the value of {name}")
        return name, word[1:-1] if word[0] in _QUOTES else word


def read_commands(path: Path, shown_as: Path) -> list[Command]:
    """Read all commands of a file; messages call it `shown_as`. Raises BadDag, OSError."""
    # Any byte may stand in a comment, and comes back as it was in names.
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return list(_commands(_Lines(text), shown_as))


class _Lines:
    """Physical lines, counted from 1, without comments, empty lines and outer blanks."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.number = 0

    def next(self) -> str | None:
        while self.number < len(self._lines):
            line = self._lines[self.number].strip()
            self.number += 1
            if line and not line.startswith(("#", "//")):
                return line
        return None


def _commands(lines: _Lines, shown_as: Path) -> Iterator[Command]:
    while (line := lines.next()) is not None:
        place = Place(shown_as, lines.number)
        while line.endswith("\\"):
            more = lines.next()
            if more is None:
                raise BadDag(place, "ends with \\, but no line follows")
            line = f"{line[:-1]} {more}"
        keyword, _, rest = line.replace("\t", " ").partition(" ")
        rest = line[len(keyword) :]
        keyword = keyword.upper().replace("-", "_")
        if keyword not in KEYWORDS:
            raise BadDag(place, f"{line.split()[0]!r} is not a command of DAGMan")
        inline = None
        if keyword in (*NODE_KEYWORDS, "SUBMIT_DESCRIPTION"):
            words = Words(place, rest)
            words.next()
            end = _end_of_description(words.next(keep_quotes=False))
            if end is not None:
                inline, after = _inline_description(lines, end, place)
                # Options such as NOOP follow the description's end.
                rest = f"{Words(place, rest).next()} INLINE {after}"
        yield Command(place, keyword, rest, inline)


def _end_of_description(word: str) -> str | None:
    """Return the word that ends an inline description which begins with `word`."""
    if word.startswith("{"):
        return "}"
    return "@" + word[2:] if word.startswith("@=") and len(word) > 2 else None


def _inline_description(lines: _Lines, end: str, place: Place) -> tuple[str, str]:
    description = ""
    while (line := lines.next()) is not None:
        if line == end or line.startswith(end + " "):
            return description, line[len(end) :]
        description += line + "\n"
    raise BadDag(place, f"the submit description that begins here has no end ({end})")
