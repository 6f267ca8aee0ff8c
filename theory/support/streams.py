"""Standard output that never costs a result: readers that leave, full disks, terminals without Unicode."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

#: Plain spellings of what our tables and messages hold; other letters lose their accents.
_PLAIN = {
    "≤": "<=",
    "≥": ">=",
    "×": "x",
    "·": "*",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "→": "->",
    "∞": "inf",
    "μ": "mu",
    "µ": "mu",
    "η": "eta",
    "ρ": "rho",
    "∝": "~",
    "±": "+-",
    "²": "^2",
    "³": "^3",
    "√": "sqrt",
    "‖": "||",
    "✓": "v",
    "✗": "x",
    "━": "-",
    "•": "*",
}
_HANDLER = "local-sgd-rates.plain"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = ""
    for character in error.object[error.start : error.end]:
        if "\udc80" <= character <= "\udcff":
            # A byte of a file name that is no UTF-8.
            text += f"\\x{ord(character) - 0xDC00:02x}"
            continue
        spelled = _PLAIN.get(character) or unicodedata.normalize("NFKD", character)
        text += spelled if spelled.isascii() else spelled.encode("ascii", "ignore").decode() or "?"
    return text, error.end


codecs.register_error(_HANDLER, _plain)


class Forgiving:
    """A standard stream that drops what nobody takes any more.

    When its reader has gone (``| head``), the rest of the text is dropped; when its disk is full the
    same, and ``failure`` says so. Everything else is the stream's own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure = ""

    def write(self, text: str) -> int:
        """As the stream's; never fails."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def writelines(self, lines: list[str]) -> None:
        """As the stream's; never fails."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As the stream's; never fails."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.failure = error.strerror or str(error)
        # What the stream still holds, and what is written later, goes nowhere, the flush at exit too.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_streams() -> Iterator[list[Forgiving]]:
    """Inside, sys.stdout and sys.stderr are :class:`Forgiving`; yields the two.

    Characters that the terminal's encoding lacks are spelled plainly instead of raising.
    """
    before = sys.stdout, sys.stderr
    wrapped = []
    for stream in before:
        # A process started with a closed descriptor has None.
        found: TextIO = stream if stream is not None else open(os.devnull, "w")  # noqa: SIM115
        if isinstance(found, io.TextIOWrapper):
            found.reconfigure(errors=_HANDLER)
        wrapped.append(Forgiving(found))
    sys.stdout, sys.stderr = wrapped  # type: ignore[assignment]
    try:
        yield wrapped
    finally:
        for stream in wrapped:
            stream.flush()
        sys.stdout, sys.stderr = before
