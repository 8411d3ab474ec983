"""Does every command do what it says, and does every mistake end in one sentence?"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from PIL import Image
from refusals import BAD, DECODE, ENCODE, encode
from safetensors.torch import load_file, save_file

import vae_core
from vae_core import cli
from vae_core.cli import main
from vae_core.jobs import commands
from vae_core.media.latent_file import LATENT_KEY, VERSION_KEY, load_latents
from vae_core.media.video import Frames, read_video
from vae_core.media.video_writing import VideoOptions, VideoWriter, write_video

ROOT = Path(vae_core.__file__).parents[1]


def moving_clip(frames: int, height: int, width: int) -> Frames:
    t, y, x = np.mgrid[0:frames, 0:height, 0:width]
    return (
        np.stack([x * 3 + t * 9, y * 4 + t * 5, 255 - x * 2 - y], -1).clip(0, 255).astype(np.uint8)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read: a narrow random VAE, clips, latents, and what is none of these."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    module = AutoencoderKLCogVideoX(
        block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=16
    )
    module.save_pretrained(folder / "vae")
    write_video(folder / "clip.mp4", moving_clip(9, 32, 48), Fraction(24))
    write_video(folder / "odd.mp4", moving_clip(6, 30, 45), Fraction(24), VideoOptions(crf=4))
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    stored = {
        "latents": latents,
        "nan": latents * float("nan"),
        "four": latents[:, :4],
        "integers": latents.int(),
        "batch": latents.repeat(2, 1, 1, 1, 1),
        "flat": latents[0],
    }
    for name, tensor in stored.items():
        tensors = {LATENT_KEY: tensor.contiguous(), VERSION_KEY: torch.zeros(0)}
        save_file(tensors, folder / f"{name}.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "one.safetensors")
    (folder / "text.txt").write_text("just some text\n" * 20)
    (folder / "text.mp4").write_text("just some text\n" * 20)
    (folder / "text.safetensors").write_text("just some text\n" * 20)
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:200])
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> Outcome:
    """One command line in this process."""
    code = main([str(one) for one in argv])
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def test_info_names_architecture_parameters_and_dtype(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "info", files / "vae")
    assert (shown.code, shown.err) == (0, "")
    assert "32, 32, 32, 32" in shown.out
    assert "float32" in shown.out
    facts = json.loads(run(capsys, "info", files / "vae", "--json").out)
    stored = load_file(files / "vae" / "diffusion_pytorch_model.safetensors")
    assert facts["parameters"] == sum(tensor.numel() for tensor in stored.values())
    assert facts["latent_channels"] == 16


def test_plan_needs_no_weights_and_plans_both_directions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = run(capsys, "plan", "--shape", "81x768x1360", "--json")
    assert (shown.code, shown.err) == (0, "")
    plans = json.loads(shown.out)
    assert plans["encode"]["source"] == [81, 768, 1360]
    assert plans["decode"]["source"] == [21, 96, 170]
    assert plans["encode"]["peak_bytes"] > 0
    assert "81x768x1360" in run(capsys, "plan", "--shape", "81x768x1360").out


def test_the_budget_that_plan_names_fits_both_directions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ("plan", "--shape", "9x96x160", "--budget")
    refused = run(capsys, *argv, "1MiB").err
    assert "To encode: projected" in refused
    assert "To decode: projected" in refused
    named = re.search(r"A budget of ([0-9.]+) (GiB|MiB) fits to encode and to decode", refused)
    assert named
    assert "decoder" in run(capsys, *argv, named[1] + named[2]).out


def test_plan_pads_as_encoding_would(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("plan", "--shape", "6x30x45", "--vae", files / "vae", "--json")
    plans = json.loads(run(capsys, *argv).out)
    assert plans["encode"]["source"] == [9, 32, 48]
    assert plans["decode"]["source"] == [3, 4, 6]


def test_encode_then_decode_gives_a_clip_of_the_same_size_and_rate(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae = ("--vae", files / "vae", "--quiet")
    encoded = run(capsys, "encode", files / "odd.mp4", "-o", "a.latent", *vae)
    assert (encoded.code, encoded.err) == (0, "")
    assert "padded" in encoded.out
    latents, meta = load_latents(here / "a.latent")
    assert latents.shape == (1, 16, 3, 4, 6)
    assert meta.source == (6, 30, 45)
    assert meta.vae == "vae"
    decoded = run(capsys, "decode", "a.latent", "-o", "a.mp4", *vae)
    assert (decoded.code, decoded.err) == (0, "")
    clip = read_video(here / "a.mp4")
    assert clip.frames.shape == (6, 30, 45, 3)
    assert clip.info.fps == 24


def test_samples_follow_the_seed_and_moments_are_stored(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, extra in (("a", ("--seed", 1)), ("b", ("--seed", 1)), ("c", ("--seed", 2))):
        argv = ("encode", files / "clip.mp4", "-o", f"{name}.latent", "--vae", files / "vae")
        assert run(capsys, *argv, "--moments", "--sample", *extra).code == 0
    a, b, c = (load_file(here / f"{name}.latent") for name in "abc")
    assert torch.equal(a[LATENT_KEY], b[LATENT_KEY])
    assert not torch.equal(a[LATENT_KEY], c[LATENT_KEY])
    assert torch.equal(a["mean"], c["mean"])


def test_latents_of_sixteen_frames_are_decoded_once_their_convention_is_said(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    square = torch.randn(1, 16, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    save_file({LATENT_KEY: square}, here / "core.latent")
    theirs = (square.transpose(1, 2) * 0.7).contiguous()
    save_file({LATENT_KEY: theirs}, here / "kijai.latent")
    shown = {}
    for name in ("core", "kijai"):
        argv = ("decode", f"{name}.latent", "-o", f"{name}.mkv", "--vae", files / "vae")
        for unsure in ((), ("--scale", "0.7")):
            outcome = run(capsys, *argv, *unsure)
            assert outcome.code == 2
            assert "add --convention core or --convention kijai" in outcome.err
        assert not Path(f"{name}.mkv").exists()
        assert run(capsys, *argv, "--convention", name, "--codec", "ffv1").code == 0
        shown[name] = read_video(f"{name}.mkv").frames
    assert np.abs(shown["core"].astype(int) - shown["kijai"]).max() <= 1


FORMS = {"kijai": ["--convention", "kijai"], "2b": ["--scale", "2b"], "file": ["--scale", "config"]}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_latents_go_out_and_in_in_other_conventions(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    vae = ("--vae", files / "vae", "--quiet")
    for name, extra in (("plain", []), ("other", options)):
        argv = ("encode", files / "clip.mp4", "-o", f"{name}.latent", *vae, *extra)
        assert run(capsys, *argv).code == 0
    plain, other = (load_latents(here / f"{name}.latent")[0] for name in ("plain", "other"))
    stored = load_file(here / "other.latent")
    assert not torch.equal(stored[LATENT_KEY], plain)
    torch.testing.assert_close(other, plain)
    save_file({LATENT_KEY: stored[LATENT_KEY]}, here / "a.latent")
    save_file({LATENT_KEY: plain}, here / "b.latent")
    for name, extra in (("a", options), ("b", [])):
        argv = ("decode", f"{name}.latent", "-o", f"{name}.mp4", "--crf", 4, *vae, *extra)
        assert run(capsys, *argv).code == 0
    frames = [read_video(here / f"{name}.mp4").frames.astype(int) for name in "ab"]
    assert np.abs(frames[0] - frames[1]).max() <= 8, "no more than the codec makes of rounding"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--convention", "kijai", "--scale", "2b"], "always times 0.7"),
        (["--scale", "14b"], "cannot be read from weights"),
        (["--scale", "-1"], "above 0"),
    ],
)
def test_forms_that_make_no_sense_are_refused(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    argv = ("encode", files / "clip.mp4", "-o", "a.latent", "--vae", files / "vae", *options)
    shown = run(capsys, *argv)
    assert shown.code == 2
    assert sentence in shown.err
    assert not (here / "a.latent").exists()


def test_latents_without_metadata_decode_at_their_full_size(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("decode", files / "latents.safetensors", "-o", "a.mp4", "--vae", files / "vae")
    assert run(capsys, *argv, "--fps", "24000/1001").code == 0
    clip = read_video(here / "a.mp4")
    assert clip.frames.shape == (9, 32, 48, 3)
    assert clip.info.fps == Fraction(24000, 1001)


def test_roundtrip_reports_in_text_json_and_pictures(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("roundtrip", files / "clip.mp4", "--vae", files / "vae", "--tile", "16x24")
    shown = run(capsys, *argv, "--json", "a.json", "-o", "a.mp4")
    assert (shown.code, shown.err) == (0, "")
    assert "psnr" in shown.out
    figures = json.loads((here / "a.json").read_text())
    assert figures["latent_shape"] == [1, 16, 3, 4, 6]
    assert figures["sample_frames"] == 9
    assert figures["max_difference"] < 1e-3
    assert figures["plan"]["encode"]["tiles"] > figures["plan"]["encode"]["steps"]
    assert figures["peak_bytes"] > 2**20
    assert figures["seconds"] > 0
    assert read_video(here / "a.mp4").frames.shape == (9, 32, 48, 3)
    with Image.open(here / "clip_roundtrip.png") as sheet:
        assert min(sheet.size) > 400
    assert sorted(path.name for path in here.iterdir()) == ["a.json", "a.mp4", "clip_roundtrip.png"]


@pytest.mark.parametrize(
    "options",
    [
        ("--tiling", "off"),
        ("--no-compare", "--dtype", "bfloat16"),
        ("--no-compare", "--size-fit", "crop", "--frame-fit", "crop"),
        ("--no-compare", "--layout", "diffusers"),
        ("--no-compare", "--max-frames", "1"),
        ("--no-compare", "--sample", "--norm-scope", "clip"),
    ],
)
def test_roundtrip_takes_every_setting(
    files: Path, here: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    argv = ("roundtrip", files / "odd.mp4", "--vae", files / "vae", "--no-sheet", "--json")
    shown = run(capsys, *argv, *options)
    assert not shown.err
    assert shown.code == 0
    figures = json.loads(shown.out)
    assert figures["max_difference"] is None
    assert 0 < figures["psnr_db"] < 60
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("argv", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(
    files: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    sentence: str,
) -> None:
    (files.parent / "folder.mp4").mkdir(exist_ok=True)
    before = (files / "clip.mp4").read_bytes()
    shown = run(capsys, *(part.format(files=files) for part in argv))
    assert shown.code == 2
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert sentence in shown.err
    assert shown.out == ""
    assert list(here.iterdir()) == []
    assert (files / "clip.mp4").read_bytes() == before


def test_what_the_encoder_refuses_is_told_before_anything_is_decoded(
    files: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decode_video(*_: object) -> None:
        raise AssertionError("decoding has begun")

    monkeypatch.setattr(commands, "decode_video", decode_video)
    argv = (*DECODE, "-o", "out.mkv", "--codec", "mpeg4", "--fps", "100000")
    shown = run(capsys, *(part.format(files=files) for part in argv))
    assert (shown.code, "out.mkv with mpeg4" in shown.err) == (2, True)
    assert list(here.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a name that Windows has not")
@pytest.mark.parametrize(
    ("encoding", "name"), [("ascii", "é"), ("utf-8", "no\udcff"), ("cp1252", "名")]
)
def test_a_name_that_stdout_cannot_hold_is_told_in_escapes(
    files: Path, here: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, name: str
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    argv = (*encode("clip.mp4")[:3], f"{name}.latent", *ENCODE[4:])
    assert main([part.format(files=files) for part in argv]) == 0
    assert name.encode("ascii", "backslashreplace") in stdout.buffer.getvalue()
    assert os.listdir(here) == [f"{name}.latent"]


def test_what_the_system_refuses_is_a_sentence_wherever_it_comes_up(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def info(_: object) -> None:
        raise PermissionError(13, "Permission denied", "vae.safetensors")

    monkeypatch.setitem(cli._COMMANDS, "info", (*cli._COMMANDS["info"][:2], info))
    shown = run(capsys, "info")
    assert (shown.code, shown.err) == (2, "error: vae.safetensors: Permission denied.\n")


HANG_UP = getattr(signal, "SIGHUP", getattr(signal, "SIGBREAK", signal.SIGTERM))


def terminate(_: VideoWriter) -> None:
    signal.raise_signal(signal.SIGTERM)


def hang_up(_: VideoWriter) -> None:
    signal.raise_signal(HANG_UP)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Mock(side_effect=KeyboardInterrupt), 130),
        (terminate, 143),
        (hang_up, 128 + HANG_UP),
        (Mock(side_effect=MemoryError), 1),
    ],
)
@pytest.mark.usefixtures("heeding_hang_ups")
def test_what_breaks_in_leaves_nothing_half_written(
    files: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    event: object,
    code: int,
) -> None:
    monkeypatch.setattr(VideoWriter, "finish", event)
    shown = run(capsys, *(part.format(files=files) for part in DECODE))
    assert shown.code == code
    assert "Traceback" not in shown.err
    assert list(here.iterdir()) == []


def test_version_and_help_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == Outcome(0, f"vae_core {vae_core.__version__}\n", "")
    assert "roundtrip" in run(capsys, "--help").out
    assert run(capsys, "encode", "--help").code == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "vae_core", "plan", "--shape", "9x64x64", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 141
