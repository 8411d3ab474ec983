"""Does the command line code HunyuanVideo 1.0 by each reference, clips and folders of them?"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import assert_close
from core_hunyuan import as_core
from networks_hunyuan import clip_decode, clip_encode, random_hunyuan

from vae_core.cli import main
from vae_core.datasets.shards import RECIPE, Shards
from vae_core.media.latent_file import load_latents
from vae_core.media.video import frames_to_tensor, read_video
from vae_core.media.video_writing import write_video

REFERENCES = ("official", "core", "core-as-is")
LATENTS = 3
"""Latent frames of the clip."""


@pytest.fixture(scope="module")
def module():
    return random_hunyuan()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, module) -> Path:
    """The VAE in a folder, and two clips of 9 frames."""
    folder = tmp_path_factory.mktemp("files")
    module.save_pretrained(folder / "vae")
    (folder / "clips").mkdir()
    t, y, x = np.mgrid[0:9, 0:24, 0:40]
    for name, pace in (("a", 9), ("b", -7)):
        clip = np.stack([x * 3 + t * pace + 60, y * 4 + t * 5, 255 - x * 2 - y], -1).clip(0, 255)
        write_video(folder / "clips" / f"{name}.mkv", clip.astype(np.uint8), Fraction(24))
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """One command line in this process, in an empty folder: what it wrote."""
    monkeypatch.chdir(tmp_path)

    def one(*argv: object) -> str:
        code = main([str(word) for word in argv])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    return one


def clip_of(files: Path, name: str) -> torch.Tensor:
    return frames_to_tensor(read_video(files / "clips" / f"{name}.mkv").frames)


def luma(pictures: torch.Tensor) -> torch.Tensor:
    """[b, t, h, w] of [b, 3, t, h, w]."""
    return torch.einsum("c,bcthw->bthw", torch.tensor((0.2126, 0.7152, 0.0722)), pictures)


def moments_of(module, video: torch.Tensor, reference: str) -> torch.Tensor:
    """As the reference of that name gives them."""
    if reference == "official":
        return clip_encode(module, video)
    with as_core(module, LATENTS, late=reference == "core-as-is"):
        return clip_encode(module, video)


@pytest.mark.parametrize("reference", REFERENCES)
def test_encode_and_decode_give_the_reference_s_result(run, files, module, reference) -> None:
    chosen = ("--vae", files / "vae", "--reference", reference, "--chunk-frames", 4, "--tile", 16)
    run("encode", files / "clips" / "a.mkv", "-o", "a.latent", *chosen)
    latents, meta = load_latents("a.latent")
    wanted = moments_of(module, clip_of(files, "a"), reference)
    assert (meta.family, meta.pixels_per_latent, meta.frames_per_latent) == ("hunyuan", 8, 4)
    assert_close(latents, wanted[:, :4])
    run("decode", "a.latent", "-o", "a.mkv", "--crf", 0, *chosen)
    if reference == "official":
        pictures = clip_decode(module, latents)
    else:
        with as_core(module, LATENTS):
            pictures = clip_decode(module, latents)
    shown = frames_to_tensor(read_video(Path("a.mkv")).frames)
    assert shown.shape == pictures.shape
    wanted = luma(pictures.clamp(-1, 1))  # the rest is stored at half the size
    apart = (luma(shown) - wanted).square().mean().sqrt() / (wanted.max() - wanted.min())
    assert apart < 0.02


def test_of_a_family_that_ships_no_vae_a_file_is_asked_for(run, files, capsys) -> None:
    run("encode", files / "clips" / "a.mkv", "-o", "a.latent", "--vae", files / "vae")
    assert main(["decode", "a.latent", "-o", "a.mkv"]) == 2
    told = capsys.readouterr().err
    assert "of the family hunyuan; the VAE is of cogvideox" in told
    assert told.endswith("Take a VAE of theirs: its file by --vae.\n")


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_dataset_holds_what_the_reference_gives_of_every_clip(
    run, files, module, reference
) -> None:
    argv = ("encode-dataset", files / "clips", "-o", "out", "--vae", files / "vae", "--quiet")
    run(*argv, "--bucket", "9x24x40", "--reference", reference)
    recipe = json.loads(Path("out", RECIPE).read_text())
    assert (recipe["family"], recipe["ratios"]) == ("hunyuan", {"px": 8, "frames": 4})
    assert recipe.get("reference", "official") == reference
    shards = Shards(Path("out"))
    assert len(shards.names()) == 2
    for name in shards.names():
        entry = shards.entry(name)
        assert entry
        video = clip_of(files, Path(entry.source).stem)
        wanted = moments_of(module, video, reference)[0]
        assert_close(shards.tensor(entry), wanted)
    out = run("verify", "out", "--vae", files / "vae", "--decode", files / "clips")
    assert "2 clips, each as the index says" in out


def test_a_dataset_of_one_reference_takes_no_more_of_another(run, files) -> None:
    argv = ("encode-dataset", files / "clips", "-o", "out", "--vae", files / "vae", "--quiet")
    run(*argv, "--bucket", "9x24x40", "--reference", "core")
    recipe = json.loads(Path("out", RECIPE).read_text())
    with pytest.raises(Exception, match="reference"):
        Shards(Path("out")).check(recipe | {"reference": "core-as-is"})
