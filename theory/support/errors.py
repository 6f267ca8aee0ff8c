"""The one exception that is a user's mistake: a line that says what was wrong and what is allowed."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input or an unusable machine; a command prints it on one line and exits with 2.

    Anything else that a command raises is a bug and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
