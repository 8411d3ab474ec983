"""Does reading damaged files end: with frames, or with a sentence, but always?

Damage runs in a process of its own, which can be ended where a decoder stands still: threads that
wait inside of FFmpeg hear no signal.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from recordings import Recording, record

from vae_core.cli import main
from vae_core.errors import VideoError
from vae_core.media.audio import AudioTrack, check_sound
from vae_core.media.video import Selection, open_video

ROOT = Path(__file__).resolve().parent.parent
BOUND_SECONDS = 300
"""Far beyond what hundreds of tiny files take on a busy machine: it ends what would never end."""

KINDS = {
    "h264.mp4": Recording(12, sound_late=0.0, tone=0.0),
    "h265.mp4": Recording(12, codec="libx265"),
    "h264.mkv": Recording(12, sound_late=0.0, tone=0.0),
    "h264.ts": Recording(12, sound_late=0.0, tone=0.0),
    "h265.ts": Recording(12, codec="libx265"),
    "mpeg2.mpg": Recording(12, codec="mpeg2video", sound_late=0.0, sound_codec="mp2", tone=0.0),
    "mpeg4.avi": Recording(12, codec="mpeg4"),
    "h264.flv": Recording(12),
    "vp9.webm": Recording(12, codec="libvpx-vp9"),
}
ROUNDS = 15


def damaged(whole: bytes, seed: int) -> bytes:
    """A few bytes of it are others, or its end is missing, or both."""
    chance = np.random.default_rng(seed)
    data = bytearray(whole)
    for at in chance.integers(0, len(data), chance.choice((0, 1, 3, 30), p=(0.1, 0.4, 0.3, 0.2))):
        data[at] = chance.integers(0, 256)
    stop = chance.integers(1, len(data)) if chance.random() < 0.3 else len(data)
    return bytes(data[:stop])


def read_all(data: bytes) -> None:
    """Every frame from the start, frames from the middle at another rate, and the sound."""
    for selection in (Selection(), Selection(start_seconds=1.0, fps=5, max_frames=9)):
        with suppress(VideoError), open_video(io.BytesIO(data), selection) as video:
            for frame in video:
                assert frame.shape[2] == 3
            assert all(video.notes)
    with suppress(VideoError):
        check_sound(AudioTrack(io.BytesIO(data)), ".mkv")


def read_damaged(path: Path, rounds: int) -> None:
    """What the process does; it says which one it is at, for when that does not end."""
    whole = path.read_bytes()
    for seed in range(rounds):
        sys.stderr.write(f"\n{path.name}, seed {seed}\n")
        sys.stderr.flush()
        read_all(damaged(whole, seed))


def test_reading_damaged_files_ends(tmp_path: Path) -> None:
    for name, what in KINDS.items():
        record(tmp_path / name, what)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(tmp_path), str(ROUNDS)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
        timeout=BOUND_SECONDS,
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode(errors="replace")[-2000:]


if __name__ == "__main__":
    # One byte of a frame's header is another: with whole frames decoded in threads, each of them
    # waits for one that does not come.
    bad = ROOT / "tests" / "files" / "hevc_one_bad_byte.mp4"
    read_all(bad.read_bytes())
    assert main(["encode", str(bad), "-o", f"{sys.argv[1]}.latent", "--quiet"]) == 0
    for one in sorted(Path(sys.argv[1]).iterdir()):
        read_damaged(one, int(sys.argv[2]))
