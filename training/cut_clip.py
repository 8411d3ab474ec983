"""How was the clip in ``assets/clips`` cut from its source?

Steps:

1. Take ``--frames`` frames from ``--start`` on and crop them to ``--box``.
2. Scale to ``--size`` by Lanczos in RGB.  High-definition H.264 without tags is BT.709, limited
   range, by convention; the RGB frames are read and written as that.
3. Encode H.264 (yuv420p) at the source's rate with the tags written out.

The module does not choose the scene and carries no sound.
"""

import argparse
from itertools import islice
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

# Code points of BT.709 for matrix, primaries and transfer in ITU-T H.273.
BT709 = 1
LIMITED = 1


def read_frames(path: Path, start: int, count: int) -> tuple[list[Image.Image], object]:
    """Return RGB frames and the source's frame rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        chosen = islice(container.decode(stream), start, start + count)
        frames = [
            Image.fromarray(
                frame.to_ndarray(
                    format="rgb24",
                    src_colorspace=Colorspace.ITU709,
                    src_color_range=ColorRange.MPEG,
                    dst_color_range=ColorRange.JPEG,
                    interpolation=Interpolation.LANCZOS,
                )
            )
            for frame in chosen
        ]
        return frames, stream.average_rate


def write_clip(path: Path, frames: list[Image.Image], rate: object, crf: int) -> None:
    """Encode the frames as H.264, BT.709, limited range."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryslow"}
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = BT709, BT709, BT709
        context.color_range = LIMITED
        for image in frames:
            frame = av.VideoFrame.from_image(image).reformat(
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.LANCZOS,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    """Cut from the command line."""
    parser = argparse.ArgumentParser(description="Cut the evaluation clip.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--box", type=int, nargs=4, default=(40, 110, 760, 518))
    parser.add_argument("--size", type=int, nargs=2, default=(480, 272))
    parser.add_argument("--crf", type=int, default=16)
    arguments = parser.parse_args()
    frames, rate = read_frames(arguments.source, arguments.start, arguments.frames)
    size, box = tuple(arguments.size), tuple(arguments.box)
    scaled = [frame.resize(size, Image.Resampling.LANCZOS, box=box) for frame in frames]
    write_clip(arguments.target, scaled, rate, arguments.crf)


if __name__ == "__main__":
    main()
