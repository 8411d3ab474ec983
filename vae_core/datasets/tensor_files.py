"""In which kind of file does the tensor of one clip lie, with what is known of it beside it?

1. `Safetensors`: the tensor under the word for what it is, and strings as the file's metadata. This
   is our own way; a file can be read by anybody and runs nothing.
2. `TorchFile`: a tensor as `torch.save` leaves it, for trainers that load nothing else. The file is
   a zip archive; the strings lie in it as one more member, which `torch.load` never looks at.

The same tensor and words make the same bytes. A file that is not whole has no words.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import VideoError
from ..media.files import whole_file
from ..media.latent_stream import safetensors_header

_MEMBER = "archive/exact_video_vae.json"  # beside what torch.save has put there
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The date of a member: the earliest that zip archives know, so that bytes do not depend on it."""


class TensorFiles(Protocol):
    """A kind of file that holds one tensor and some words.

    suffix: of its names, with the dot.
    """

    @property
    def suffix(self) -> str: ...

    def save(self, path: Path, kind: str, tensor: Tensor, said: Mapping[str, str]) -> None:
        """Write a file, whole or not at all. kind: what the tensor is. Raises `VideoError`."""
        ...

    def said(self, path: Path) -> dict[str, str] | None:
        """What was said with the tensor; None where there is no whole file of this kind."""
        ...

    def tensor(self, path: Path, kind: str) -> Tensor:
        """The tensor. Raises `VideoError` where it cannot be read."""
        ...


class Safetensors:
    """See the module's words."""

    suffix = ".safetensors"

    def save(self, path: Path, kind: str, tensor: Tensor, said: Mapping[str, str]) -> None:
        """See `TensorFiles`."""
        stored = tensor.detach().to("cpu").contiguous()
        data = stored.view(torch.uint8).numpy().data
        with whole_file(path) as part, part.open("wb") as file:
            file.write(safetensors_header({kind: tensor.shape}, said, tensor.dtype))
            file.write(data)

    def said(self, path: Path) -> dict[str, str] | None:
        """See `TensorFiles`."""
        try:
            with cast("Any", safe_open)(path, framework="pt") as file:
                return file.metadata() or {}
        except (SafetensorError, OSError, ValueError):
            return None

    def tensor(self, path: Path, kind: str) -> Tensor:
        """See `TensorFiles`."""
        try:
            with cast("Any", safe_open)(path, framework="pt") as file:
                return file.get_tensor(kind)
        except (SafetensorError, OSError, ValueError) as error:
            raise VideoError(f"{path} cannot be read: {error}.") from error


class TorchFile:
    """See the module's words."""

    suffix = ".pt"

    def save(self, path: Path, kind: str, tensor: Tensor, said: Mapping[str, str]) -> None:
        """See `TensorFiles`."""
        buffer = io.BytesIO()  # torch.save would put a file's temporary name into the file
        torch.save(tensor.detach().to("cpu", copy=True).contiguous(), buffer)
        with zipfile.ZipFile(buffer, "a") as archive:
            member = zipfile.ZipInfo(_MEMBER, _LONG_AGO)
            archive.writestr(member, json.dumps(dict(sorted(said.items()))))
        with whole_file(path) as part:
            part.write_bytes(buffer.getbuffer())

    def said(self, path: Path) -> dict[str, str] | None:
        """See `TensorFiles`."""
        try:
            with zipfile.ZipFile(path) as archive:
                words: Any = json.loads(archive.read(_MEMBER))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError):
            return None
        pairs = cast("dict[Any, Any]", words).items() if isinstance(words, dict) else ()
        return {str(key): str(value) for key, value in pairs}

    def tensor(self, path: Path, kind: str) -> Tensor:
        """See `TensorFiles`."""
        try:
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling raises all kinds of things over damaged files
            said = str(error).partition("\n")[0]
            raise VideoError(f"{path} cannot be read: {said}.") from error
        if not isinstance(loaded, Tensor):
            raise VideoError(f"{path} holds no tensor, but {type(loaded).__name__}.")
        return loaded
