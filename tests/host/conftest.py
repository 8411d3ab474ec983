"""The running hosts, each started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from host import server
from host.client import Client
from ltx_files import CHECKPOINT, write_narrow_checkpoint

import vae_core


@pytest.fixture(scope="session", params=["checkout", "registry"])
def client(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Client]:
    """A client of each host in turn."""
    try:
        host = getattr(server, request.param)()
    except server.HostMissing as error:
        pytest.skip(str(error))
    with server.running(host, tmp_path_factory.mktemp(request.param)) as client:
        yield client


@pytest.fixture(scope="session")
def engines(tmp_path_factory) -> dict[str, vae_core.VideoVAE]:
    """The engine over each of the shipped VAEs, and over the LTX that stands for one, as `vae_core`
    alone gives it, by name.
    """
    wan = server.ROOT / "assets" / "tiny_wan_vae" / "tiny_wan_vae.safetensors"
    ltx = write_narrow_checkpoint(tmp_path_factory.mktemp("models"))
    paths = {"tiny_vae": vae_core.tiny_vae_path(), "tiny_wan_vae": wan, CHECKPOINT: ltx}
    return {name: vae_core.load(path, dtype=torch.float32) for name, path in paths.items()}


@pytest.fixture(scope="session")
def engine(engines: dict[str, vae_core.VideoVAE]) -> vae_core.VideoVAE:
    """The engine over the shipped CogVideoX VAE."""
    return engines["tiny_vae"]
