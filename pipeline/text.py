"""Names from outside, made fit to be shown and to be used as names of folders."""

import unicodedata

from pipeline.errors import InputError

MAX_NAME_BYTES = 120
"""Leaves room for suffixes beneath the 255 bytes that file systems allow."""

_KEPT = "\n\t"
_RESERVED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that do not print, or change how their neighbours print."""


def visible(text: str) -> str:
    """`text` with control and direction-changing characters written out (`\\x1b`).

    A file name may hold an escape sequence that repaints a terminal, or a mark that turns the
    reading direction of what follows.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _KEPT or not _hidden(c) else _written_out(c) for c in text)


def plain_name(name: str, what: str = "name") -> str:
    """`name` itself if it can serve as the name of one folder.

    Raises:
        InputError: empty, too long, a path, hidden, or with characters that do not print.
    """
    shown = visible(name)
    if not name or name.strip() != name:
        raise InputError(f"{what} '{shown}': expected a name without blanks at its ends")
    if any(_hidden(c) for c in name):
        raise InputError(f"{what} '{shown}' holds characters that do not print", hint="rename it")
    if "/" in name or "\\" in name or name.startswith("."):
        raise InputError(
            f"{what} '{shown}': expected a plain name, not a path or a hidden file",
            hint="letters, digits, '-' and '_' are always fine",
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InputError(f"{what} '{shown[:40]}…' is longer than {MAX_NAME_BYTES} bytes")
    return name


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in _RESERVED


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
