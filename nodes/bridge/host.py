"""What does this pack ask of ComfyUI, and what does it do where there is none?

The only file that imports the host; what its card can give is asked in `card.py`, and how weights
are read in `lending.py`. Everything is looked up when it is asked for: importing the pack imports
nothing of ComfyUI, and where it is not running (tests, scripts) the same nodes work on the
processor, without a progress bar. Versions that lack a call get its plainest substitute; the oldest
that is tested is 0.3.75.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
VIDEO_FILES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
PREVIEW_PX = 512
EVENT = "exact_video_vae.progress"
LARGEST_BODY = 4096


def running() -> bool:
    """Whether this process is a ComfyUI."""
    return "comfy.sd" in sys.modules and "folder_paths" in sys.modules


def management() -> Any:
    """What the host decides about devices and memory with."""
    import comfy.model_management

    return comfy.model_management


# Where files are


def vae_paths() -> dict[str, Path]:
    """Every file and folder that may hold a VAE, by the name that a person chooses it by."""
    found: dict[str, Path] = {}
    if not running():
        return found
    import folder_paths

    for name in folder_paths.get_filename_list("vae"):
        if path := folder_paths.get_full_path("vae", name):
            found[name] = Path(path)
    for name in folder_paths.get_filename_list("checkpoints"):
        path = folder_paths.get_full_path("checkpoints", name) if _LTX in name.lower() else None
        if path:  # the VAE lies inside
            found[f"checkpoints/{name}"] = Path(path)
    for root in _folders("CogVideo"):
        found |= _named("CogVideo", root, _cogvideo_entries(root))
    for root in _folders("diffusers"):
        found |= _named("diffusers", root, sorted(root.glob("*/vae")))
    return found


_LTX = "ltx"
"""In the names of the checkpoints that have a VAE of ours."""


def _folders(kind: str) -> list[Path]:
    """The existing folders of a kind of model, those of extra_model_paths included."""
    import folder_paths

    known = [Path(path) for path in folder_paths.folder_names_and_paths.get(kind, ([],))[0]]
    usual = Path(folder_paths.models_dir) / kind
    return [path for path in dict.fromkeys([*known, usual]) if path.is_dir()]


def _cogvideo_entries(root: Path) -> list[Path]:
    """kijai's places: CogVideo/<model>/vae, and files in CogVideo/VAE."""
    folders = [place for place, _ in _walked(root) if place.name == "vae"]
    folders = [place for place in folders if (place / "config.json").is_file()]
    files = [path for path in (root / "VAE").glob("*") if path.suffix in WEIGHT_FILES]
    return sorted({*folders, *files})


def _named(kind: str, root: Path, paths: list[Path]) -> dict[str, Path]:
    return {f"{kind}/{path.relative_to(root).as_posix()}": path for path in paths}


def _walked(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder below `root` once, with the names of its files: links are followed as core does,
    and what cannot be read is passed over.
    """
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads round in a circle
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield Path(place), files


def input_videos() -> list[str]:
    """Videos in the host's input folder, by name."""
    if not running():
        return []
    import folder_paths

    folder = Path(folder_paths.get_input_directory())
    videos = (
        place / name
        for place, names in _walked(folder)
        for name in names
        if Path(name).suffix.lower() in VIDEO_FILES
    )
    return sorted(path.relative_to(folder).as_posix() for path in videos if path.is_file())


def input_path(name: str) -> Path | None:
    """The file `name` of the input folder; None where the name leads outside.

    A link in that folder may lead anywhere: whoever put it there wants that.
    """
    if not running():
        return None
    import folder_paths

    folder = os.path.abspath(folder_paths.get_input_directory())
    path = Path(os.path.abspath(os.path.join(folder, name)))
    return path if path.is_relative_to(folder) else None


@dataclass(frozen=True, slots=True)
class Target:
    """A file to be written: its path, what a person calls it, and how the client asks for it."""

    path: Path
    shown: str
    preview: dict[str, str]


def output_target(prefix: str, suffix: str, size_px: tuple[int, int]) -> Target:
    """A new file in the host's output folder, for pictures of that (height, width); the host
    refuses a prefix that leads outside.
    """
    height, width = size_px
    if not running():
        path = Path(tempfile.mkdtemp()) / f"{Path(prefix).name}{suffix}"
        return Target(path, str(path), {})
    import folder_paths

    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix, folder_paths.get_output_directory(), width, height
    )
    file = f"{name}_{counter:05}_{suffix}"
    preview = {"filename": file, "subfolder": subfolder, "type": "output"}
    return Target(Path(folder) / file, "/".join(filter(None, (subfolder, file))), preview)


def user_folder() -> Path | None:
    """Where the host keeps what belongs to its user; None where there is no such place."""
    if not running():
        return None
    import folder_paths

    ask = getattr(folder_paths, "get_user_directory", None)
    return Path(ask()) if ask else None


def keeps_metadata() -> bool:
    """Whether the host wants workflows stored in files."""
    if not running():
        return False
    from comfy.cli_args import args

    return not args.disable_metadata


def video_of(path: Path) -> Any:
    """The host's VIDEO of a file; without a host, its path."""
    if not running():
        return path
    try:
        from comfy_api.latest import InputImpl
    except ImportError:
        from comfy_api.input_impl import VideoFromFile

        return VideoFromFile(str(path))
    return InputImpl.VideoFromFile(str(path))


# Memory and devices


@lru_cache(maxsize=1)
def vae_class(mixin: type) -> type:
    """`mixin` over the host's own VAE class, so that whatever takes a VAE takes ours."""
    if not running():
        return type("ExactVAE", (mixin, _BareVAE), {})
    import comfy.sd

    return type("ExactVAE", (mixin, comfy.sd.VAE), {})


class _BareVAE:
    """What of the host's VAE the nodes use, where there is no host."""

    patcher = None

    def __init__(self, sd: object = None, dtype: torch.dtype | None = None) -> None:
        del sd
        self.device = self.output_device = torch.device("cpu")
        self.vae_dtype = dtype or torch.float32


def new_vae(mixin: type, dtype: torch.dtype | None) -> Any:
    """A VAE object of the host, with its choice of devices, that still lacks a network."""
    # The host sets up a VAE from weights; these are the smallest that it takes.
    weights = {"pixel_space_vae": torch.tensor(1.0, device="cpu")}
    return vae_class(mixin)(sd=weights, dtype=dtype or vae_dtype())


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a file, as the host's own loaders read them."""
    import comfy.utils

    return comfy.utils.load_torch_file(str(path), safe_load=True)


def vae_of(weights: dict[str, torch.Tensor], dtype: torch.dtype | None) -> Any:
    """The VAE that the host itself makes of `weights`; None where there is no host, or where it
    does not take all of them.
    """
    if not running():
        return None
    import comfy.sd

    names = set(weights)
    try:
        vae = comfy.sd.VAE(sd=weights, dtype=dtype)
    except RuntimeError:  # of other shapes than the host expects under these names
        return None
    network = vae.first_stage_model
    # the host's class of HunyuanVideo 1.5 has weights that no video goes through, and no file has
    wanted = {name for name in network.state_dict() if ".temb_proj." not in name} if network else {}
    return vae if wanted and wanted == names else None


def vae_dtype() -> torch.dtype:
    """The dtype that the host wants this network to run in."""
    if not running():
        return torch.float32
    manage = management()
    wanted = [torch.bfloat16, torch.float16, torch.float32]
    return manage.vae_dtype(manage.vae_device(), wanted)


def patcher_of(module: torch.nn.Module, vae: Any) -> Any:
    """The host's handle on a module: it loads it when asked, and puts it away when it must."""
    if not running():
        return None
    import comfy.model_patcher as patching

    manage = management()
    archive = getattr(manage, "archive_model_dtypes", None)
    if archive is not None:
        archive(module)
    kind = getattr(patching, "CoreModelPatcher", patching.ModelPatcher)
    return kind(module, load_device=vae.device, offload_device=manage.vae_offload_device())


def result_dtype() -> torch.dtype:
    """The dtype in which the host wants pictures and latents handed on."""
    if not running():
        return torch.float32
    choose = getattr(management(), "intermediate_dtype", None)
    return choose() if choose else torch.float32


def operations() -> Any:
    """The host's own kinds of layers, with what reads their weights; None where there is no
    host.
    """
    return sys.modules.get("comfy.ops") if running() else None


def native_network(module: str, name: str) -> Any:
    """The host's own class of a network, in one of its modules of models; None where it has
    none.
    """
    return getattr(sys.modules.get(f"comfy.ldm.{module}"), name, None)


# Routes


def serve(
    path: str, name: str, answer: Callable[[bytes], Awaitable[tuple[int, dict[str, Any]]]]
) -> Path | None:
    """Let the host's web server answer POST requests to `path`/`name`; nothing where there is none.

    answer: takes a request's body, at most `LARGEST_BODY` + 1 bytes of it, and gives a status and
    what is sent as JSON. Where the route is there already it stays as it is; returns the folder of
    the copy of this pack that it belongs to, where that is another one.
    """
    routes = getattr(_server(), "routes", None)
    if routes is None:
        return None
    # As a pattern: a copy of an earlier version, loaded later, adds the plain path without looking,
    # and the server refuses to start with the same one twice.
    pattern = f"{path}/{{question:{name}}}"
    for route in routes:
        if getattr(route, "path", None) in (pattern, f"{path}/{name}"):
            return _other_copy(route.handler)
    from aiohttp import web

    async def handle(request: Any) -> Any:
        status, content = await answer(await request.content.read(LARGEST_BODY + 1))
        return web.json_response(content, status=status)

    routes.post(pattern)(handle)
    return None


def _server() -> Any:
    """The host's running server; None where there is none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def _other_copy(handler: Any) -> Path | None:
    """The folder of the pack that a handler belongs to, unless it is this one, loaded anew."""
    module = sys.modules.get(handler.__module__)
    there = Path(getattr(module, "__file__", None) or handler.__module__)
    # Not resolved: two links to one folder are two packs to the host.
    if there.is_relative_to(Path(__file__).parents[2]):
        return None
    return next((folder.parent for folder in there.parents if folder.name == "nodes"), there)


# Progress


def stop_if_interrupted() -> None:
    """Raise the host's own exception where a person has asked to stop."""
    if running():
        management().throw_exception_if_processing_interrupted()


class ProgressBar:
    """The host's progress bar of one node, with a picture of what was finished last."""

    def __init__(self, total: int, node_id: str | None) -> None:
        self._bar = None
        if running():
            import comfy.utils

            self._bar = comfy.utils.ProgressBar(total, node_id=node_id)

    def update(self, done: int, total: int, frame: torch.Tensor | None = None) -> None:
        """Show `done` of `total`; frame: [h, w, 3] in [0, 1]."""
        if self._bar is not None:
            preview = None if frame is None else ("JPEG", picture(frame), PREVIEW_PX)
            self._bar.update_absolute(done, total, preview)


def picture(frame: torch.Tensor) -> Any:
    """A PIL image of a frame [h, w, 3] in [0, 1]."""
    from PIL import Image

    return Image.fromarray((frame.float() * 255.0).round().to("cpu", torch.uint8).numpy())


def send(node_id: str | None, event: dict[str, Any]) -> None:
    """Tell the web client of the node `node_id`, if there is one.

    A run that no client started, by a script, is shown to none: its ids are those of another graph.
    """
    server = _server() if node_id is not None and running() else None
    client = getattr(server, "client_id", None)
    if client is not None:
        server.send_sync(EVENT, {"node": node_id, **event}, client)
