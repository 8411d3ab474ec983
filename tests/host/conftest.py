"""The running hosts, each started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from host import server
from host.client import Client

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
def engine() -> vae_core.VideoVAE:
    """The engine over the shipped VAE, as `vae_core` alone gives it."""
    return vae_core.load(vae_core.tiny_vae_path(), dtype=torch.float32)
