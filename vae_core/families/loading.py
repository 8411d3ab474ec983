"""Which module does this file hold?

1. Find the files: one file, the shards of one, or a diffusers folder (or a pipeline's root).
2. Read names, shapes and dtypes, no tensor yet (`stored`), and ask `identify` which network they
   are.
3. Build that network on the `meta` device, without memory, and compare every name and shape.
4. Read, cast and check one tensor at a time: one copy of the weights, and one tensor.

It fetches nothing, runs nothing that a file says, and does not judge whether the engine can run the
network; lowering does. diffusers is imported when a module is built, not before.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError

from ..errors import LoadError, SettingsError
from . import identify
from .identify import architecture_of, architecture_of_state
from .keys import EXPECTED, Architecture, Keys, check_shapes, listed
from .latent_statistics import LatentStatistics
from .stored import AGAIN, DTYPES, FP8, Stored, contents_of, line_of, metadata_of

__all__ = ["Architecture", "LoadedModule", "architecture_of_state", "load_module"]
_log = logging.getLogger("vae_core")

_STEM = "diffusion_pytorch_model"


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A VAE with its weights, ready for lowering.

    module: of the family's class, in eval mode, without gradients. Its weights are
        memory of its own: the file may change or go. (Where `scaling_factor` or
        `latent_statistics` below is None, what the module's own config says is diffusers' default.)
    architecture: what the file holds; `dtypes` are those stored, not the module's.
    source: the path that was asked for.
    scaling_factor: the factor on latents that config.json gives; None without one, since weights
        do not show it.
    latent_statistics: mean and standard deviation of each latent channel, where config.json gives
        them.
    """

    module: torch.nn.Module
    architecture: Architecture
    source: Path
    scaling_factor: float | None
    latent_statistics: LatentStatistics | None = None


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
    """The VAE that `path` holds, in `dtype` on `device`.

    path: a diffusers folder or a pipeline's root; a .safetensors file; or a torch checkpoint (.pt,
        .pth, .ckpt, .bin). Names inside are diffusers' or the authors', under any prefix, and other
        networks may lie beside. The contents count, not the file's name. A config.json beside a
        single file is used if it is of the family's class and agrees with the shapes.
    dtype: float16, bfloat16, float32 or float64; None keeps the file's own (where it has several,
        the narrowest that holds them all).
    device: where the weights go.

    Raises `LoadError` for a file that holds no VAE of ours (with what it looks like), is damaged,
    would run code, or holds values that are not finite; `SettingsError` for a dtype or a device
    that cannot be had.
    """
    place = _device(dtype, device)
    source = _path(path)
    try:
        with ExitStack() as stack:
            found = _find(source)
            contents = contents_of(found.weights, stack)
            shapes = {name: stored.shape for name, stored in contents.items()}
            keys, names = identify.vae_in(shapes)
            state = {name: _as_wanted(keys, name, contents[s]) for name, s in names.items()}
            network = _network(keys, found, state, names)
            network.module.load_state_dict(_weights(state, dtype, place), strict=True, assign=True)
            network.module.eval().requires_grad_(False)
            beside = LatentStatistics.beside(network.module)
            statistics = beside or network.latent_statistics
            return replace(network, source=source, latent_statistics=statistics)
    except LoadError as error:
        raise LoadError(f"{source}: {error}") from error.__cause__
    except OSError as error:
        raise LoadError(f"{source}: it cannot be read ({error.strerror or error}).") from error


def _as_wanted(keys: Keys, name: str, stored: Stored) -> Stored:
    """A weight as diffusers has it: one of a convolution of 1x1x1 as that of a linear map, where
    the class has such a map.
    """
    is_linear = keys.linear is not None and keys.linear.fullmatch(name)
    if not is_linear or set(stored.shape[2:]) != {1}:
        return stored
    return replace(stored, shape=stored.shape[:2], read=lambda: stored.read().flatten(1))


def _path(path: object) -> Path:
    """Where to look; `LoadError` for what is no path, the empty one included."""
    if isinstance(path, str | Path) and path != "":
        return Path(path).expanduser()
    raise LoadError(f"a path of a file or a folder is needed; got {path!r}.")


def _device(dtype: torch.dtype | None, device: torch.device | str) -> torch.device:
    """The device, once both it and the dtype have been found usable."""
    if dtype is not None and str(dtype).removeprefix("torch.") not in DTYPES:
        raise SettingsError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype}.")
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # RuntimeError, AssertionError or others, by backend
        why = line_of(error).partition(". ")[0].rstrip(".")  # torch goes on about builds of its own
        raise SettingsError(f"the device {str(device)!r} cannot be used: {why}.") from error


def _network(
    keys: Keys, found: _Found, state: Mapping[str, Stored], names: Mapping[str, str]
) -> LoadedModule:
    """The network that `state` has the weights of, still without any. names: those in the file."""
    architecture, config = _agreed(keys, found, state)
    shapes = {name: stored.shape for name, stored in state.items()}
    kind = config.get("_class_name") or (keys.kind(shapes) if keys.kind else keys.classes[0])
    facts = keys.facts(shapes, kind)
    if keys.said and not config:
        facts |= keys.said(metadata_of(found.weights), names.values(), facts)
    facts |= config
    module = _empty_module(keys, kind, facts)
    if keys.settle:
        keys.settle(module, facts)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_shapes(wanted, shapes, keys.title)
    return LoadedModule(
        module,
        architecture,
        found.weights[0],
        identify.scaling_factor_of(config),
        LatentStatistics.of_config(config, architecture.latent_channels),
    )


def _weights(
    state: Mapping[str, Stored], dtype: torch.dtype | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """All of them, read one after the other."""
    target = _target_dtype(dtype, state)
    return {name: _weight(name, stored, target).to(device) for name, stored in state.items()}


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
        shards = [name for name in names if name.endswith(".index.json")]
        weights = shards or [name for name in names if name.endswith(".safetensors")]
        remedy = f"Give the file itself: {folder / weights[0]}." if weights else EXPECTED
        raise LoadError(f"this folder has no config.json; it holds {listed(names)}. {remedy}")
    config = _json_object(config_path)
    identify.keys_of_class(config)
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
        raise LoadError(f"{index.name} must have a weight_map to files beside it. {AGAIN}")
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
        raise LoadError(f"{path.name} is no JSON ({line_of(error)}). {AGAIN}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise LoadError(f"{path.name} must hold a JSON object; it holds a {kind}. {AGAIN}")
    return cast("dict[str, Any]", value)


def _config_beside(folder: Path) -> Mapping[str, Any] | None:
    """The config.json in a file's folder, if a VAE's of ours; it need not be that file's."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = _json_object(path)
        identify.keys_of_class(config)
    except (LoadError, OSError) as error:
        _log.info("%s is left aside: %s", path, error)
        return None
    return config


def _agreed(
    keys: Keys, found: _Found, state: Mapping[str, Stored]
) -> tuple[Architecture, Mapping[str, Any]]:
    """The architecture, and the config: empty where there is none, or none that fits the shapes."""
    if found.config is not None:
        try:
            _check_family(keys, found.config)
            return architecture_of(keys, state, found.config), found.config
        except LoadError as error:
            if found.config_binds:
                raise
            _log.warning("config.json beside %s is left aside: %s", found.weights[0], error)
    return architecture_of(keys, state, {}), {}


def _check_family(keys: Keys, config: Mapping[str, Any]) -> None:
    said = identify.keys_of_class(config)
    if said is not keys:
        raise LoadError(
            f"config.json is a {said.title} VAE's, and the weights are a {keys.title} VAE's. Put"
            " the config.json that came with the weights beside them, or give the file of weights"
            " itself."
        )


def _empty_module(keys: Keys, kind: str, config: Mapping[str, Any]) -> torch.nn.Module:
    """The network that a config describes, on the `meta` device: shapes and no memory."""
    try:
        network: Any = getattr(importlib.import_module(keys.home), kind)
    except (ImportError, AttributeError, RuntimeError) as error:
        why = f"it needs diffusers {keys.needs} or newer to be built ({line_of(error)})"
        raise LoadError(f"{why}. Run `pip install -U diffusers`.") from error
    try:
        with torch.device("meta"):
            return network.from_config(config)
    except Exception as error:  # whatever diffusers makes of values that it did not foresee
        raise LoadError(f"diffusers cannot build this network: {line_of(error)}.") from error


def _target_dtype(dtype: torch.dtype | None, state: Mapping[str, Stored]) -> torch.dtype:
    """`dtype`, or the narrowest one that holds all stored values exactly."""
    for name, stored in state.items():
        if stored.dtype not in DTYPES + FP8:
            raise LoadError(f"weights must be floating point; {name} is {stored.dtype}. {EXPECTED}")
        if stored.dtype in FP8 and dtype is None:
            what = f"{name} is {stored.dtype}, in which nothing is computed"
            raise LoadError(f"{what}. Load it with dtype=torch.bfloat16, say.")
    if dtype is not None:
        return dtype
    own = {stored.dtype for stored in state.values()}
    return functools.reduce(torch.promote_types, (getattr(torch, name) for name in own))


def _weight(name: str, stored: Stored, dtype: torch.dtype) -> torch.Tensor:
    """A copy of the stored tensor, in memory of its own on the CPU, in `dtype`, all finite."""
    try:
        source = stored.read().detach()
        weight = source.to(dtype=dtype, copy=True, memory_format=torch.contiguous_format)
    except (RuntimeError, SafetensorError) as error:
        raise LoadError(f"{name} cannot be read: {line_of(error)}. {AGAIN}") from error
    if _finite(weight):
        return weight
    if _finite(source.to(torch.float64)):
        raise LoadError(f"{name} would overflow {dtype}. Load it with dtype=torch.bfloat16.")
    raise LoadError(f"{name} has values that are not finite (NaN or infinity). {AGAIN}")


def _finite(tensor: torch.Tensor) -> bool:
    return all(math.isfinite(bound) for bound in torch.aminmax(tensor))  # NaN passes through
