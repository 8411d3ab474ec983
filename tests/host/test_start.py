"""Does a host start beside what is wrong with the pack, and offer what still works?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from host import server
from host.server import ROOT

pytestmark = pytest.mark.host

# What every version up to 0.2 did when it was loaded.
EARLIER = """
from aiohttp import web
from server import PromptServer

async def handle(request):
    return web.json_response({})

PromptServer.instance.routes.post("/exact_video_vae/plan")(handle)
NODE_CLASS_MAPPINGS = {}
"""


@pytest.fixture(params=["checkout", "registry"])
def host(request: pytest.FixtureRequest) -> server.Host:
    """Each host in turn."""
    try:
        return getattr(server, request.param)()
    except server.HostMissing as error:
        pytest.skip(str(error))


def started(host: server.Host, base: Path) -> tuple[set[str], set[str], list[str]]:
    """Our nodes, the folders that our scripts come from, and our lines of the log."""
    with server.running(host, base) as client:
        nodes = {name for name in client.object_info() if name.startswith("ExactVAE")}
        scripts = client.ask("/extensions")[1]
        assert client.ask("/exact_video_vae/plan", {})[0] in {200, 400}
    log = (base / "server.log").read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log
    ours = [line for line in log.splitlines() if "Exact Video VAE:" in line]
    return nodes, {path.split("/")[2] for path in scripts if "exact_video_vae" in path}, ours


def copied(folder: Path) -> None:
    """The pack as files of its own."""
    for name in ("nodes", "vae_core", "web", "assets", "locales"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "__init__.py", folder)


def test_two_copies_of_the_pack_are_one_and_a_line(host: server.Host, tmp_path: Path):
    copied(tmp_path / "custom_nodes" / "another-copy")
    nodes, scripts, lines = started(host, tmp_path)
    assert len(nodes) == 8
    assert len(scripts) == 1
    (line,) = lines
    assert "installed twice" in line
    assert "another-copy" in line
    assert "exact-video-vae" in line


def test_a_copy_of_an_earlier_version_does_not_keep_it_from_starting(
    host: server.Host, tmp_path: Path
):
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "earlier.py").write_text(EARLIER, encoding="utf-8")
    nodes, _, lines = started(host, tmp_path)
    assert len(nodes) == (0 if lines else 8)  # a host loads the two in no order that is known


def test_a_pack_that_is_half_there_offers_its_other_half(host: server.Host, tmp_path: Path):
    folder = tmp_path / "custom_nodes" / "exact-video-vae"
    copied(folder)
    (folder / "nodes" / "video.py").write_text("<<<<<<< HEAD\n", encoding="utf-8")
    (folder / "vae_core" / "__init__.py").write_text("import nowhere\n", encoding="utf-8")
    nodes, scripts, lines = started(host, tmp_path)
    assert len(nodes) == 6
    assert len(scripts) == 1
    (line,) = lines
    assert "Exact VAE Encode Video, Exact VAE Decode Video left out: SyntaxError" in line
