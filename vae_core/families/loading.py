"""Which module does this file hold?

1. Find the files: one file, the shards of one, or a diffusers folder (or a pipeline's root).
2. Look at the first bytes, whatever the name says, and refuse what is no file of weights.
3. Read names, shapes and dtypes, no tensor yet, and ask `identify` which network they are.
4. Build that network on the `meta` device, without memory, and compare every name and shape.
5. Read, cast and check one tensor at a time: one copy of the weights, and one tensor.

Nothing that a file says is run: pickles are read with `weights_only`. It fetches nothing, and does
not judge whether the engine can run the network; lowering does. diffusers is imported when a module
is built, not before.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import math
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

from ..errors import LoadError, SettingsError
from . import identify
from .identify import EXPECTED, Architecture, architecture_of_state, listed

__all__ = ["Architecture", "LoadedModule", "architecture_of_state", "load_module"]
_log = logging.getLogger("vae_core")

_STEM = "diffusion_pytorch_model"
_AGAIN = "Download it again."
_LARGEST_HEADER_BYTES = 100_000_000  # the limit that the safetensors format sets
_NESTS = ("state_dict", "module", "model", "vae")  # the keys under which trainers keep weights
_DTYPES = ("bfloat16", "float16", "float32", "float64")
_FP8 = ("float8_e4m3fn", "float8_e5m2")
_SAFETENSORS = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")
_SAFETENSORS_DTYPES: dict[str, str] = dict(zip(_SAFETENSORS, _DTYPES + _FP8, strict=True))


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A CogVideoX VAE with its weights, ready for lowering.

    module: a diffusers `AutoencoderKLCogVideoX` in eval mode, without gradients. Its weights are
        memory of its own: the file may change or go. (Where `scaling_factor` below is None, the
        one in the module's own config is diffusers' default.)
    architecture: what the file holds; `dtypes` are those stored, not the module's.
    source: the path that was asked for.
    scaling_factor: the factor on latents that config.json gives; None without one, since weights
        do not show it.
    """

    module: torch.nn.Module
    architecture: Architecture
    source: Path
    scaling_factor: float | None


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor that is still in its file.

    shape: its extents. dtype: torch's name for it. read: gives the tensor on the CPU, once.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Found:
    """The files that a path stands for.

    weights: one file, or the shards of one.
    config: what config.json says, None without one.
    config_binds: the config belongs to the weights, so that a contradiction is an error; one that
        merely lies beside a file is left aside then.
    """

    weights: tuple[Path, ...]
    config: Mapping[str, Any] | None
    config_binds: bool


def load_module(
    path: str | Path, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> LoadedModule:
    """The CogVideoX VAE that `path` holds, in `dtype` on `device`.

    path: a diffusers folder or a pipeline's root; a .safetensors file; or a torch checkpoint (.pt,
        .pth, .ckpt, .bin). Names inside are diffusers' or SAT's, under any prefix, and other
        networks may lie beside. The contents count, not the file's name. A config.json beside a
        single file is used if it is this class's and agrees with the shapes.
    dtype: float16, bfloat16, float32 or float64; None keeps the file's own (where it has several,
        the narrowest that holds them all).
    device: where the weights go.

    Raises `LoadError` for a file that is no CogVideoX VAE (with what it looks like), is damaged,
    would run code, or holds values that are not finite; `SettingsError` for a dtype or a device
    that cannot be had.
    """
    place = _device(dtype, device)
    source = Path(path).expanduser()
    try:
        with ExitStack() as stack:
            found = _find(source)
            contents = _contents(found.weights, stack)
            names = identify.vae_names({name: stored.shape for name, stored in contents.items()})
            state = {name: contents[stored] for name, stored in names.items()}
            return _loaded(source, found, state, dtype, place)
    except LoadError as error:
        raise LoadError(f"{source}: {error}") from error.__cause__
    except OSError as error:
        raise LoadError(f"{source}: it cannot be read ({error.strerror or error}).") from error


def _device(dtype: torch.dtype | None, device: torch.device | str) -> torch.device:
    """The device, once both it and the dtype have been found usable."""
    if dtype is not None and str(dtype).removeprefix("torch.") not in _DTYPES:
        raise SettingsError(f"dtype must be one of {', '.join(_DTYPES)}; got {dtype}.")
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # RuntimeError, AssertionError or others, by backend
        raise SettingsError(f"device {device!r} cannot be used: {_line(error)}.") from error


def _loaded(
    source: Path,
    found: _Found,
    state: Mapping[str, _Stored],
    dtype: torch.dtype | None,
    device: torch.device,
) -> LoadedModule:
    architecture, config = _agreed(found, state)
    scaling_factor = identify.scaling_factor_of(config)
    module = _empty_module({**identify.config_of(architecture, state), **config})
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    identify.check_shapes(wanted, {name: stored.shape for name, stored in state.items()})
    target = _target_dtype(dtype, state)
    weights = {name: _weight(name, stored, target).to(device) for name, stored in state.items()}
    module.load_state_dict(weights, strict=True, assign=True)
    return LoadedModule(module.eval().requires_grad_(False), architecture, source, scaling_factor)


def _find(path: Path) -> _Found:
    if not path.exists():
        raise LoadError(f"there is no such file or folder. {EXPECTED}")
    if path.is_dir() or path.name == "config.json":
        return _find_in_folder(path if path.is_dir() else path.parent)
    weights = _shards(path) if path.name.endswith(".index.json") else (path,)
    return _Found(weights, _config_beside(path.parent), config_binds=False)


def _find_in_folder(folder: Path) -> _Found:
    config_path = folder / "config.json"
    if not config_path.is_file() and (folder / "vae").is_dir():
        return _find_in_folder(folder / "vae")
    if not config_path.is_file():
        names = sorted(entry.name for entry in folder.iterdir())
        weights = [name for name in names if name.endswith(".safetensors")]
        remedy = f"Give the file itself: {folder / weights[0]}." if weights else EXPECTED
        raise LoadError(f"this folder has no config.json; it holds {listed(names)}. {remedy}")
    config = _json_object(config_path)
    identify.check_class(config)
    return _Found(_weights_in(folder), config, config_binds=True)


def _weights_in(folder: Path) -> tuple[Path, ...]:
    """The plain file of a diffusers folder, else its shards, its only variant, or its .bin file."""
    plain, index = folder / f"{_STEM}.safetensors", folder / f"{_STEM}.safetensors.index.json"
    if plain.is_file():
        return (plain,)
    if index.is_file():
        return _shards(index)
    variants = sorted(folder.glob(f"{_STEM}*.safetensors")) or sorted(folder.glob(f"{_STEM}*.bin"))
    if len(variants) > 1:
        names = ", ".join(variant.name for variant in variants)
        raise LoadError(f"this folder holds several files of weights: {names}. Give the one meant.")
    if not variants:
        raise LoadError(f"this folder has a config.json, but no {plain.name}. {EXPECTED}")
    return (variants[0],)


def _shards(index: Path) -> tuple[Path, ...]:
    entries = _json_object(index).get("weight_map")
    files = set(cast("dict[str, Any]", entries).values() if isinstance(entries, dict) else ())
    names = sorted(name for name in files if isinstance(name, str) and Path(name).name == name)
    if not names or len(names) != len(files):
        raise LoadError(f"{index.name} must have a weight_map to files beside it. {_AGAIN}")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise LoadError(
            f"{len(missing)} of the {len(names)} files that {index.name} names are missing"
            f" ({listed(missing)}). Download them too."
        )
    return tuple(index.parent / name for name in names)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path.name} is no JSON ({_line(error)}). {_AGAIN}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise LoadError(f"{path.name} must hold a JSON object; it holds a {kind}. {_AGAIN}")
    return cast("dict[str, Any]", value)


def _config_beside(folder: Path) -> Mapping[str, Any] | None:
    """The config.json in a file's folder, if a CogVideoX VAE's; it need not be that file's."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = _json_object(path)
        identify.check_class(config)
    except (LoadError, OSError) as error:
        _log.info("%s is left aside: %s", path, error)
        return None
    return config


def _contents(paths: Sequence[Path], stack: ExitStack) -> dict[str, _Stored]:
    """What every tensor in the files is; they stay open for as long as `stack` does."""
    contents: dict[str, _Stored] = {}
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
            raise LoadError(f"it is empty (0 bytes). {_AGAIN}")
        else:
            words = identify.bytes_look_like(head)
            raise LoadError(f"it holds no weights, but is {words}. {EXPECTED}")
    if not contents:
        raise LoadError(f"it holds no tensors. {EXPECTED}")
    return contents


def _safetensors(path: Path, stack: ExitStack) -> dict[str, _Stored]:
    try:
        file: Any = stack.enter_context(cast("Any", safe_open(str(path), framework="pt")))
    except SafetensorError as error:
        raise LoadError(_damage(path, error)) from error

    def stored(name: str) -> _Stored:
        part = file.get_slice(name)
        kind: str = part.get_dtype()
        dtype = _SAFETENSORS_DTYPES.get(kind, kind)
        return _Stored(tuple(part.get_shape()), dtype, lambda: file.get_tensor(name))

    return {name: stored(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)


def _damage(path: Path, error: Exception) -> str:
    """Why a safetensors file cannot be opened, with both sizes where it was cut short."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        expected_bytes = 8 + int.from_bytes(file.read(8), "little")
        header = file.read(min(expected_bytes - 8, size_bytes))
    expected_bytes += identify.safetensors_data_bytes(header)
    if size_bytes >= expected_bytes:
        return f"its safetensors header is damaged ({_line(error)}). {_AGAIN}"
    return (
        f"it is cut short: its safetensors header asks for at least {expected_bytes} bytes, and the"
        f" file has {size_bytes}. {_AGAIN}"
    )


def _zipped_checkpoint(path: Path) -> dict[str, _Stored]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise LoadError(
            f"it is cut short: its {path.stat().st_size} bytes begin as a torch checkpoint, but do"
            f" not reach the list of contents at its end. {_AGAIN}"
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise LoadError(f"it is a TorchScript program, which is code. {EXPECTED}")
    if not any(name.endswith("/data.pkl") for name in names):
        raise LoadError(f"it is a zip archive of {listed(names)}, no weights. {EXPECTED}")
    # torch takes an open file, which it cannot map, for what it is, but goes by this suffix else.
    return _checkpoint(path, mapped=path.suffix != ".safetensors")


def _checkpoint(path: Path, mapped: bool) -> dict[str, _Stored]:
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
        what = f"{type(error).__name__}: {_line(error)}"
        raise LoadError(f"it is a damaged torch checkpoint ({what}). {_AGAIN}") from error
    tensors = _tensors_in(loaded)
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return {
        name: _Stored(tuple(tensor.shape), dtypes[name], functools.partial(tensors.pop, name))
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


def _agreed(found: _Found, state: Mapping[str, _Stored]) -> tuple[Architecture, Mapping[str, Any]]:
    """The architecture, and the config: empty where there is none, or none that fits the shapes."""
    if found.config is not None:
        try:
            return identify.architecture_of_config(found.config, state), found.config
        except LoadError as error:
            if found.config_binds:
                raise
            _log.warning("config.json beside %s is left aside: %s", found.weights[0], error)
    return architecture_of_state(state), {}


def _empty_module(config: Mapping[str, Any]) -> torch.nn.Module:
    """The network that a config describes, on the `meta` device: shapes and no memory."""
    try:
        network: Any = importlib.import_module("diffusers").AutoencoderKLCogVideoX
    except (ImportError, AttributeError, RuntimeError) as error:
        why = f"it needs diffusers 0.30 or newer to be built ({_line(error)})"
        raise LoadError(f"{why}. Run `pip install -U diffusers`.") from error
    try:
        with torch.device("meta"):
            return network.from_config(config)
    except Exception as error:  # whatever diffusers makes of values that it did not foresee
        raise LoadError(f"diffusers cannot build this network: {_line(error)}.") from error


def _target_dtype(dtype: torch.dtype | None, state: Mapping[str, _Stored]) -> torch.dtype:
    """`dtype`, or the narrowest one that holds all stored values exactly."""
    for name, stored in state.items():
        if stored.dtype not in _DTYPES + _FP8:
            raise LoadError(f"weights must be floating point; {name} is {stored.dtype}. {EXPECTED}")
        if stored.dtype in _FP8 and dtype is None:
            what = f"{name} is {stored.dtype}, in which nothing is computed"
            raise LoadError(f"{what}. Load it with dtype=torch.bfloat16, say.")
    if dtype is not None:
        return dtype
    own = {stored.dtype for stored in state.values()}
    return functools.reduce(torch.promote_types, (getattr(torch, name) for name in own))


def _weight(name: str, stored: _Stored, dtype: torch.dtype) -> torch.Tensor:
    """A copy of the stored tensor, in memory of its own on the CPU, in `dtype`, all finite."""
    try:
        source = stored.read().detach()
        weight = source.to(dtype=dtype, copy=True, memory_format=torch.contiguous_format)
    except (RuntimeError, SafetensorError) as error:
        raise LoadError(f"{name} cannot be read: {_line(error)}. {_AGAIN}") from error
    if _finite(weight):
        return weight
    if _finite(source.to(torch.float64)):
        raise LoadError(f"{name} would overflow {dtype}. Load it with dtype=torch.bfloat16.")
    raise LoadError(f"{name} has values that are not finite (NaN or infinity). {_AGAIN}")


def _finite(tensor: torch.Tensor) -> bool:
    return all(math.isfinite(bound) for bound in torch.aminmax(tensor))  # NaN passes through


def _line(error: BaseException) -> str:
    """The first line of an error's message; torch's go on for screens."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
