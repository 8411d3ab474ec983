"""Is nothing of a folder of clips left out in silence, stale, or the end of a run?"""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
from clip_folders import (  # noqa: F401  # fixtures too
    SIZES,
    encode,
    folder,
    good,
    index,
    make_pictures,
    moving_clip,
    posix,
    results,
    skipped,
    vae,
)
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vae_core.cli import main
from vae_core.datasets import clips as clips_module
from vae_core.datasets.captions import text_of
from vae_core.datasets.clips import find_clips
from vae_core.errors import VideoError
from vae_core.media.video_writing import write_video


@posix
def test_links_to_folders_are_followed_once_and_circles_end(folder: Path, good: Path) -> None:
    other = folder.with_name("other")
    (other / "deep").mkdir(parents=True)
    shutil.copy(good, other / "deep" / "linked.mp4")
    (folder / "a link").symlink_to(other)
    (folder / "second link").symlink_to(other)
    (folder / "circle").symlink_to(folder)
    (folder / "sub").mkdir()
    shutil.copy(good, folder / "sub" / "inner.mp4")
    (folder / "a sub").symlink_to(folder / "sub")  # sorts first, and yet changes no name
    found = find_clips(folder, results(folder))
    assert [clip.source for clip in found.clips] == [
        "a link/deep/linked.mp4", "good.mp4", "sub/inner.mp4",
    ]  # fmt: skip
    reasons = {one.source: one.reason for one in found.problems}
    assert reasons.keys() == {"a sub", "circle", "second link"}
    assert "it is a link once more" in reasons["second link"]
    assert "it is sub once more" in reasons["a sub"]


@posix
def test_what_cannot_be_looked_at_is_said_and_the_rest_encoded(
    folder: Path, vae: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.mp4").symlink_to(folder / "nothing.mp4")
    (folder / "round.mp4").symlink_to(folder / "round.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "locked").mkdir()
    listed = os.listdir

    def refusing(path):  # rights are not checked for whoever runs tests as root
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("os.listdir", refusing)
    assert encode(folder, vae) == 0
    reasons = skipped(folder)
    assert "leads nowhere" in reasons["broken.mp4"]
    assert "leads nowhere" in reasons["round.mp4"]
    assert "a pipe" in reasons["pipe.mp4"]
    assert reasons["locked"] == "the folder cannot be read: Permission denied."
    out = capsys.readouterr().out
    assert all(f"skipped: {source}: " in out for source in reasons)
    assert index(folder).keys() == {"good.mp4"}


def test_every_kind_of_file_that_encode_takes_is_a_clip(folder: Path, vae: Path, capsys) -> None:
    for suffix in ("mxf", "m2ts", "3gp", "nut", "vob", "asf", "mpeg", "F4V"):
        write_video(folder / "kind.mkv", moving_clip(5), Fraction(24))
        (folder / "kind.mkv").rename(folder / f"kind.{suffix}")
    frames = [Image.fromarray(frame) for frame in moving_clip(6)]
    for name in ("moving.webp", "moving.png", "moving.apng", "moving.gif"):
        frames[0].save(
            folder / name, save_all=True, append_images=frames[1:], duration=40, lossless=True
        )
    frames[0].save(folder / "still.png")
    frames[0].save(folder / "still.webp")
    (folder / "notes.json").write_text("{}")
    (folder / "README").write_text("of what this is")
    assert encode(folder, vae) == 0
    found = set(index(folder))
    assert {path.name for path in folder.iterdir() if path.stem in ("kind", "moving")} <= found
    assert len(found) == 13
    said = capsys.readouterr().out
    assert "left out: .json 1, .png 1, .webp 1, no suffix 1." in said


def test_a_folder_of_nothing_but_files_of_other_kinds_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_bytes(b"la")
    with pytest.raises(VideoError, match=r"holds no clips.* left out: \.mp3 1"):
        find_clips(tmp_path, tmp_path / "out")


@posix
def test_names_that_are_no_utf8_or_very_long_are_encoded_and_verified(
    folder: Path, vae: Path, good: Path, capsys
) -> None:
    odd = os.fsdecode(b"\xff\xfe.mp4")
    try:
        shutil.copy(good, folder / odd)
    except OSError:
        pytest.skip("this file system has no names that are no UTF-8")
    shutil.copy(good, folder / ("a" * 252 + ".ts"))
    make_pictures(folder / ("b" * 255))
    make_pictures(folder / os.fsdecode(b"pictures \xe9"))
    shutil.copy(good, folder / '"quoted.mp4')
    for _ in range(2):
        assert encode(folder, vae) == 0
    out = capsys.readouterr().out
    assert "6 clips encoded, 0 there before" in out
    assert "0 clips encoded, 6 there before" in out
    assert index(folder)[odd]["name"]
    assert main(["verify", str(results(folder)), "--vae", str(vae), "--decode", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.count(" dB (worst frame ") == 6
    said.encode()  # whoever reads it gets text


def test_clips_whose_names_would_be_the_same_get_different_ones(
    folder: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = find_clips(folder, results(folder)).clips[0].name
    monkeypatch.setattr(clips_module, "_NAME_DIGITS", (0, 16))  # of which two clips share any
    for name in ("猫.mp4", "犬.mp4"):
        shutil.copy(good, folder / name)
    names = [clip.name for clip in find_clips(folder, results(folder)).clips]
    assert len(set(names)) == 3
    assert before not in names


# What is said of clips


@pytest.mark.parametrize(
    "data",
    [
        "Zoë".encode("utf-8-sig"),
        "Zoë".encode(),
        "Zoë".encode("utf-16"),
        b"\xfe\xff" + "Zoë".encode("utf-16-be"),
        "Zoë".encode("utf-16-le"),
        "Zoë".encode("utf-16-be"),
        "Zoë".encode("utf-32"),
    ],
)
def test_captions_are_read_in_the_encoding_that_they_have(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert text_of(tmp_path / "a.txt") == "Zoë"


@pytest.mark.parametrize("data", ["Zoë".encode("latin-1"), b"\0\0\0\0", b"a\0\0b", b"\xff\xfea"])
def test_captions_that_are_no_text_are_not_guessed_at(
    folder: Path, vae: Path, capsys, data: bytes
) -> None:
    (folder / "good.txt").write_bytes(data)
    assert encode(folder, vae) == 0
    assert index(folder)["good.mp4"]["caption"] == ""
    assert "note: good.mp4 goes without its caption: good.txt is n" in capsys.readouterr().out


def test_a_caption_is_found_by_the_whole_name_of_its_clip(folder: Path, good: Path) -> None:
    for name in ("shot.01", "shot.02"):
        make_pictures(folder / name)
        (folder / f"{name}.txt").write_text(f"pictures of {name}")
    (folder / "shot.txt").write_text("of another shot")
    shutil.copy(good, folder / "cut.1.mp4")
    (folder / "cut.1.txt").write_text("cut one")
    shutil.copy(good, folder / "cut.2.mp4")
    (folder / "cut.2.mp4.txt").write_text("cut two")
    found = find_clips(folder, results(folder))
    assert {clip.source: clip.caption for clip in found.clips} == {
        "cut.1.mp4": "cut one",
        "cut.2.mp4": "cut two",
        "good.mp4": "",
        "shot.01": "pictures of shot.01",
        "shot.02": "pictures of shot.02",
    }
    assert found.remarks == ("files that are no clips by their suffix were left out: .txt 1.",)


def test_lists_of_captions_are_read_line_by_line_as_trainers_read_them(folder: Path) -> None:
    (folder / "videos.txt").write_bytes(b"\xef\xbb\xbf./good.mp4\r\nmore\\b.mp4\r\n\r\n")
    (folder / "prompts.txt").write_text("one\u2028line\nanother\n", encoding="utf-16")
    clips = find_clips(folder, results(folder)).clips
    assert [clip.caption for clip in clips] == ["one line"]
    (folder / "prompts.txt").write_text("one\nanother\nthird\n")
    with pytest.raises(VideoError, match="2 and 3"):
        find_clips(folder, results(folder))


# Whether latents are those of the clip


def stamped(path: Path, data: bytes) -> None:
    """Write `data` and keep the time that the file was written, as some tools do."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_clip_that_changed_at_the_same_size_is_encoded_again(
    folder: Path, vae: Path, capsys, keep_time: bool
) -> None:
    path = folder / "good.mp4"
    assert encode(folder, vae) == 0
    before = index(folder)["good.mp4"]
    changed = bytearray(path.read_bytes())
    changed[-300] ^= 255
    if keep_time:
        stamped(path, bytes(changed))
    else:
        path.write_bytes(changed)
    capsys.readouterr()
    assert encode(folder, vae) == 0
    assert "1 clips encoded, 0 there before" in capsys.readouterr().out
    after = index(folder)["good.mp4"]
    assert after["size_bytes"] == before["size_bytes"]
    assert after["content"] != before["content"]


def test_a_copied_folder_is_not_encoded_again(folder: Path, vae: Path, capsys) -> None:
    make_pictures(folder / "pictures")
    assert encode(folder, vae) == 0
    for path in [folder / "good.mp4", *(folder / "pictures").iterdir()]:
        os.utime(path, ns=(1, 1))
    (results(folder) / ".stamps.json").write_text("[nonsense")
    capsys.readouterr()
    assert encode(folder, vae) == 0
    assert "0 clips encoded, 2 there before" in capsys.readouterr().out


def test_a_picture_that_changes_in_a_folder_is_noticed(folder: Path, vae: Path, capsys) -> None:
    pictures = make_pictures(folder / "pictures")
    assert encode(folder, vae) == 0
    (pictures / "0.png").rename(pictures / "x")
    (pictures / "1.png").rename(pictures / "0.png")
    (pictures / "x").rename(pictures / "1.png")
    capsys.readouterr()
    assert encode(folder, vae) == 0
    assert "1 clips encoded, 1 there before" in capsys.readouterr().out


def of_old(folder: Path) -> None:
    """Make the results what they were before contents and notes were kept."""
    (results(folder) / ".stamps.json").unlink()
    for path in (results(folder) / "video_latents").iterdir():
        with safe_open(path, framework="pt") as file:
            said = file.metadata()
        del said["content"], said["notes"]
        save_file(load_file(path), path, said)
    recipe = json.loads((results(folder) / "dataset.json").read_text())
    recipe["format"] = "exact-video-vae dataset 1, laid out as cogvideox-factory's"
    (results(folder) / "dataset.json").write_text(json.dumps(recipe))
    lines = [dict(line) for line in index(folder).values()]
    for line in lines:
        del line["content"], line["notes"]
    (results(folder) / "index.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))


def test_folders_of_old_go_on_and_are_verified(folder: Path, vae: Path, capsys) -> None:
    assert encode(folder, vae) == 0
    of_old(folder)
    assert main(["verify", str(results(folder))]) == 0
    capsys.readouterr()
    assert encode(folder, vae) == 0
    assert "0 clips encoded, 1 there before" in capsys.readouterr().out
    later = (folder / "good.mp4").stat().st_mtime_ns + 10**12
    os.utime(folder / "good.mp4", ns=(later, later))
    assert encode(folder, vae) == 0
    assert "1 clips encoded, 0 there before" in capsys.readouterr().out


# Which frames are taken
