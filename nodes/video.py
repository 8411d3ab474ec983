"""Nodes between video files and latents, in memory that does not grow with the clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .bridge import host
from .bridge.widgets import CATEGORY, FIT_WIDGETS, POSTERIOR, RUN_WIDGETS, SAMPLE_SEED
from .encode import ExactVAEEncodeTiled

CONNECTED = "the connected video"
SHIPPED = "big_buck_bunny.mp4 (ships with this pack, for trying out)"


def _path(file: str) -> Path | None:
    """Where the video lies that a person chose; None where one is connected, or lies outside."""
    if file == SHIPPED:
        return Path(__file__).resolve().parent.parent / "assets" / "clips" / "big_buck_bunny.mp4"
    return None if file == CONNECTED else host.input_path(file)


class ExactVAEEncodeVideo:
    """Encode a video file without loading it."""

    DESCRIPTION = (
        "Encodes a video file, or what a Load Video node gives, straight into latents:"
        " frames are read, resized and encoded a few at a time, so that memory stays the same for"
        " every length."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT", "FLOAT", "STRING")
    RETURN_NAMES = ("latent", "fps", "report")
    OUTPUT_TOOLTIPS = (
        "Unscaled latents.",
        "Frames a second of what was encoded.",
        "What was planned, used, left out and padded.",
    )
    FUNCTION = "encode"
    SEARCH_ALIASES = ("video to latent", "encode video file", "load video latent")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        side = {"default": 0, "min": 0, "max": 16384, "step": 8}
        count = {"default": 0, "min": 0, "max": 1_000_000}
        return {
            "required": {
                "vae": ("VAE", {"tooltip": "A VAE that Exact VAE Loader knows, from any loader."}),
                "file": (
                    [CONNECTED, *host.input_videos(), SHIPPED],
                    {
                        "tooltip": "A video in the input folder, where no video is connected. The"
                        " last one ships with this pack: two seconds of Big Buck Bunny, (c)"
                        " Blender Foundation, CC BY 3.0."
                    },
                ),
                "skip": ("INT", {**count, "tooltip": "Frames to leave out at the start."}),
                "count": ("INT", {**count, "tooltip": "Frames to take at most; 0 takes all."}),
                "stride": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 1000,
                        "advanced": True,
                        "tooltip": "2 takes every other frame, and so on.",
                    },
                ),
                "target_fps": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 240.0,
                        "step": 1.0,
                        "round": 0.001,
                        "tooltip": "Frames a second to take, by their time stamps, before skip and"
                        " count; 0 takes every frame. CogVideoX was made with 8, its 1.5 and Wan"
                        " with 16.",
                    },
                ),
                "width": ("INT", {**side, "tooltip": "To resize to; 0 keeps the video's own."}),
                "height": ("INT", {**side, "tooltip": "To resize to; 0 keeps the video's own."}),
                "framing": (
                    ["cover", "contain", "stretch", "crop"],
                    {
                        "tooltip": "How the picture gets that size. cover: scaled, the rest cut"
                        " off. contain: scaled, with black bars. stretch: scaled out of"
                        " proportion. crop: cut from the middle, unscaled."
                    },
                ),
                **RUN_WIDGETS,
                **FIT_WIDGETS,
                "posterior": POSTERIOR,
                "sample_seed": SAMPLE_SEED,
            },
            "optional": {
                "video": ("VIDEO", {"tooltip": "A video; it is read as it is needed."}),
            },
            "hidden": {"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    VALIDATE_INPUTS = ExactVAEEncodeTiled.VALIDATE_INPUTS

    @classmethod
    def IS_CHANGED(cls, file: str, **_: Any) -> str:
        """A file that was replaced is encoded again."""
        path = _path(file)
        stat = path.stat() if path and path.is_file() else None
        return f"{file} {stat.st_size}:{stat.st_mtime_ns}" if stat else file

    def encode(
        self, vae: Any, file: str, video: Any = None, unique_id: str | None = None, **values: Any
    ) -> Any:
        """LATENT, rate and report of a video."""
        from .bridge.streaming import encode_file, video_source

        return encode_file(vae, video_source(file, _path(file), video), values, unique_id)


class ExactVAEDecodeVideo:
    """Decode latents straight into a video file."""

    DESCRIPTION = (
        "Decodes latents into a video file in the output folder, a few frames at a time,"
        " so that memory stays the same for every length. The workflow is stored in the file."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("VIDEO", "STRING")
    RETURN_NAMES = ("video", "report")
    OUTPUT_TOOLTIPS = ("The saved video.", "What was planned, used and written.")
    FUNCTION = "decode"
    OUTPUT_NODE = True
    SEARCH_ALIASES = ("latent to video file", "save video", "decode video")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        return {
            "required": {
                "samples": (
                    "LATENT",
                    {"tooltip": "Latents of one clip, core's or those of kijai's wrappers."},
                ),
                "vae": ("VAE", {"tooltip": "A VAE that Exact VAE Loader knows, from any loader."}),
                "fps": (
                    "FLOAT",
                    {
                        "default": 8.0,
                        "min": 0.1,
                        "max": 240.0,
                        "step": 1.0,
                        "round": 0.001,
                        "tooltip": "Frames a second. CogVideoX was made with 8, its 1.5 and Wan"
                        " with 16.",
                    },
                ),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "video/ExactVAE",
                        "tooltip": "Folder and beginning of the file's name in the output folder;"
                        " %date:yyyy-MM-dd% and the like are filled in.",
                    },
                ),
                "codec": (
                    ["h264", "h265", "av1", "vp9", "prores"],
                    {
                        "tooltip": "h264 plays everywhere. vp9 is written as .webm, prores as .mov,"
                        " the others as .mp4."
                    },
                ),
                "quality": (
                    ["high", "best", "good", "small"],
                    {"tooltip": "How much of the picture the video file keeps."},
                ),
                **RUN_WIDGETS,
            },
            "hidden": {
                "unique_id": "UNIQUE_ID",
                "prompt": "PROMPT",
                "extra_pnginfo": "EXTRA_PNGINFO",
            },
        }

    VALIDATE_INPUTS = ExactVAEEncodeTiled.VALIDATE_INPUTS

    def decode(self, samples: Any, vae: Any, unique_id: str | None = None, **values: Any) -> Any:
        """VIDEO and report of a LATENT; the file is complete when this returns."""
        from .bridge.streaming import decode_file

        return decode_file(vae, samples, values, unique_id)
