"""Which web clients do browser tests run in? The host's own, and the newest on PyPI.

The newest comes as a wheel, into the cache that tests/host uses too; pip downloads what is not
there yet. It is served in place of the host's own and never imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from host.server import HostMissing

PACKAGE = "comfyui-frontend-package"
INSIDE = "comfyui_frontend_package/static/"


def newest() -> Path:
    """The folder of the newest client; raises `HostMissing` where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    place = cache / "exact-video-vae" / "clients"
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    command += ["download", "--no-deps", "--dest", str(place), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostMissing(f"the newest client needs {PACKAGE} from PyPI")
    return _unpacked(max(place.glob("*.whl"), key=_version))


def _version(wheel: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in wheel.name.split("-")[1].split("."))


def _unpacked(wheel: Path) -> Path:
    """The client out of a wheel; index.html comes last, as the mark that all of it is there."""
    place = wheel.with_suffix("")
    folder = place / INSIDE
    if not (folder / "index.html").is_file():
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(INSIDE)]
            for name in sorted(names, key=lambda name: name == f"{INSIDE}index.html"):
                archive.extract(name, place)
    return folder
