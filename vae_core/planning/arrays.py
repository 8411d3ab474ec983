"""numpy for a search that needs it, brought in when the first of them runs.

Whoever imports the words of planning, and whoever plans without a budget, does not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[Any]
    """Whole numbers, or truth values."""
else:

    class _Later:
        """Stands for numpy, of which each name is looked up once."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(import_module("numpy"), name)
            setattr(self, name, found)
            return found

    np, Numbers = _Later(), Any

__all__ = ["Numbers", "Whole", "least", "most", "np"]

Whole = Any
"""A whole number, or an array of them: arithmetic that is the same for both."""


def most(one: Whole, other: Whole) -> Whole:
    """The greater of two, one by one where there are arrays."""
    return max(one, other) if type(one) is type(other) is int else np.maximum(one, other)


def least(one: Whole, other: Whole) -> Whole:
    """The smaller of two, one by one where there are arrays."""
    return min(one, other) if type(one) is type(other) is int else np.minimum(one, other)
