"""Beyond which numbers is there nothing to plan?"""

from __future__ import annotations

MOST_ELEMENTS = 2**31
"""Libraries count the elements of a tensor in 32 bits, or leave their quick ways for more."""

NEVER = 2**60
"""More bytes than there will ever be room for, or than will ever be moved."""
