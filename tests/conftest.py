"""Which tiers of tests run? The quick one always; each other one when its flag asks for it.

A tier that was left out says so in one line of the summary, with the flag that brings it back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import settings

from vae_core.running import devices

# Small tensors gain nothing from threads, and processes that run side by side lose by them.
torch.set_num_threads(1)

# One slow example on a busy machine is no failure; and a CI run must be repeatable.
settings.register_profile("repository", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("repository")

# marker: what the tier needs
TIERS = {
    "slow": "minutes of processor time",
    "host": "a real ComfyUI",
    "browser": "a ComfyUI server and a browser",
    "cuda": "an NVIDIA GPU",
}
LEFT_OUT = pytest.StashKey[dict[str, int]]()


@pytest.fixture
def plenty_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans depend on what memory the computer has free, which is not the same twice."""
    memory = SimpleNamespace(available=64 * 2**30, total=128 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


@pytest.fixture
def heeding_hang_ups() -> Iterator[None]:
    """A hang-up ends a program even where the tests themselves run under nohup."""
    one = getattr(signal, "SIGHUP", signal.SIGTERM)
    before = signal.signal(one, signal.SIG_DFL)
    yield
    signal.signal(one, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    """One flag a tier: --slow, --host, --browser, --cuda."""
    group = parser.getgroup("tiers")
    for marker, needs in TIERS.items():
        group.addoption(f"--{marker}", action="store_true", help=f"also run what needs {needs}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tiers that were not asked for, and count them."""
    closed = [marker for marker in TIERS if not config.getoption(marker)]
    left_out: dict[str, int] = {}
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        reason = next((marker for marker in closed if item.get_closest_marker(marker)), None)
        if reason is None:
            kept.append(item)
        else:
            dropped.append(item)
            left_out[reason] = left_out.get(reason, 0) + 1
    config.stash[LEFT_OUT] = left_out
    if dropped:
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints the summary what this one left out."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """Take what one of several processes left out; all of them leave out the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name each tier that was left out."""
    for marker, count in config.stash.get(LEFT_OUT, {}).items():
        needs = TIERS[marker]
        terminalreporter.write_line(f"left out: {count} {marker} tests; --{marker} ({needs})")


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor is treated as an accelerator."""
    monkeypatch.setattr(devices, "accelerates", lambda device: True)
