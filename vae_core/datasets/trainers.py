"""Which files does a trainer load, where it loads others than ours?

cogvideox-factory (`training/cogvideox/dataset.py` there, at commit 223add1, with `--load_tensors`):
1. It reads `videos.txt` and `prompts.txt`, leaving out empty lines; so every clip needs a caption.
2. Of each video's name it takes what stands before the first dot, and loads that name from two
   folders by `torch.load`: `video_latents/NAME.pt`, the moments [2c, n, h/8, w/8], of which it
   draws a sample and which it scales itself; and `prompt_embeds/NAME.pt`, what the text encoder
   makes of the caption, [tokens, width]. Other files it does not know.
3. It sorts clips by their size in buckets, which have to be named to it, and counts the frames of
   an even number of latent frames in its own way.

The lists and the moments are `shards.py`'s, with another kind of file; the text is encoded here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingsError, VideoError
from .buckets import Bucket
from .clips import SourceClip
from .shards import FORMAT, PROMPTS, SAFETENSORS, VIDEOS, Entry, Shards, Skipped
from .tensor_files import TensorFiles, TorchFile

OURS, FACTORY = "exact-video-vae", "cogvideox-factory"
FORMATS = (OURS, FACTORY)
EMBEDS = "prompt_embeds"

_FACTORY_FORMAT = f"{FORMAT}, for {FACTORY}"
_TORCH_FILE: TensorFiles = TorchFile()
_TOKENS = 226
"""Tokens that CogVideoX's text encoder is given, as cogvideox-factory's own preparation does."""

TextEncoder = Callable[[str], Tensor]
"""A caption to [tokens, width]."""


def format_of(name: str) -> str:
    """What a recipe calls the format of that name."""
    return _FACTORY_FORMAT if name == FACTORY else FORMAT


def shards_for(folder: Path, recipe_format: object) -> Shards:
    """The folder of results whose recipe names that format."""
    return Shards(folder, _TORCH_FILE if recipe_format == _FACTORY_FORMAT else SAFETENSORS)


def with_captions(clips: Iterable[SourceClip]) -> tuple[list[SourceClip], list[Skipped]]:
    """The clips that cogvideox-factory can take, and the others."""
    kept: list[SourceClip] = []
    without: list[Skipped] = []
    for clip in clips:
        if clip.caption:
            kept.append(clip)
        else:
            without.append(
                Skipped(clip.source, f"it has no caption, without which {FACTORY} stops.")
            )
    return kept, without


@dataclass(frozen=True, slots=True)
class TextModel:
    """A model's folder with a tokenizer and a text encoder in it, as diffusers' models are.

    Raises `SettingsError` unless both are there, and can be loaded here.
    """

    folder: Path

    def __post_init__(self) -> None:
        for part in ("tokenizer", "text_encoder"):
            if not (self.folder / part).is_dir():
                raise SettingsError(
                    f"--text-encoder takes the folder of a CogVideoX model, with tokenizer and"
                    f" text_encoder in it; {self.folder} has no {part}."
                )
        _transformers()

    def digest(self) -> str:
        """What tells this model from others, by its files' names and sizes and its small files."""
        digest = hashlib.sha256()
        for part in ("tokenizer", "text_encoder"):
            for path in sorted((self.folder / part).iterdir()):
                if path.is_file():
                    digest.update(f"{part}/{path.name} {path.stat().st_size}\n".encode())
                    digest.update(path.read_bytes() if path.suffix == ".json" else b"")
        return digest.hexdigest()[:16]

    def load(self, dtype: torch.dtype, device: str) -> TextEncoder:
        """The text encoder. Raises `SettingsError` where it cannot be loaded."""
        library = _transformers()
        try:
            tokenizer = library.AutoTokenizer.from_pretrained(self.folder / "tokenizer")
            encoder = library.T5EncoderModel.from_pretrained(self.folder / "text_encoder")
        except Exception as error:  # the library raises all kinds of things over wrong files
            said = str(error).strip().partition("\n")[0]
            raise SettingsError(
                f"{self.folder} has no text encoder of T5's kind: {said}"
            ) from error
        encoder = encoder.to(device, dtype).eval()

        def encode(caption: str) -> Tensor:
            tokens = tokenizer(
                [caption],
                padding="max_length",
                max_length=_TOKENS,
                truncation=True,
                add_special_tokens=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                return encoder(tokens.input_ids.to(device))[0][0]

        return encode


def _transformers() -> Any:
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(
            f"--format {FACTORY} needs transformers, which is not installed:"
            " pip install exact-video-vae[text]"
        ) from None
    return transformers  # pyright: ignore[reportUnknownVariableType]


def write_embeds(
    folder: Path, entries: Iterable[Entry], digest: str, load: Callable[[], TextEncoder]
) -> int:
    """Write what the text encoder makes of every caption that has no such file yet; how many.

    digest: the model's. load: gives the text encoder, where one is needed. Raises `VideoError`.
    """
    at = folder / EMBEDS
    try:
        at.mkdir(exist_ok=True)
    except OSError as error:
        raise VideoError(f"cannot create {at}: {error.strerror}.") from error
    words = {one.name: {"caption": one.caption, "text_encoder": digest} for one in entries}
    paths = {name: at / f"{name}{_TORCH_FILE.suffix}" for name in words}
    to_do = [name for name, said in words.items() if _TORCH_FILE.said(paths[name]) != said]
    if not to_do:
        return 0
    encode = load()
    for name in to_do:
        embeds = encode(words[name]["caption"])
        _TORCH_FILE.save(paths[name], "embeds", embeds, words[name])
    return len(to_do)


def options_for(buckets: Iterable[Bucket]) -> str:
    """What cogvideox-factory has to be told, so that it loads clips of these sizes."""

    def said(name: str, sides: set[int]) -> str:
        return f" --{name}_buckets " + " ".join(map(str, sorted(sides)))

    buckets = tuple(buckets)
    return (
        f"--load_tensors --caption_column {PROMPTS} --video_column {VIDEOS}"
        + said("frame", {_its_frames(bucket) for bucket in buckets})
        + said("height", {bucket.height_px for bucket in buckets})
        + said("width", {bucket.width_px for bucket in buckets})
    )


def _its_frames(bucket: Bucket) -> int:
    """How many frames cogvideox-factory takes a clip to have: four for every latent frame, where
    their number is even.
    """
    latent = bucket.frames // 4 + 1
    return bucket.frames if latent % 2 else 4 * latent
