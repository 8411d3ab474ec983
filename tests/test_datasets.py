"""Is a folder of latents whole, the same however often the run was killed, and honest about what
could not be used?
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import clip_folders
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vae_core
from vae_core.cli import main
from vae_core.datasets.buckets import Bucket, frames_for, size_for
from vae_core.datasets.clips import find_clips, name_of
from vae_core.errors import SettingsError, VideoError
from vae_core.geometry.ratios import Ratios
from vae_core.media.video import Resize, frames_to_tensor, read_video
from vae_core.media.video_writing import write_video

HERE = Path(__file__).parent
SIZES = ("--bucket", "9x32x48", "--bucket", "5x32x48", "--bucket", "5x32x32")


vae = clip_folders.vae
moving_clip = partial(clip_folders.moving_clip, pace=(9, 5))


def make_clips(folder: Path, count: int) -> Path:
    (folder / "more").mkdir(parents=True)
    for number in range(count):
        path = folder / ("more" if number % 3 == 0 else ".") / f"clip{number}.mp4"
        write_video(path, moving_clip(5 + 4 * ((number + 1) % 2), seed=number * 5), Fraction(24))
        path.with_suffix(".txt").write_text(f"a clip\nof number {number}\n")
    return folder


def run(*argv: object) -> int:
    return main([str(one) for one in argv])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def index(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def test_every_clip_is_encoded_as_the_engine_encodes_it(vae: Path, tmp_path: Path, capsys) -> None:
    clips = make_clips(tmp_path / "clips", 4)
    assert run("encode-dataset", clips, "-o", tmp_path / "out", "--vae", vae, *SIZES) == 0
    assert "4 clips encoded, 0 there before, 0 skipped" in capsys.readouterr().out
    engine = vae_core.load(vae, dtype=torch.float32)
    for line in index(tmp_path / "out"):
        stored = load_file(tmp_path / "out" / line["file"])
        frames = read_video(clips / line["source"], resize=Resize(32, 48)).frames
        assert len(frames) == line["frames"]
        expected = engine.encode(frames_to_tensor(frames)).moments[0]
        assert torch.equal(stored["moments"], expected)
        assert line["shape"] == list(expected.shape)


def test_the_lists_name_every_clip_and_its_caption_line_by_line(vae: Path, tmp_path: Path) -> None:
    clips = make_clips(tmp_path / "clips", 4)
    run("encode-dataset", clips, "-o", tmp_path / "out", "--vae", vae, *SIZES, "--latents")
    videos = (tmp_path / "out" / "videos.txt").read_text().splitlines()
    prompts = (tmp_path / "out" / "prompts.txt").read_text().splitlines()
    assert prompts == [f"a clip of number {number}" for number in (1, 2, 0, 3)]
    for line in videos:
        assert load_file(tmp_path / "out" / line)["latents"].shape[0] == 16


def test_a_second_run_does_nothing_and_a_new_clip_is_added(
    vae: Path, tmp_path: Path, capsys
) -> None:
    clips = make_clips(tmp_path / "clips", 2)
    argv = ("encode-dataset", clips, "-o", tmp_path / "out", "--vae", vae, *SIZES)
    run(*argv)
    before = contents(tmp_path / "out")
    run(*argv)
    assert contents(tmp_path / "out") == before
    write_video(clips / "a.mp4", moving_clip(9), Fraction(24))
    (clips / "clip1.txt").write_text("another caption")
    capsys.readouterr()
    run(*argv)
    assert "1 clips encoded, 2 there before" in capsys.readouterr().out
    assert {one["caption"] for one in index(tmp_path / "out")} == {
        "", "another caption", "a clip of number 0",
    }  # fmt: skip
    assert not (tmp_path / "out" / "prompts.txt").exists()


def test_other_settings_and_foreign_folders_are_refused(vae: Path, tmp_path: Path, capsys) -> None:
    clips = make_clips(tmp_path / "clips", 1)
    argv = ("encode-dataset", clips, "--vae", vae, "--bucket", "5x32x48", "-o")
    assert run(*argv, tmp_path / "out") == 0
    before = contents(tmp_path / "out")
    assert run(*argv, tmp_path / "out", "--chunk-frames", 4) == 2
    assert "made with other settings: chunk_frames 8, now 4" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert run(*argv, tmp_path / "clips") == 2
    assert "holds other files" in capsys.readouterr().err
    assert not list(clips.glob(".*"))


def make_odd_clips(folder: Path) -> None:
    folder.mkdir()
    write_video(folder / "good.mp4", moving_clip(5), Fraction(24))
    (folder / "text.mp4").write_text("no video at all\n" * 50)
    (folder / "zero.mp4").touch()
    (folder / "cut.mp4").write_bytes((folder / "good.mp4").read_bytes()[:-900])
    write_video(folder / "short.mp4", moving_clip(1), Fraction(24))
    (folder / "pictures").mkdir()
    for number, frame in enumerate(moving_clip(5)):
        Image.fromarray(frame).save(folder / "pictures" / f"{number}.png")


def test_bad_clips_are_skipped_with_a_reason_and_the_others_encoded(
    vae: Path, tmp_path: Path, capsys
) -> None:
    make_odd_clips(tmp_path / "clips")
    argv = ("encode-dataset", tmp_path / "clips", "-o", tmp_path / "out", "--vae", vae, *SIZES)
    assert run(*argv) == 0
    out = capsys.readouterr().out
    skipped = [
        json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    ]
    reasons = {one["source"]: one["reason"] for one in skipped}
    assert {one["source"] for one in index(tmp_path / "out")} == {"good.mp4", "pictures"}
    assert "is empty" in reasons["zero.mp4"]
    assert "is not a video" in reasons["text.mp4"]
    assert "has 1 frames; the smallest bucket of 32x48 px needs 5" in reasons["short.mp4"]
    assert set(reasons) == {"cut.mp4", "short.mp4", "text.mp4", "zero.mp4"}
    assert all(f"skipped: {source}: " in out for source in reasons)
    assert run("verify", tmp_path / "out", "--vae", vae, "--decode", tmp_path / "clips") == 0
    assert capsys.readouterr().out.count(" dB (worst frame ") == 2


def test_verify_names_what_is_wrong(vae: Path, tmp_path: Path, capsys) -> None:
    clips = make_clips(tmp_path / "clips", 5)
    run("encode-dataset", clips, "-o", tmp_path / "out", "--vae", vae, *SIZES)
    lines = index(tmp_path / "out")
    paths = [tmp_path / "out" / line["file"] for line in lines]
    paths[0].write_bytes(paths[0].read_bytes()[:-10])
    paths[1].unlink()
    data = bytearray(paths[2].read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    paths[2].write_bytes(data)
    kept = [lines[0], lines[1], lines[2], lines[3] | {"frames": 13}, lines[2]]
    (tmp_path / "out" / "index.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
    capsys.readouterr()
    assert run("verify", tmp_path / "out") == 2
    said = capsys.readouterr()
    for number, sentence in enumerate(
        ["missing or not whole", "missing or not whole", "NaN or infinity", "disagree in frames"]
    ):
        assert f"{lines[number]['name']}: " in said.out
        assert sentence in said.out
    assert "more than once" in said.out
    assert f"{lines[4]['name']}: it has a file, but no line" in said.out
    assert "are not as they should be" in said.err


def test_a_folder_that_is_being_written_is_left_alone(vae: Path, tmp_path: Path, capsys) -> None:
    fcntl = pytest.importorskip("fcntl")
    clips = make_clips(tmp_path / "clips", 1)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        argv = ("encode-dataset", clips, "-o", tmp_path / "out", "--vae", vae, *SIZES)
        assert run(*argv) == 2
    assert "another run is at work" in capsys.readouterr().err


def test_the_nearest_proportions_win_then_the_size_that_enlarges_nothing() -> None:
    buckets = [Bucket(9, 480, 720), Bucket(9, 720, 480), Bucket(9, 240, 360), Bucket(5, 240, 360)]
    assert size_for(buckets, 1000, 1500) == (480, 720)
    assert size_for(buckets, 400, 600) == (240, 360)
    assert size_for(buckets, 100, 150) == (240, 360)
    assert size_for(buckets, 1920, 1080) == (720, 480)
    assert frames_for(buckets, (240, 360), 8) == Bucket(5, 240, 360)
    assert frames_for(buckets, (240, 360), 300) == Bucket(9, 240, 360)
    assert frames_for(buckets, (240, 360), 4) is None


@pytest.mark.parametrize("size", [(8, 32, 48), (9, 30, 48), (9, 32, 0)])
def test_buckets_that_the_network_cannot_take_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(SettingsError, match="bucket"):
        Bucket(*size).check(Ratios(px=8, frames=4))


def test_names_are_plain_and_never_shared(tmp_path: Path) -> None:
    names = [name_of(source) for source in ("a.mp4", "a.mov", "a b.mp4", "x/a.mp4", "x_a.mp4")]
    assert len(set(names)) == 5
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)
    with pytest.raises(VideoError, match="holds no clips"):
        find_clips(tmp_path, tmp_path / "out")


# Runs `encode-dataset` in forked copies of itself, so that only one of them waits for imports:
# argv = (kills, seed, arguments ...). Kills each copy at a random moment, then lets one finish.
KILLER = """
import os, random, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from safetensors import safe_open
from vae_core.cli import main
import vae_core.families.loading, diffusers.models.autoencoders.autoencoder_kl_cogvideox

kills, seed, *argv = sys.argv[1:]
draw = random.Random(int(seed))
results = Path(argv[argv.index("-o") + 1]) / "video_latents"

def start():
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(argv))
    return child

def files():
    # Hidden ones are what a kill left half-written; the next run clears them.
    return [path for path in results.glob("*.safetensors") if path.name[0] != "."]

killed = 0
for turn in range(int(kills)):
    wanted = len(files()) + draw.choice((0, 1, 1, 1))
    child, status = start(), 0
    ended = False
    if wanted == len(files()):
        time.sleep(draw.random())
    while len(files()) < wanted and not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.0005)
    time.sleep(draw.random() * 0.01)
    if not ended:
        os.kill(child, 9)
        _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
    for path in files():
        with safe_open(path, framework="pt") as file:
            assert file.keys(), path
print(killed, len(files()))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]))
"""


def killed_again_and_again(vae: Path, folder: Path, clips: int, kills: int) -> tuple[int, int]:
    """How often a run could be killed, and how many clips were done after the last time."""
    make_clips(folder / "clips", clips)
    sizes = ("--bucket", "9x64x96", "--bucket", "5x64x96")  # so large that they take a moment
    argv = ("encode-dataset", folder / "clips", "--vae", vae, *sizes, "-o")
    command = [sys.executable, "-c", KILLER, kills, 1, *argv, folder / "killed"]
    done = subprocess.run(
        [str(one) for one in command],
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert run(*argv, folder / "undisturbed") == 0
    assert contents(folder / "killed") == contents(folder / "undisturbed")
    assert len({line["source"] for line in index(folder / "killed")}) == clips
    assert run("verify", folder / "killed") == 0
    killed, before = done.stdout.split()
    return int(killed), int(before)


@pytest.mark.skipif(os.name != "posix", reason="needs processes that can be forked and killed")
def test_a_run_that_is_killed_loses_nothing(vae: Path, tmp_path: Path) -> None:
    killed, _ = killed_again_and_again(vae, tmp_path, clips=6, kills=3)
    assert killed >= 1


@pytest.mark.slow
def test_twenty_kills_over_forty_clips_lose_nothing(vae: Path, tmp_path: Path) -> None:
    killed, before = killed_again_and_again(vae, tmp_path, clips=40, kills=20)
    assert killed >= 15
    assert before < 40


RAY = """
import os, sys, time, random, signal, threading, psutil
import torch
torch.set_num_threads(1)
from vae_core.cli import main
kills, *argv = sys.argv[1:]
dead = []
def kill():
    draw = random.Random(2)
    while len(dead) < int(kills):
        time.sleep(0.05 * draw.random())
        for process in psutil.Process().children(recursive=True):
            try:
                if process.pid not in dead and process.cmdline()[0].startswith("ray::Worker.enc"):
                    process.send_signal(signal.SIGKILL)
                    dead.append(process.pid)
                    break
            except (psutil.Error, IndexError):
                continue
threading.Thread(target=kill, daemon=True).start()
code = main(argv)
print("killed", len(dead))
os._exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 0), (2, 0), (2, 2)])
def test_ray_makes_the_same_bytes_even_where_workers_are_killed(
    vae: Path, tmp_path: Path, workers: int, kills: int
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install exact-video-vae[ray]")
    clips = make_clips(tmp_path / "clips", 24)
    argv = ("encode-dataset", clips, "--vae", vae, *SIZES, "-o")
    torch.set_num_threads(1)
    assert run(*argv, tmp_path / "one") == 0
    command = [sys.executable, "-c", RAY, kills, *argv, tmp_path / "many", "--ray", "local"]
    done = subprocess.run(
        [*map(str, command), "--workers", str(workers)],
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert int(done.stdout.rpartition("killed ")[2]) == kills


def test_ray_that_is_missing_is_said_to_be(
    vae: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    clips = make_clips(tmp_path / "clips", 1)
    argv = ("encode-dataset", clips, "-o", tmp_path / "out", "--vae", vae, *SIZES)
    assert run(*argv, "--ray", "local") == 2
    assert "pip install exact-video-vae[ray]" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_full_disk_ends_the_run_in_a_sentence_and_keeps_what_is_done(
    vae: Path, tmp_path: Path
) -> None:
    """A limit on file sizes stands in for a full disk: the larger clips do not fit."""
    clips = make_clips(tmp_path / "clips", 4)
    argv = ("encode-dataset", clips, "-o", tmp_path / "out", "--vae", vae, *SIZES)
    code = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (7500, r.RLIM_INFINITY))"
    command = f"{code}; import sys; from vae_core.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, *map(str, argv)],
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert done.stderr.count("\n") == 1
    assert 0 < len(index(tmp_path / "out")) < 4
    assert not list(tmp_path.rglob(".*.part*"))
    assert run(*argv) == 0
    assert len(index(tmp_path / "out")) == 4
