"""Which frames of a clip does a folder of latents hold, and what does one bad file do to a run?"""

from __future__ import annotations

import stat
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest
import torch
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
from vae_core.datasets.buckets import spread
from vae_core.media.video import read_video
from vae_core.media.video_writing import write_video


@pytest.mark.parametrize("wanted", [1, 2, 5, 49])
@pytest.mark.parametrize("count", [49, 50, 60, 97, 98, 145, 1000])
def test_frames_that_are_spread_reach_from_first_to_last_in_even_steps(
    count: int, wanted: int
) -> None:
    indices = spread(count, wanted)
    assert len(indices) == wanted
    if wanted == 1:
        assert abs(2 * indices[0] - (count - 1)) <= 1
        return
    assert (indices[0], indices[-1]) == (0, count - 1)
    steps = {after - before for before, after in pairwise(indices)}
    assert max(steps) - min(steps) <= 1


def test_spread_frames_are_those_of_the_whole_clip_at_their_rate(tmp_path: Path, vae: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    video = moving_clip(97)
    write_video(folder / "long.mp4", video, Fraction(24))
    chosen = read_video(folder / "long.mp4").frames[::2]
    whole = make_pictures(folder / "same", 0)
    for number, frame in enumerate(chosen):
        Image.fromarray(frame).save(whole / f"{number}.png")
    sizes = ("--bucket", "49x32x48", "--frames", "spread")
    assert encode(folder, vae, sizes=sizes) == 0
    lines = index(folder)
    stored = [load_file(results(folder) / line["file"])["moments"] for line in lines.values()]
    assert torch.equal(stored[0], stored[1])
    assert lines["long.mp4"]["fps"] == "12"


def with_edit_list(path: Path, frames: int) -> Path:
    """Cut an mp4 file to its first frames, by its edit list alone."""
    data = bytearray(path.read_bytes())
    at = data.find(b"elst") + 4
    assert at > 3, "the muxer wrote no edit list"
    old = int.from_bytes(data[at + 8 : at + 12], "big")  # duration, in the movie's clock
    with av.open(str(path)) as container:
        count = container.streams.video[0].frames
    data[at + 8 : at + 12] = (old * frames // count).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["first", "spread"])
def test_a_clip_that_an_edit_list_cuts_fills_the_bucket_that_it_can(
    tmp_path: Path, vae: Path, how: str
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "cut.mp4", moving_clip(24), Fraction(24))
    with_edit_list(folder / "cut.mp4", 11)
    shown = len(read_video(folder / "cut.mp4").frames)
    assert 9 <= shown < 17
    sizes = ("--bucket", "17x32x48", "--bucket", "9x32x48", "--frames", how)
    assert encode(folder, vae, sizes=sizes) == 0
    assert index(folder)["cut.mp4"]["frames"] == 9
    assert "cut.mp4" not in skipped(folder)


def interlaced(path: Path) -> None:
    """A clip whose frames are of two fields each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=24, options={"flags": "+ilme+ildct"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in moving_clip(6):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_what_a_player_would_show_otherwise_is_noted_in_the_index_and_said(
    folder: Path, vae: Path, capsys
) -> None:
    for name in ("fields.mpg", "more fields.mpg"):
        interlaced(folder / name)
    (note,) = read_video(folder / "fields.mpg").notes
    assert "interlaced" in note
    for _ in range(2):  # kept in the clips' files, so that a second run knows
        assert encode(folder, vae) == 0
        assert index(folder)["fields.mpg"]["notes"] == [note]
        assert index(folder)["good.mp4"]["notes"] == []
        assert f"note: fields.mpg and 1 more: {note}" in capsys.readouterr().out
    assert main(["verify", str(results(folder))]) == 0


# What is damaged among the results


@pytest.mark.parametrize("text", ["", "[]", "5", "nonsense", "\xff", "[" * 100000])
def test_a_damaged_recipe_is_refused_in_a_sentence_and_nothing_is_touched(
    folder: Path, vae: Path, capsys, text: str
) -> None:
    assert encode(folder, vae) == 0
    (results(folder) / "dataset.json").write_text(text, encoding="latin-1")
    files = {path: path.read_bytes() for path in results(folder).rglob("*") if path.is_file()}
    capsys.readouterr()
    assert encode(folder, vae) == 2
    assert main(["verify", str(results(folder))]) == 2
    said = capsys.readouterr()
    assert said.err.count("error: ") == 2
    assert "dataset.json" in said.err
    assert files == {p: p.read_bytes() for p in results(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "line",
    [
        b"[]", b"5", b"nonsense", b"\xff\xfe", b"{}", b'{"name": []}', b'{"name": "a\\u0000b"}',
        b'{"name": "../../dataset"}', b'{"name": "\\ud800", "source": []}', b"[" * 100000,
    ],
)  # fmt: skip
def test_one_bad_line_of_the_index_does_not_end_a_verification(
    folder: Path, vae: Path, capsys, line: bytes
) -> None:
    assert encode(folder, vae) == 0
    with (results(folder) / "index.jsonl").open("ab") as file:
        file.write(line + b"\n")
    capsys.readouterr()
    assert main(["verify", str(results(folder)), "--vae", str(vae), "--decode", str(folder)]) == 2
    said = capsys.readouterr()
    assert "1 of 2 clips" in said.err
    assert "good.mp4: " in said.out  # the other one was compared


@pytest.mark.parametrize(
    "change",
    [{"frames": '"many"'}, {"frames": "-3"}, {"shape": "5"}, {"shape": '["a"]'}, {"kind": "means"}],
    ids=str,
)
def test_a_clip_whose_file_does_not_say_what_we_write_is_encoded_again(
    folder: Path, vae: Path, capsys, change: dict[str, str]
) -> None:
    assert encode(folder, vae) == 0
    path = results(folder) / index(folder)["good.mp4"]["file"]
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    save_file(load_file(path), path, said | change)
    capsys.readouterr()
    assert main(["verify", str(results(folder))]) == 2
    assert encode(folder, vae) == 0
    assert "1 clips encoded, 0 there before" in capsys.readouterr().out
    assert main(["verify", str(results(folder))]) == 0


def test_results_that_cannot_be_written_to_end_in_a_sentence(
    folder: Path, vae: Path, capsys
) -> None:
    assert encode(folder, vae) == 0
    (results(folder) / ".lock").unlink()
    (results(folder) / ".lock").mkdir()
    assert encode(folder, vae) == 2
    assert "cannot write to" in capsys.readouterr().err
    assert stat.S_ISDIR((results(folder) / ".lock").stat().st_mode)
