"""What a probe found is kept where it holds: is it read again, and made anew when a fact changes?
And is no run ever stopped by a file?
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from networks import NARROW, random_latents, random_module
from played_card import Library, PlayedCard, playing, route_of

from vae_core import Settings, from_module
from vae_core.planning.classes import classes_of
from vae_core.planning.routes import Route
from vae_core.running import cards, machines, probe, probe_file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Small probes of a few classes of each program, kept in a folder of the test's own."""
    monkeypatch.setattr(probe, "SIZES_BYTES", (2**12, 2**13))
    monkeypatch.setattr(
        machines, "classes_of", lambda program: frozenset(sorted(classes_of(program), key=repr)[:2])
    )
    probe_file.keep_in(tmp_path / "probes")
    probe_file._Kept.warned = False
    yield tmp_path / "probes"
    probe_file.keep_in(None)


def decoded(vae) -> torch.Tensor:
    return vae.decode(random_latents(3, 3, 4), Settings(tile_px=16))


def probes_of(card: PlayedCard, vae) -> int:
    """How many convolutions a probe for a plan takes; none where the file has all of them."""
    card.library.calls.clear()
    with playing(card):
        vae.plan_decode((1, 4, 3, 3, 4), probing=True)
    return len(card.library.calls)


def test_a_probe_is_made_once_and_anew_where_a_fact_changes(folder) -> None:
    vae, card = from_module(random_module()), PlayedCard(Library())
    assert probes_of(card, vae)
    assert [path.name for path in folder.iterdir()] == ["probe-played-card-torch-float32.json"]
    assert not probes_of(card, vae)
    card.driver = "2.0"
    assert probes_of(card, vae)
    assert not probes_of(card, vae)
    assert len(list(folder.iterdir())) == 1


def test_another_dtype_and_another_device_have_files_of_their_own(folder) -> None:
    card = PlayedCard(Library())
    for dtype in (torch.float32, torch.bfloat16):
        assert probes_of(card, from_module(random_module(dtype)))
    assert probes_of(PlayedCard(Library(), name="Another Card"), from_module(random_module()))
    assert len(list(folder.iterdir())) == 3
    assert not probes_of(card, from_module(random_module()))


def test_what_another_network_needs_is_added(folder) -> None:
    card = PlayedCard(Library())
    assert probes_of(card, from_module(random_module()))
    card.library.calls.clear()
    wan = from_module(NARROW["wan"](torch.float32))
    with playing(card):
        wan.plan_decode((1, 16, 3, 3, 4), probing=True)
    assert card.library.calls
    assert not probes_of(card, from_module(random_module()))


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "vae_core"]


def spoilt(content: dict, *keys, value) -> bytes:
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(content).encode()


DAMAGED = {
    "empty": lambda content: b"",
    "cut off": lambda content: json.dumps(content).encode()[:-40],
    "no JSON": lambda content: b"\x00\xff" * 100,
    "a list": lambda content: b"[1, 2]",
    "deeply nested": lambda content: b"[" * 100_000,
    "another format": lambda content: spoilt(content, "format", value=99),
    "no classes": lambda content: spoilt(content, "classes", value=None),
    "a route that there is not": lambda content: spoilt(
        content, "classes", 0, "routes", 0, "route", value="by pigeon"
    ),
    "no number": lambda content: spoilt(
        content, "classes", 0, "routes", 0, "workspace", "per_input", value=float("nan")
    ),
    "less than nothing": lambda content: spoilt(
        content, "classes", 0, "routes", 0, "workspace", "base_bytes", value=-1
    ),
    "taps of four": lambda content: spoilt(content, "classes", 0, "taps", value=[3, 3, 3, 3]),
    "right in words": lambda content: spoilt(
        content, "classes", 0, "routes", 0, "right", value="yes"
    ),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_file_that_is_not_whole_is_made_anew_with_one_warning(how, folder, caplog) -> None:
    vae, card = from_module(random_module()), PlayedCard(Library())
    assert probes_of(card, vae)
    (path,) = folder.iterdir()
    path.write_bytes(DAMAGED[how](json.loads(path.read_text())))
    with caplog.at_level("WARNING", "vae_core"):
        assert probes_of(card, vae)
        assert not probes_of(card, vae)
    assert len(warnings_of(caplog)) <= 1


@pytest.mark.parametrize("place", ["a file", "below a file", "a folder in its place"])
def test_where_nothing_can_be_kept_the_run_goes_on_with_one_warning(
    place, tmp_path, caplog
) -> None:
    blocked = tmp_path / "blocked"
    if place == "a folder in its place":
        (blocked / "probe-played-card-torch-float32.json").mkdir(parents=True)
    else:
        blocked.write_text("something else")
    probe_file.keep_in(blocked / "deeper" if place == "below a file" else blocked)
    vae, expected = from_module(random_module()), decoded(from_module(random_module()))
    with caplog.at_level("WARNING", "vae_core"):
        for _ in range(2):
            with playing(PlayedCard(Library())):
                assert torch.allclose(decoded(vae), expected, atol=1e-5)
    assert len(warnings_of(caplog)) == 1
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.skipif(os.name == "nt", reason="folders are closed otherwise there")
def test_a_folder_that_may_not_be_written_stops_nothing(folder, monkeypatch, caplog) -> None:
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(probe_file.tempfile, "mkstemp", refused)
    vae = from_module(random_module())
    with caplog.at_level("WARNING", "vae_core"), playing(PlayedCard(Library())):
        decoded(vae)
        assert "channels last" in vae.plan_decode((1, 4, 3, 3, 4)).describe()
    assert len(warnings_of(caplog)) == 1
    assert "Permission denied" in caplog.text


def test_a_user_without_a_home_has_no_file_and_a_run_goes_on(monkeypatch) -> None:
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    probe_file.keep_in(None)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(probe_file.Path, "home", homeless)
    assert probe_file.path_for({"device": "x", "dtype": "y"}) is None
    with playing(PlayedCard(Library())):
        decoded(from_module(random_module()))


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/exact_video_vae"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/h/.cache/exact_video_vae"),
        ("linux", {}, "/h/.cache/exact_video_vae"),
        ("darwin", {"XDG_CACHE_HOME": "/c"}, "/h/Library/Caches/exact_video_vae"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/exact_video_vae"),
        ("win32", {}, "/h/AppData/Local/exact_video_vae"),
    ],
)
def test_without_a_host_the_users_cache_is_where_the_system_has_it(
    platform, variables, folder, monkeypatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(probe_file.sys, "platform", platform)
    monkeypatch.setattr(probe_file.Path, "home", lambda: Path("/h"))
    assert probe_file.cache_folder() == Path(folder)


def test_a_processor_is_no_card_and_neither_is_what_has_only_shapes() -> None:
    assert cards.card_for(torch.device("cpu")) is None
    assert cards.card_for(torch.device("meta")) is None
    assert route_of(torch.empty(1, 2, 3, 4, 5)) is Route.CONTIGUOUS
