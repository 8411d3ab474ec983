"""Where do weights end up in core's own patchers, and how often are they copied to the card?

Core's classes in core's interpreter, with `meta` as a card that has room for nothing, a part or all
of the weights; see `stand_in.py`. Only on a core that knows this network itself.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from host import server

pytestmark = pytest.mark.host

Found = dict[str, Any]
ROOMS = ("nothing", "some", "most", "all")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Found]:
    """Every case of `stand_in.py`."""
    try:
        host = server.checkout()
    except server.HostMissing as error:
        pytest.skip(str(error))
    if not (host.knows_cogvideox and (host.folder / "comfy" / "pinned_memory.py").is_file()):
        pytest.skip("needs a ComfyUI of 0.33 or newer in COMFYUI_PATH")
    script = server.ROOT / "tests/host/stand_in.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(host.python), "-P", str(script), str(host.folder), str(server.ROOT)],
        cwd=tmp_path_factory.mktemp("stand_in"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("patcher", ["plain", "dynamic"])
@pytest.mark.parametrize("vae", ["own", "adopted"])
@pytest.mark.parametrize("room", ROOMS)
def test_no_weight_moves_after_the_first_chunk_where_there_is_room(found, patcher, vae, room):
    case = found[f"{patcher} {vae} {room}"]
    first, *later = case["chunks"]
    assert len(set(later)) == 1
    if room == "all":
        assert later[0] == 0
        assert case["said"] == []
    assert later[0] <= first <= case["weights"]  # each weight once a chunk at most


def test_our_loader_takes_the_patcher_that_core_would_take(found):
    assert found["plain own all"]["patcher"] == "ModelPatcher"
    assert found["dynamic own all"]["patcher"] == "ModelPatcherDynamic"


@pytest.mark.parametrize("vae", ["own", "adopted"])
def test_core_keeps_part_of_the_weights_where_there_is_room_for_a_part(found, vae):
    held = [found[f"plain {vae} {room}"]["on_card"] for room in ROOMS]
    whole = found[f"plain {vae} all"]["weights"]
    assert held == sorted(held)
    assert held[0] == 0
    assert 0.6 * whole < held[2] <= 0.72 * whole
    assert held[3] == whole


@pytest.mark.parametrize("room", ROOMS)
def test_under_dynamic_memory_the_whole_network_of_our_loader_is_on_the_card(found, room):
    case = found[f"dynamic own {room}"]
    assert case["on_card"] == case["loading"] == case["weights"]
    assert case["chunks"] == [0, 0, 0]


@pytest.mark.parametrize("room", ROOMS[1:])
def test_pages_of_an_adopted_vae_are_held_for_a_step_and_filled_once(found, room):
    case = found[f"dynamic adopted {room}"]
    first, second, _ = case["chunks"]
    assert case["pinned_at_most"] > 0
    assert case["pinned_after"] == 0
    assert case["in_pages"] >= first - second > 0


@pytest.mark.parametrize("patcher", ["plain", "dynamic"])
@pytest.mark.parametrize("vae", ["own", "adopted"])
@pytest.mark.parametrize("room", ROOMS)
def test_the_report_says_so_where_weights_are_copied_for_every_chunk(found, patcher, vae, room):
    case = found[f"{patcher} {vae} {room}"]
    assert bool(case["said"]) == (case["chunks"][1] > 0)
    assert all("found no room" in line for line in case["said"])


def test_a_network_that_was_loaded_in_part_is_loaded_whole_once_there_is_room(found):
    case = found["more room later"]
    assert case["first"] < case["weights"] == case["then"]
    assert case["said"] == []
