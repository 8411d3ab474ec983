"""Does the command line do for Wan 2.1 and Qwen-Image what it does for CogVideoX?"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from wan_files import authors_state, wan_module

import vae_core
from vae_core.cli import main
from vae_core.datasets.shards import FORMAT, RECIPE, Shards
from vae_core.families.latent_statistics import WAN_2_1
from vae_core.geometry.region import Interval
from vae_core.media.latent_file import LATENT_KEY, VERSION_KEY, load_latents
from vae_core.media.latent_stream import LatentFile
from vae_core.media.video import read_video
from vae_core.media.video_writing import write_video

CONFIG_MEAN, CONFIG_STD = [0.25] * 16, [2.0] * 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow random VAE under core's names and in a folder, and a clip of 9 frames."""
    folder = tmp_path_factory.mktemp("files")
    module = wan_module(latents_mean=CONFIG_MEAN, latents_std=CONFIG_STD)
    save_file(authors_state(module), folder / "wan_2.1_vae.safetensors")
    module.save_pretrained(folder / "vae")
    t, y, x = np.mgrid[0:9, 0:32, 0:48]
    clip = np.stack([x * 3 + t * 9, y * 4 + t * 5, 255 - x * 2 - y], -1).clip(0, 255)
    (folder / "clips").mkdir()
    write_video(folder / "clips" / "clip.mkv", clip.astype(np.uint8), Fraction(24))
    return folder


@pytest.fixture
def run(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """One command line in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def one(*argv: object) -> tuple[int, str, str]:
        code = main([str(word) for word in argv])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return one


def test_info_tells_the_family_its_ratios_and_what_config_json_says(run, files: Path) -> None:
    code, out, _ = run("info", files / "vae", "--json")
    facts = json.loads(out)
    assert (code, facts["family"], facts["block_out_channels"]) == (0, "wan", [8, 16, 32, 32])
    ratios = facts["spatial_compression_ratio"], facts["temporal_compression_ratio"]
    assert (ratios, facts["latents_mean"], facts["latents_std"]) == (
        (8, 4),
        CONFIG_MEAN,
        CONFIG_STD,
    )
    _, out, _ = run("info", files / "wan_2.1_vae.safetensors")
    assert "latents mean                 unknown" in out
    assert "scaling factor" not in out
    assert "latents mean" not in run("info")[1]


def test_the_shipped_vae_of_a_family_is_taken_by_its_name(run) -> None:
    shipped = json.loads(run("info", "--family", "wan", "--json")[1])
    assert shipped["file"] == str(vae_core.tiny_wan_vae_path())
    assert json.loads(run("info", "--json")[1])["family"] == "cogvideox"


def test_a_file_of_another_family_than_the_one_named_is_refused(run, files: Path) -> None:
    code, _, err = run("info", files / "vae", "--family", "cogvideox")
    assert code == 2
    assert "a VAE of Wan 2.1 and Qwen-Image, and --family says cogvideox" in err


def test_plan_needs_no_weights_and_pads_as_encoding_would(run, files: Path) -> None:
    for network in (("--family", "wan"), ("--vae", files / "vae")):
        code, out, _ = run("plan", "--shape", "6x90x130", "--json", *network)
        plans = json.loads(out)
        assert code == 0
        assert plans["encode"]["source"] == [9, 96, 136]
        assert plans["decode"]["source"] == [3, 12, 17]


def test_encode_says_family_ratios_and_statistics_in_the_file(run, files: Path) -> None:
    argv = ("encode", files / "clips" / "clip.mkv", "-o", "a.latent", "--vae", files / "vae")
    assert run(*argv)[0] == 0
    meta = load_latents("a.latent")[1]
    assert (meta.family, meta.pixels_per_latent, meta.frames_per_latent) == ("wan", 8, 4)
    assert (list(meta.latents_mean or ()), list(meta.latents_std or ())) == (
        CONFIG_MEAN,
        CONFIG_STD,
    )
    assert safe_open("a.latent", "pt").metadata()["scale"] == "unscaled"


FORMS = {
    "kijai": (["--convention", "kijai"], WAN_2_1),
    "a model's": (["--scale", "qwen-image"], WAN_2_1),
    "config.json's": (
        ["--scale", "config"],
        vae_core.families.conventions.LatentStatistics(tuple(CONFIG_MEAN), tuple(CONFIG_STD)),
    ),
}


@pytest.mark.parametrize(("options", "statistics"), FORMS.values(), ids=FORMS)
def test_latents_go_out_and_in_normalised(run, files: Path, options, statistics) -> None:
    vae = ("--vae", files / "vae", "--quiet")
    clip = files / "clips" / "clip.mkv"
    for name, extra in (("plain", []), ("other", options)):
        assert run("encode", clip, "-o", f"{name}.latent", *vae, *extra)[0] == 0
    plain, other = (load_latents(f"{name}.latent")[0] for name in ("plain", "other"))
    stored = load_file("other.latent")[LATENT_KEY]
    mean, std = (torch.tensor(x).view(16, 1, 1, 1) for x in (statistics.mean, statistics.std))
    torch.testing.assert_close(stored, (plain - mean) / std)
    torch.testing.assert_close(other, plain)
    save_file({LATENT_KEY: stored, VERSION_KEY: torch.zeros(0)}, "bare.latent")
    assert run("decode", "bare.latent", "-o", "a.mkv", "--codec", "ffv1", *vae, *options)[0] == 0
    assert run("decode", "plain.latent", "-o", "b.mkv", "--codec", "ffv1", *vae)[0] == 0
    frames = [read_video(f"{name}.mkv").frames.astype(int) for name in "ab"]
    assert np.abs(frames[0] - frames[1]).max() <= 3, "one level of Y, U and V"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--convention", "kijai", "--scale", "wan2.1"], "leave out --scale"),
        (["--scale", "0.7"], "'0.7' is none of these"),
        (["--scale", "2b"], "Name the model, wan2.1 or qwen-image"),
        (["--scale", "config", "--vae", "wan_2.1_vae.safetensors"], "config.json gives none"),
    ],
)
def test_forms_that_make_no_sense_are_refused(run, files: Path, options, sentence: str) -> None:
    options = [files / one if one.endswith(".safetensors") else one for one in options]
    clip = files / "clips" / "clip.mkv"
    code, _, err = run("encode", clip, "-o", "a.latent", "--vae", files / "vae", *options)
    assert code == 2
    assert sentence in err
    assert not Path("a.latent").exists()


def test_latents_of_another_family_are_refused(run, files: Path) -> None:
    clip = files / "clips" / "clip.mkv"
    assert run("encode", clip, "-o", "a.latent", "--vae", files / "vae")[0] == 0
    code, _, err = run("decode", "a.latent", "-o", "a.mkv")
    assert code == 2
    assert "of the family wan; the VAE is of cogvideox" in err
    assert "--family wan" in err


@pytest.mark.parametrize("channels", [16, 4])
def test_sixteen_latent_frames_of_wan_leave_nothing_open(tmp_path: Path, channels: int) -> None:
    latents = torch.randn(1, channels, 16, 2, 2)
    save_file({LATENT_KEY: latents, VERSION_KEY: torch.zeros(0)}, tmp_path / "a.latent")
    assert torch.equal(load_latents(tmp_path / "a.latent", family="wan")[0], latents)
    with LatentFile(tmp_path / "a.latent", family="wan") as file:
        assert torch.equal(file.take(Interval(0, 16)), latents)
    with pytest.raises(vae_core.InputError, match=r"may be|looks like"):
        load_latents(tmp_path / "a.latent", family="cogvideox")


def test_normalised_latents_that_do_not_say_by_what_are_refused(tmp_path: Path) -> None:
    stored = {LATENT_KEY: torch.ones(1, 16, 2, 2, 2), VERSION_KEY: torch.zeros(0)}
    said = {"layout": "b c t h w", "scale": "normalised"}
    save_file(stored, tmp_path / "a.latent", metadata=said)
    with pytest.raises(vae_core.InputError, match="not by which latents_mean"):
        load_latents(tmp_path / "a.latent")


def test_roundtrip_of_the_shipped_wan_vae_reports_its_likeness(run, files: Path) -> None:
    argv = ("roundtrip", files / "clips" / "clip.mkv", "--family", "wan", "--no-sheet", "--json")
    code, out, _ = run(*argv, "--tile", "32", "--size", "48x64")
    report = json.loads(out)
    assert code == 0
    assert report["vae"] == "tiny_wan_vae.safetensors"
    assert report["pixels_apart"]["largest"] <= 1e-4 * report["pixels_apart"]["value_range"]


def test_a_dataset_says_its_family_and_is_verified_by_it(run, files: Path) -> None:
    argv = ("encode-dataset", files / "clips", "-o", "out", "--vae", files / "vae", "--quiet")
    assert run(*argv, "--bucket", "9x32x48")[0] == 0
    recipe = json.loads(Path("out", RECIPE).read_text())
    assert (recipe["family"], recipe["ratios"]) == ("wan", {"px": 8, "frames": 4})
    assert recipe["latent_statistics"] == {"mean": CONFIG_MEAN, "std": CONFIG_STD}
    code, out, _ = run("verify", "out", "--vae", files / "vae", "--decode", files / "clips")
    assert code == 0
    assert "1 clips, each as the index says" in out


def test_a_dataset_of_before_there_were_families_is_cogvideox(tmp_path: Path) -> None:
    said = {"format": FORMAT, "kind": "moments"}
    (tmp_path / RECIPE).write_text(json.dumps(said))
    ratios = {"px": 8, "frames": 4}
    known = said | {"family": "cogvideox", "ratios": ratios, "latent_statistics": None}
    Shards(tmp_path).check(known)
    with pytest.raises(vae_core.SettingsError, match="family 'cogvideox', now 'wan'"):
        Shards(tmp_path).check(known | {"family": "wan"})
