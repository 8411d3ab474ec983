"""What may the web client ask of the server, and how is it kept from waiting?

One route, `POST /exact_video_vae/plan`: a JSON object of bounded numbers and enumerations, no
path, answered by what a run would take.

1. Check every name, type and bound: anything else is refused with 400 and a sentence.
2. Plan in one thread beside the server. What is ready within `PATIENCE` seconds is answered with
   200, the rest with 202: the same question a moment later finds its answer.
3. Answers are kept for a few seconds, and only so many of them: free memory changes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import host
from .missing import lacking
from .widgets import FIT_WIDGETS, REFERENCE, RUN_WIDGETS, Widget, refusal

PATH, NAME = "/exact_video_vae", "plan"
PATIENCE = 0.03
KEPT_SECONDS = 5.0
KEPT_ANSWERS = 64
WAITING = 2
"""Plans that may wait for the one in the making; whoever asks for more asks again."""

WIDGETS: dict[str, Widget] = {
    "operation": (["encode", "decode"], {}),
    "network": (
        [
            "full",
            "tiny",
            "wan",
            "tiny_wan",
            "wan22",
            "ltx",
            "hunyuan",
            "hunyuan15",
            "seedvr2",
            "mochi",
        ],
        {"default": "full"},
    ),
    "dtype": (["auto", "bf16", "fp16", "fp32"], {"default": "auto"}),
    "width": ("INT", {"min": 1, "max": 16384}),
    "height": ("INT", {"min": 1, "max": 16384}),
    "frames": ("INT", {"min": 1, "max": 100_000}),
    "reference": REFERENCE,
    "ranks": ("INT", {"default": 1, "min": 1, "max": 64}),
    **RUN_WIDGETS,
    **FIT_WIDGETS,
}
"""All that a question may hold; what has a default may be left out."""

_log = logging.getLogger(__name__)


class Refused(Exception):
    """A question that is none; the sentence says why."""


def checked(body: bytes) -> dict[str, Any]:
    """The question in a request's body, complete with defaults; raises `Refused`."""
    if len(body) > host.LARGEST_BODY:
        raise Refused(f"A question is at most {host.LARGEST_BODY} bytes of JSON.")
    try:
        question = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("A question is a JSON object of widget names and values.") from error
    if not isinstance(question, dict):
        raise Refused("A question is a JSON object of widget names and values.")
    if strange := sorted(set(question) - set(WIDGETS)):
        raise Refused(f"There is no widget called {strange[0][:40]!r}.")
    found = {name: _value(name, question) for name in WIDGETS}
    if (reason := refusal(found)) is not None:
        raise Refused(reason)
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _value(name: str, question: dict[str, Any]) -> Any:
    kind, options = WIDGETS[name]
    usual = options.get("default", kind[0] if name in FIT_WIDGETS else None)
    value = question.get(name, usual)
    if isinstance(kind, list):
        fits = isinstance(value, str) and value in kind
        rule = f"one of {', '.join(kind)}"
    else:
        number = int if kind == "INT" else (int, float)
        fits = isinstance(value, number) and not isinstance(value, bool)
        fits = fits and options["min"] <= value <= options["max"]
        whole = "a whole number" if kind == "INT" else "a number"
        rule = f"{whole} from {options['min']} to {options['max']}"
    if not fits:
        raise Refused(f"{name} must be {rule}; got {str(value)[:40]!r}.")
    return value


class Answers:
    """Answers in the making and those of the last seconds, one thread for all of them."""

    def __init__(self) -> None:
        self._worker: ThreadPoolExecutor | None = None
        self._kept: OrderedDict[str, tuple[float, Future[dict[str, Any]]]] = OrderedDict()

    def future(self, question: dict[str, Any]) -> Future[dict[str, Any]] | None:
        """The answer to a checked question; None where too many others are waiting."""
        key, now = json.dumps(question, sort_keys=True), time.monotonic()
        for old, (asked, future) in list(self._kept.items()):
            if future.done() and now - asked > KEPT_SECONDS:
                del self._kept[old]
        if key in self._kept:
            return self._kept[key][1]
        if sum(not future.done() for _, future in self._kept.values()) > WAITING:
            return None
        self._kept[key] = (now, self._submit(question))
        while len(self._kept) > KEPT_ANSWERS:
            self._kept.popitem(last=False)
        return self._kept[key][1]

    def _submit(self, question: dict[str, Any]) -> Future[dict[str, Any]]:
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="exact-video-vae-plan")
        return self._worker.submit(_answer, question)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from .planning import answer_for

    return answer_for(question)


_answers = Answers()


async def answer(body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and content for a request's body."""
    try:
        future = _answers.future(checked(body))
    except Refused as reason:
        return 400, {"error": str(reason)}
    if future is None:
        return 202, {"pending": True}
    try:
        done = asyncio.shield(asyncio.wrap_future(future))
        return 200, await asyncio.wait_for(done, PATIENCE)
    except (TimeoutError, asyncio.TimeoutError):
        return 202, {"pending": True}
    except Exception as error:  # nothing that planning trips over takes the answer with it
        if (reason := lacking("The plan", error)) is not None:
            return 400, {"error": reason}
        _log.exception("a plan failed")
        return 400, {"error": "This cannot be planned; ComfyUI's log says why."}


def register() -> Path | None:
    """Let the host's server answer; nothing happens where there is none. Returns the folder of
    another copy of the pack that answers already.
    """
    return host.serve(PATH, NAME, answer)
