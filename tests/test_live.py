"""Does a run tell the panel what it does: share, memory and pictures, bounded and not too often?"""

from __future__ import annotations

import base64
import gc
import io
import mmap
from itertools import pairwise
from typing import Any

import pytest
import torch
from pack import part, run
from PIL import Image

live, meter, host = part("nodes.bridge.live"), part("nodes.bridge.meter"), part("nodes.bridge.host")

MIB = 2**20
LONGEST_PICTURE = 2**17  # characters; web/panel/live.js takes no more


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is sent to the client."""
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(host, "send", lambda node, event: events.append({"node": node, **event}))
    return events


def shown(event: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(event["picture"])))


def pictures(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if "picture" in event]


@pytest.mark.parametrize("size", [(8, 8), (2160, 3840), (16, 5000), (720, 480)], ids=str)
def test_a_picture_is_small_whatever_the_frame(size: tuple[int, int]):
    noise = torch.rand(*size, 3)
    text = live.picture(noise)
    with shown({"picture": text}) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) <= live.PICTURE_PX
    assert len(text) <= LONGEST_PICTURE / 2


def test_a_round_trip_tells_of_work_memory_and_pictures(told: list[dict[str, Any]]):
    vae = run("ExactVAELoader")[0]
    clip = torch.rand(17, 48, 64, 3)
    latent, _ = run("ExactVAEEncodeTiled", images=clip, vae=vae, unique_id="4")
    run("ExactVAEDecodeFramewise", samples=latent, vae=vae, unique_id="3:7")
    for node, job in (("4", "encode"), ("3:7", "decode")):
        events = [event for event in told if event["node"] == node]
        assert {event["job"] for event in events} == {job}
        assert [events[0]["state"], events[-1]["state"]] == ["begin", "end"]
        assert {event["memory"] for event in events} == {"process"}
        assert events[-1]["used_peak_bytes"] >= 0
        shares = [event["share"] for event in events if event["state"] == "run"]
        assert shares == sorted(shares)
        # beginning, end, and of events and pictures one each before any time has gone by
        assert len(events) <= 4 + events[-1]["seconds"] * (
            1 / live.EVENT_SECONDS + 1 / live.PICTURE_SECONDS
        )
        times = [event["seconds"] for event in pictures(events)[:-1]]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap >= live.PICTURE_SECONDS - 0.02 for gap in gaps)
        with shown(pictures(events)[-1]) as picture:
            assert picture.size == (64, 48)


def test_the_last_picture_is_the_last_frame(told: list[dict[str, Any]]):
    watch = live.Watch("decode", "7")
    for value in (0.0, 0.25, 1.0):
        watch.show(torch.full((16, 16, 3), value))
    watch.end()
    levels = []
    for event in pictures(told):
        with shown(event) as picture:
            levels.append(picture.getpixel((8, 8))[0])
    assert levels == [0, 255]


def test_a_run_without_a_panel_tells_and_measures_nothing(told, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "MemoryMeter", None)
    monkeypatch.setattr(live, "picture", None)
    vae = run("ExactVAELoader")[0]
    run("ExactVAEEncodeTiled", images=torch.rand(5, 16, 16, 3), vae=vae)
    assert {event["node"] for event in told} == {None}


def test_memory_is_what_the_process_has_grown_by():
    gc.collect()  # or what earlier tests left goes while this one counts
    counted = meter.MemoryMeter(torch.device("cpu"))
    # Of the system, for an allocator may have kept as much of what earlier tests gave back.
    held = mmap.mmap(-1, 64 * MIB)
    for _ in range(64):
        held.write(b"x" * MIB)
    assert counted.kind == "process"
    assert counted.used_bytes() > 60 * MIB
    held.close()
    assert counted.used_bytes() < 16 * MIB
    assert 60 * MIB < counted.peak_bytes() < 80 * MIB


def test_memory_on_an_accelerator_is_what_torch_holds_there(monkeypatch: pytest.MonkeyPatch):
    held = [500]
    monkeypatch.setattr(meter, "_allocator", lambda device: lambda device: held[0])
    counted = meter.MemoryMeter(torch.device("meta"))
    held[0] = 700
    assert (counted.kind, counted.used_bytes()) == ("device", 200)
    held[0] = 400
    assert (counted.used_bytes(), counted.peak_bytes()) == (0, 200)


def test_a_device_that_does_not_tell_is_not_measured():
    counted = meter.MemoryMeter(torch.device("meta"))
    assert (counted.kind, counted.used_bytes(), counted.peak_bytes()) == ("", 0, 0)
