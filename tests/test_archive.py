"""Does the archive that the Comfy registry ships hold what a user needs, and nothing else?

Built by the real `comfy node pack` where comfy-cli is there: on PATH, or named by COMFY_CLI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from pack import ROOT

COMFY = shutil.which(os.environ.get("COMFY_CLI", "comfy"))
NEEDED = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "__init__.py",
    "assets",
    "example_workflows",
    "nodes",
    "pyproject.toml",
    "requirements.txt",
    "vae_core",
    "web",
}
ALLOWED = NEEDED | {"locales", "subgraphs"}
MADE_BY_TOOLS = {"__pycache__", "build", "dist", "node_modules", "node.zip"}
MOST_BYTES = 12 * 2**20


def ignored() -> set[str]:
    """The names at the root that .comfyignore leaves out."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    return {line.strip("/") for line in lines if line and not line.startswith("#")}


def test_every_pattern_is_anchored_at_the_root():
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns
    assert all(line.startswith("/") for line in patterns)


def test_what_lies_at_the_root_is_shipped_or_left_out_on_purpose():
    names = {
        path.name
        for path in ROOT.iterdir()
        if path.name not in MADE_BY_TOOLS and not path.name.startswith(".")
    }
    shipped = {name for name in names if name not in ignored() and ".egg-info" not in name}
    assert shipped >= NEEDED
    assert shipped <= ALLOWED


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files as they are now, in a git repository of their own."""
    if COMFY is None:
        pytest.skip("needs comfy-cli: pip install comfy-cli, or COMFY_CLI naming it")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("needs a git checkout: comfy node pack asks git for its files")
    folder = tmp_path_factory.mktemp("checkout")
    for name in filter(None, listed.stdout.splitlines()):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for arguments in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def comfy(folder: Path, *arguments: str) -> str:
    """What comfy-cli says; it keeps its own settings beside the copy."""
    home = {"HOME": str(folder.parent), "XDG_CONFIG_HOME": str(folder.parent / "config")}
    done = subprocess.run(
        [str(COMFY), "--skip-prompt", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **home, "DO_NOT_TRACK": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_registrys_own_checks_pass(checkout: Path):
    assert "passed" in comfy(checkout, "node", "validate")


def test_the_archive_holds_what_a_user_needs_and_nothing_else(checkout: Path):
    comfy(checkout, "node", "pack")
    with zipfile.ZipFile(checkout / "node.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        size = sum(info.compress_size for info in archive.infolist())
    tops = {name.partition("/")[0] for name in names}
    assert tops >= NEEDED
    assert tops <= ALLOWED
    assert size < MOST_BYTES
    for needed in (
        "assets/tiny_vae/diffusion_pytorch_model.safetensors",
        "assets/tiny_vae/config.json",
        "assets/clips/big_buck_bunny.mp4",
        "assets/clips/ATTRIBUTION.md",
        "example_workflows/exact_vae_1_roundtrip.json",
        "example_workflows/exact_vae_1_roundtrip.jpg",
        "nodes/__init__.py",
        "vae_core/__init__.py",
    ):
        assert needed in names
    parts = {part for name in names for part in name.split("/")}
    assert not [part for part in parts if part.startswith(("test", "conftest"))]
    assert not [name for name in names if name.endswith((".pyc", ".log"))]
