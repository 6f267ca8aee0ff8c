"""The one exception a user sees: a line that says what was wrong and what is allowed."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or an unusable machine; the command prints it on one line and exits with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
