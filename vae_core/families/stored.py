"""Which tensors does a file of weights hold: under which names, in which shapes and dtypes?

1. Look at the first bytes, whatever the name says, and refuse what is no file of weights.
2. Read names, shapes and dtypes; each tensor is read when it is asked for, once.

Nothing that a file says is run: pickles are read with `weights_only`.
"""

from __future__ import annotations

import functools
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from ..errors import LoadError
from . import identify
from .keys import EXPECTED, listed

AGAIN = "Download it again."
DTYPES = ("bfloat16", "float16", "float32", "float64")
FP8 = ("float8_e4m3fn", "float8_e5m2")
_LARGEST_HEADER_BYTES = 100_000_000  # the limit that the safetensors format sets
_NESTS = ("state_dict", "module", "model", "vae")  # the keys under which trainers keep weights
_SAFETENSORS = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")
_SAFETENSORS_DTYPES: dict[str, str] = dict(zip(_SAFETENSORS, DTYPES + FP8, strict=True))


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that is still in its file.

    shape: its extents. dtype: torch's name for it. read: gives the tensor on the CPU, once.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], torch.Tensor]


def contents_of(paths: Sequence[Path], stack: ExitStack) -> dict[str, Stored]:
    """What every tensor in the files is; they stay open for as long as `stack` does."""
    contents: dict[str, Stored] = {}
    for path in paths:
        with path.open("rb") as file:
            head = file.read(512)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER_BYTES:
            contents |= _safetensors(path, stack)
        elif head.startswith(b"PK\x03\x04"):
            contents |= _zipped_checkpoint(path)
        elif head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):  # pickle's PROTO
            contents |= _checkpoint(path, mapped=False)
        elif not head:
            raise LoadError(f"it is empty (0 bytes). {AGAIN}")
        else:
            words = identify.bytes_look_like(head)
            raise LoadError(f"it holds no weights, but is {words}. {EXPECTED}")
    if not contents:
        raise LoadError(f"it holds no tensors. {EXPECTED}")
    return contents


def metadata_of(paths: Sequence[Path]) -> dict[str, str]:
    """What the files say beside their tensors; nothing where they are no safetensors."""
    found: dict[str, str] = {}
    for path in paths:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":
            with cast("Any", safe_open(str(path), framework="pt")) as file:
                found |= file.metadata() or {}
    return found


def _safetensors(path: Path, stack: ExitStack) -> dict[str, Stored]:
    try:
        file: Any = stack.enter_context(cast("Any", safe_open(str(path), framework="pt")))
    except SafetensorError as error:
        raise LoadError(_damage(path, error)) from error

    def stored(name: str) -> Stored:
        part = file.get_slice(name)
        kind: str = part.get_dtype()
        dtype = _SAFETENSORS_DTYPES.get(kind, kind)
        return Stored(tuple(part.get_shape()), dtype, lambda: file.get_tensor(name))

    return {name: stored(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)


def _damage(path: Path, error: Exception) -> str:
    """Why a safetensors file cannot be opened, with both sizes where it was cut short."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        expected_bytes = 8 + int.from_bytes(file.read(8), "little")
        header = file.read(min(expected_bytes - 8, size_bytes))
    expected_bytes += identify.safetensors_data_bytes(header)
    if size_bytes >= expected_bytes:
        return f"its safetensors header is damaged ({line_of(error)}). {AGAIN}"
    return (
        f"it is cut short: its safetensors header asks for at least {expected_bytes} bytes, and the"
        f" file has {size_bytes}. {AGAIN}"
    )


def _zipped_checkpoint(path: Path) -> dict[str, Stored]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise LoadError(
            f"it is cut short: its {path.stat().st_size} bytes begin as a torch checkpoint, but do"
            f" not reach the list of contents at its end. {AGAIN}"
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise LoadError(f"it is a TorchScript program, which is code. {EXPECTED}")
    if not any(name.endswith("/data.pkl") for name in names):
        raise LoadError(f"it is a zip archive of {listed(names)}, no weights. {EXPECTED}")
    # torch takes an open file, which it cannot map, for what it is, but goes by this suffix else.
    return _checkpoint(path, mapped=path.suffix != ".safetensors")


def _checkpoint(path: Path, mapped: bool) -> dict[str, Stored]:
    opened = nullcontext(str(path)) if mapped else path.open("rb")
    try:
        with opened as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickle protocols that it then reads
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise LoadError(
            f"it is refused: it asks for more than tensors ({name[1] if name else 'objects'}), so"
            " opening it could run code. Get the .safetensors version, or, where you trust it, save"
            " its tensors alone."
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
        what = f"{type(error).__name__}: {line_of(error)}"
        raise LoadError(f"it is a damaged torch checkpoint ({what}). {AGAIN}") from error
    tensors = _tensors_in(loaded)
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return {
        name: Stored(tuple(tensor.shape), dtypes[name], functools.partial(tensors.pop, name))
        for name, tensor in tensors.items()
    }


def _tensors_in(loaded: object, depth: int = 4) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint, out of the dictionaries that trainers wrap around them."""
    if not isinstance(loaded, Mapping):
        raise LoadError(f"it holds a {type(loaded).__name__}, no tensors by name. {EXPECTED}")
    items = cast("Mapping[str, Any]", loaded)
    inner = next((items[key] for key in _NESTS if isinstance(items.get(key), Mapping)), None)
    if inner is not None and depth:
        return _tensors_in(inner, depth - 1)
    return {str(key): value for key, value in items.items() if isinstance(value, torch.Tensor)}


def line_of(error: BaseException) -> str:
    """The first line of an error's message; torch's go on for screens."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
