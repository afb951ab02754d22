"""The one exception for a mistake that its user can mend."""

from __future__ import annotations


class SlamError(Exception):
    """Says what was expected, what was found and what to do, with the key, file or row.

    The command line prints the message without a traceback and exits with `code`.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
