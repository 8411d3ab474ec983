"""What does a person see of a run while it goes on?

1. After every tile the host may interrupt, and its progress bar moves.
2. Ten times a second at most, the node's panel hears how far the run is and what memory it uses.
3. Twice a second at most, the panel gets the newest picture, at most `PICTURE_PX` wide and high.

All of it goes to the client as events; nothing is kept, nor stored in a workflow.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...vae_core import Progress
from ...vae_core.planning.plan import Plan
from . import host
from .meter import MemoryMeter

PICTURE_PX = 192
EVENT_SECONDS = 0.1
PICTURE_SECONDS = 0.5
_STEPS = 10_000
"""Of a progress bar: operations are too many for it."""


class Watch:
    """One run as the host and a person see it: progress, memory, pictures, interruption.

    name: "encode" or "decode". node_id: whose progress bar it is; None for the node that runs,
    which has no panel of ours. workflow: what the client sent with the prompt as `extra_pnginfo`.
    """

    def __init__(self, name: str, node_id: str | None = None, workflow: Any = None) -> None:
        self._name, self._node_id = name, node_id
        self._workflow = _id_of(workflow)
        self._bar = host.ProgressBar(_STEPS, node_id)
        self._done, self._started = 0, time.monotonic()
        self._told = self._pictured = 0.0
        self._peak_bytes = 0
        self._meter: MemoryMeter | None = None
        self._untold: Tensor | None = None  # a picture that came too soon after another

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def begin(self, plan: Plan, vae: Any) -> None:
        """Tell what is going to be run, and measure memory from here on."""
        self._peak_bytes = plan.peak_bytes
        if self._node_id is not None:
            self._meter = MemoryMeter(torch.device(vae.device))
        self._tell({"state": "begin", "plan": summary(plan)})

    def __call__(self, progress: Progress) -> None:
        """After every tile; raises the host's exception where a person has asked to stop."""
        host.stop_if_interrupted()
        total = progress.total_operations  # 0 where a stream's length is not known
        share = progress.done_operations / total if total else 0.0
        self._done = max(self._done, min(int(share * _STEPS), _STEPS))
        self._bar.update(self._done, _STEPS)
        if time.monotonic() - self._told >= EVENT_SECONDS:
            self._told = time.monotonic()
            self._tell(
                {
                    "state": "run",
                    "chunk": progress.chunk_index,
                    "chunks": progress.chunks,
                    "step": progress.path,
                    **self._so_far(),
                }
            )

    def show(self, frame: Tensor) -> None:
        """Show the newest finished frame [h, w, 3] in [0, 1], in the host's preview too."""
        self._bar.update(self._done, _STEPS, frame)
        self.glimpse(frame)

    def glimpse(self, frame: Tensor) -> None:
        """Show a frame [h, w, 3] in [0, 1] in the node's panel alone."""
        self._untold = frame
        if time.monotonic() - self._pictured >= PICTURE_SECONDS:
            self._pictured = time.monotonic()
            self._tell({"state": "run", **self._so_far(), **self._picture()})

    def end(self, plan: Plan | None = None) -> None:
        """The run is finished; plan: of what was run, where more is known of it than at first."""
        self._bar.update(_STEPS, _STEPS)
        used = {} if self._meter is None else {"used_peak_bytes": self._meter.peak_bytes()}
        known = {} if plan is None else {"plan": summary(plan)}
        self._tell({"state": "end", **known, **used, **self._picture()})

    def _so_far(self) -> dict[str, Any]:
        used = {} if self._meter is None else {"used_bytes": self._meter.used_bytes()}
        return {"share": self._done / _STEPS, **used}

    def _picture(self) -> dict[str, Any]:
        frame, self._untold = self._untold, None
        return {} if frame is None or self._node_id is None else {"picture": picture(frame)}

    def _tell(self, event: dict[str, Any]) -> None:
        common = {
            "job": self._name,
            "workflow": self._workflow,
            "seconds": round(self.seconds, 2),
            "peak_bytes": self._peak_bytes,
            "memory": "" if self._meter is None else self._meter.kind,
        }
        host.send(self._node_id, {**common, **event})


def _id_of(extra_pnginfo: Any) -> str:
    """The id of the workflow that a client queued, so that it shows the run in no other; "" where
    it has none.
    """
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, Mapping) else None
    found = workflow.get("id") if isinstance(workflow, Mapping) else None
    return found if isinstance(found, str) else ""


def summary(plan: Plan) -> dict[str, Any]:
    """What the client draws of a plan; numbers and names only."""
    numbers = plan.as_dict()
    numbers.pop("steps_by_path")
    return {**numbers, "sample": list(_sample(plan)), "tile_px": list(plan.tile_px())}


def _sample(plan: Plan) -> tuple[int, int, int]:
    """Sample frames, height and width in pixels of the clip that a plan is for."""
    program, source = plan.job.program, plan.job.source
    if program.encodes:
        return source.t, source.h, source.w
    ratios = program.ratios
    return ratios.sample_frames(source.t), ratios.px * source.h, ratios.px * source.w


def picture(frame: Tensor) -> str:
    """A frame [h, w, 3] in [0, 1] as a small JPEG in base64, some 20 KB at most."""
    step = max(max(frame.shape[:2]) // (2 * PICTURE_PX), 1)
    small = host.picture(frame[::step, ::step])
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return base64.b64encode(written.getvalue()).decode("ascii")
