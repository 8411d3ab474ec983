"""Which route shall a device's convolutions take, and what does that allocate?

A device is asked once what each route does for each class of convolutions (`running.probe`); a
`Table` is what it said. Of the routes of a class

1. one that is wrong is never taken,
2. then the one that allocates the least, in eighths of what is read and written,
3. then the quickest.

Where a class has no route that is right, or something else that a run is made of is wrong, the run
belongs on the processor. Nothing is measured here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import ceil

from .workspaces import CONTIGUOUS, ConvClass, Workspace, Workspaces, unrolled


class Route(Enum):
    """How a convolution is handed over.

    `CHANNELS_LAST`: as tensors lie. `CONTIGUOUS`: made so, and turned back. `PICTURES`: in two
    dimensions, its taps in time side by side in the channels.
    """

    CHANNELS_LAST = "channels last"
    CONTIGUOUS = "contiguous"
    PICTURES = "as pictures"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one route did for one class.

    right: whether its values are those of the processor in float32. error: how far they are from
        them at most, as a share of their range; None where it failed or gave what is no number.
    share: bytes that it allocated for each byte read and written. workspace: the same as a line.
    Both None where the device does not tell.
    seconds: it took, for so many floating point operations.
    """

    route: Route
    right: bool
    error: float | None
    share: float | None
    workspace: Workspace | None
    seconds: float
    operations: int = 0


def best(findings: Collection[Finding]) -> Finding | None:
    """The finding to go by; None where no route is right."""
    right = (finding for finding in findings if finding.right)
    return min(right, key=lambda one: (ceil(8 * (one.share or 0.0)), one.seconds), default=None)


@dataclass(frozen=True, slots=True)
class Table:
    """What is known of a device in one dtype.

    title: its name. found: by class, what its routes did. wrong: what else it computes wrongly, in
    words. raised: allowances that proved too small in a run, and what they are now.
    copied: bytes a second between host memory and it; 0: nobody knows.
    """

    title: str
    found: Mapping[ConvClass, tuple[Finding, ...]] = field(
        default_factory=dict[ConvClass, tuple[Finding, ...]]
    )
    wrong: tuple[str, ...] = ()
    raised: Mapping[ConvClass, Workspace] = field(default_factory=dict[ConvClass, Workspace])
    copied: float = 0.0

    def route(self, kind: ConvClass) -> Route | None:
        """The route of a class; None where none is right, or it was never tried."""
        finding = best(self.found.get(kind, ()))
        return finding.route if finding else None

    @property
    def routes(self) -> dict[ConvClass, Route]:
        """The routes of all classes that have one."""
        found = ((kind, self.route(kind)) for kind in self.found)
        return {kind: route for kind, route in found if route}

    @property
    def workspaces(self) -> Workspaces:
        """What the chosen routes allocate."""
        chosen = {kind: best(findings) for kind, findings in self.found.items()}
        known = {kind: one.workspace for kind, one in chosen.items() if one and one.workspace}
        return Workspaces(known={**known, **self.raised})

    def impossible(self, kinds: Collection[ConvClass]) -> str:
        """Why a program with these classes cannot run there, in words; nothing where it can."""
        bad = [kind for kind in kinds if kind in self.found and self.route(kind) is None]
        said = [*self.wrong, *sorted(map(words_of, bad))[:_MOST_NAMED]]
        more = len(bad) - _MOST_NAMED
        return ", ".join(said) + (f" and {more} more" if more > 0 else "")

    def with_raised(self, kind: ConvClass, missing_bytes: int, data_bytes: int) -> Table:
        """The table after a convolution of a class took `missing_bytes` more than it was allowed.

        data_bytes: that it read and wrote. No more is allowed than any library is known to take.
        """
        before = self.workspaces.known.get(kind, self.workspaces.default)
        more = missing_bytes / max(data_bytes, 1)
        most = unrolled(kind).per_input + CONTIGUOUS.per_input
        after = replace(
            before,
            per_input=max(min(before.per_input + more, most), before.per_input),
            per_output=max(min(before.per_output + more, most), before.per_output),
        )
        return replace(self, raised={**self.raised, kind: after})


_MOST_NAMED = 3


def words_of(kind: ConvClass) -> str:
    """A class for a person."""
    taps = "x".join(map(str, kind.taps))
    return f"convolutions {taps} of {kind.in_channels} to {kind.out_channels} channels"


@dataclass(frozen=True, slots=True)
class Libraries:
    """What a plan says of the device that it is for.

    device: its name. refused: another device that cannot run the program, and why, in words.
    routes: how many classes of the program take each route; none where the device was not probed.
    allowance_bytes: the most that its libraries alone are allowed beside a tile.
    raised: allowances that had been raised when the plan was made.
    """

    device: str
    routes: Mapping[Route, int] = field(default_factory=dict[Route, int])
    allowance_bytes: int = 0
    refused: str = ""
    raised: Mapping[ConvClass, Workspace] = field(default_factory=dict[ConvClass, Workspace])

    @property
    def route_words(self) -> str:
        """Its routes for a person."""
        if not self.routes:
            return "not probed yet, so careful figures"
        most, *others = sorted(self.routes.items(), key=lambda item: -item[1])
        rest = "".join(f", {count} {route.value}" for route, count in others)
        return f"convolutions {most[0].value}{rest}"

    def as_dict(self) -> dict[str, object]:
        """The same as numbers and names that JSON can hold."""
        return {
            "device": self.device,
            "refused": self.refused,
            "routes": {route.value: count for route, count in self.routes.items()},
            "allowance_bytes": self.allowance_bytes,
        }


def counted_routes(table: Table, kinds: Collection[ConvClass]) -> dict[Route, int]:
    """How many of `kinds` take each route."""
    return dict(Counter(route for kind in kinds if (route := table.route(kind))))
