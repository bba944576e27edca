"""Arguments looked at before any work: what is refused is named, with its value and what it must be."""

import operator
from typing import Any


def at_least(least: int, remedy: str = "", **values: Any) -> None:
    """Raise ValueError unless every value is a whole number of at least `least`.

    Args:
        remedy: how the error ends.
        values: the arguments by their names.

    >>> at_least(1, batches=8, batch_size=0)
    Traceback (most recent call last):
    ValueError: batch_size=0: must be at least 1
    """
    for name, value in values.items():
        try:
            whole = not isinstance(value, bool) and operator.index(value) == value
        except TypeError:
            whole = False
        if not whole:
            raise ValueError(f"{name}={value!r}: must be a whole number, at least {least}{remedy}")
        if value < least:
            raise ValueError(f"{name}={value!r}: must be at least {least}{remedy}")


def share(**values: Any) -> None:
    """Raise ValueError unless every value is a number from 0 to 1.

    >>> share(momentum=1.5)
    Traceback (most recent call last):
    ValueError: momentum=1.5: must be a number from 0 to 1
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # nan is none either
            raise ValueError(f"{name}={value!r}: must be a number from 0 to 1")
