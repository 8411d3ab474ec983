"""Which errors does `vae_core` raise, and what does each one promise?

Every error but `DeviceMemoryError`, `DiskError`, `ResultError` and `ParallelError` is raised before
the first kernel runs, and its sentence holds the rule, what came, where (a module path or a file),
and the remedy. Nothing has been written, and nothing stays allocated, when one of them reaches the
caller.
"""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """How many there are of a thing, for a sentence: `1 frame`, `2 frames`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


class VaeCoreError(Exception):
    """Base of every error that `vae_core` raises on purpose."""


class SettingsError(VaeCoreError):
    """A setting is outside its range or contradicts another one."""


class InputError(VaeCoreError):
    """A tensor does not fit the network: rank, channels, extent, dtype or values."""


class ResultError(InputError):
    """What a network gave is not finite: values went beyond what its dtype holds.

    Comes after the first kernel, with the chunk that holds them; nothing stays allocated.
    """


class LoadError(VaeCoreError):
    """A file is no VAE of a known family; the sentence says what it looks like instead."""


class LoweringError(VaeCoreError):
    """A module holds something that the engine cannot run exactly; the sentence names its path."""


class VideoError(VaeCoreError):
    """A video or latent file cannot be read or written."""


class DeviceMemoryError(VaeCoreError):
    """The device ran out of memory in the middle of a run, and nothing that was tried helped.

    It comes after the first kernel; nothing stays allocated, and nothing was lost.
    """


class DiskError(VaeCoreError):
    """The disk of a temporary file became full in the middle of a run, though it had room before.

    It may come after the first kernel; nothing stays allocated, and nothing was lost.
    """


class ParallelError(VaeCoreError):
    """Another rank has failed, or does not answer; the sentence says which of them, and why.

    It may come after the first kernel; nothing stays allocated.
    """


class BudgetError(VaeCoreError):
    """No plan fits the memory budget.

    projected_bytes: peak of the smallest plan that was considered.
    budget_bytes: what was allowed.
    smallest_bytes: the smallest budget that some plan fits.
    worst_path: module path of the step that needs the most.
    """

    def __init__(
        self,
        sentence: str,
        *,
        projected_bytes: int,
        budget_bytes: int,
        smallest_bytes: int,
        worst_path: str,
    ) -> None:
        super().__init__(sentence)
        self.projected_bytes = projected_bytes
        self.budget_bytes = budget_bytes
        self.smallest_bytes = smallest_bytes
        self.worst_path = worst_path
