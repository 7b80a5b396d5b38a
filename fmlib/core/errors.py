"""The error that users see."""

from __future__ import annotations


class FmlibError(Exception):
    """An error that the user can fix: the message says what is wrong and how to fix it.

    Example:
        >>> fmlib.MaskSpec(penalty=-1)
        Traceback (most recent call last):
        fmlib.core.errors.FmlibError: penalty must be >= 0 and lr > 0
    """

    def _render_traceback_(self) -> list[str]:
        """One line in notebooks, as on the command line."""
        return [f"fmlib: {self}"]


def require(condition: bool, message: str) -> None:
    """Raise `FmlibError(message)` unless `condition` holds."""
    if not condition:
        raise FmlibError(message)
