"""Are the host's files listed as the host lists them, links included, and found when chosen?"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pack import part

host = part("nodes.bridge.host")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's folders, with a host that says where they are."""
    for name in ("input", "models/CogVideo", "models/diffusers", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    paths = SimpleNamespace(
        models_dir=str(tmp_path / "models"),
        folder_names_and_paths={},
        get_input_directory=lambda: str(tmp_path / "input"),
        get_filename_list=lambda kind: [],
    )
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    monkeypatch.setattr(host, "running", lambda: True)
    return tmp_path


def a_vae(folder: Path) -> Path:
    """A diffusers folder, as far as listing looks."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def linked(link: Path, target: Path) -> None:
    """A symbolic link, where the system lets this user make one."""
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as error:
        pytest.skip(f"needs the right to make symbolic links: {error}")


def test_a_linked_video_and_a_linked_folder_of_videos_are_listed_and_found(base: Path):
    far = base / "elsewhere"
    (far / "deep").mkdir()
    for path in (far / "a.mp4", far / "deep" / "b.MOV", base / "input" / "own.webm"):
        path.write_bytes(b"video")
    linked(base / "input" / "link.mp4", far / "a.mp4")
    linked(base / "input" / "folder", far)
    linked(base / "input" / "gone.mp4", far / "gone.mp4")
    names = host.input_videos()
    assert names == ["folder/a.mp4", "folder/deep/b.MOV", "link.mp4", "own.webm"]
    for name in names:
        path = host.input_path(name)
        assert path is not None
        assert path.read_bytes() == b"video"


def test_links_in_a_circle_end(base: Path):
    (base / "input" / "a.mp4").write_bytes(b"video")
    linked(base / "input" / "round", base / "input")
    assert host.input_videos() == ["a.mp4"]


@pytest.mark.parametrize(
    "name", ["../elsewhere/a.mp4", "sub/../../elsewhere/a.mp4", "/etc/passwd", "..", "../input2/a"]
)
def test_a_name_leads_nowhere_outside_the_input_folder(base: Path, name: str):
    assert host.input_path(name) is None


def test_a_name_may_wander_inside_the_input_folder(base: Path):
    assert host.input_path("sub/../a.mp4") == base / "input" / "a.mp4"


def test_linked_model_folders_are_listed(base: Path):
    a_vae(base / "models" / "CogVideo" / "own" / "vae")
    far = a_vae(base / "elsewhere" / "CogVideoX-5b" / "vae").parent
    linked(base / "models" / "CogVideo" / "CogVideoX-5b", far)
    linked(base / "models" / "diffusers" / "CogVideoX-5b", far)
    found = host.vae_paths()
    assert set(found) == {
        "CogVideo/own/vae",
        "CogVideo/CogVideoX-5b/vae",
        "diffusers/CogVideoX-5b/vae",
    }
    assert all((path / "config.json").is_file() for path in found.values())


def test_a_linked_folder_of_models_is_listed(base: Path):
    far = base / "elsewhere" / "models"
    a_vae(far / "CogVideoX-2b" / "vae")
    (base / "models" / "CogVideo").rmdir()
    linked(base / "models" / "CogVideo", far)
    assert set(host.vae_paths()) == {"CogVideo/CogVideoX-2b/vae"}


@pytest.fixture
def probes(base: Path):
    """How files of probes are named; no folder is left set."""
    card, files = part("nodes.bridge.card"), part("vae_core.running.probe_file")

    def place() -> Path:
        card.keep_probes()
        return files.path_for({"device": "A Card", "dtype": "torch.bfloat16"})

    yield place
    files.keep_in(None)


def test_what_is_found_out_about_devices_stays_in_the_hosts_user_folder(base, probes, monkeypatch):
    monkeypatch.setattr(
        sys.modules["folder_paths"], "get_user_directory", lambda: str(base / "user"), raising=False
    )
    assert probes().parent == base / "user" / "exact_video_vae"
    assert not (base / "user").exists()  # before there is something to keep


def test_in_a_host_without_a_user_folder_it_stays_in_the_users_cache(base, probes, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(base / "cache"))
    monkeypatch.setattr(Path, "home", lambda: base / "cache")
    assert probes().is_relative_to(base / "cache")


def test_files_of_every_family_stand_before_others(monkeypatch: pytest.MonkeyPatch):
    """By the names that ComfyUI's own packages give them, and diffusers' folders have."""
    ours = ["cogvideox_vae_bf16", "wan2.2_vae", "qwen_image_vae", "hunyuan_video_vae_bf16"]
    ours += ["ltx-2", "seedvr2_ema_vae_fp16", "mochi_vae"]
    names = ["ae.safetensors", *ours, "sdxl_vae.safetensors"]
    loader = part("nodes.loader")
    monkeypatch.setattr(loader.host, "vae_paths", lambda: dict.fromkeys(names, Path()))
    choices = loader.ExactVAELoader.INPUT_TYPES()["required"]["vae_name"][0]
    assert set(choices[: len(ours)]) == set(ours)
