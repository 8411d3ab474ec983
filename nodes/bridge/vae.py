"""Which object travels on a VAE wire, so that every node of the host runs through our engine?

1. `EngineModule` takes the place of the network inside a VAE. It shares the network's parts and
   offers the calls that the host makes on a network that cuts itself up.
2. `ExactVAE` is the host's own VAE class with its four calls (encode and decode, tiled or not) led
   through `running`, so that nothing is cut anywhere else and inputs stay out of device memory.
3. `load_vae` builds one from a file; `exact_vae` from whatever comes over a wire.

Through core's nodes, sizes are cropped and colours added as core does: its counts, (t + 3) // 4
latent frames, hold.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import vae_core
from ...vae_core import InputError, LoweringError, Settings, VideoVAE
from ...vae_core.running.autocast import joined
from ...vae_core.running.crew import members_of
from ...vae_core.settings import SMALLEST_TILE_PX
from . import card, host
from .core_files import core_vae
from .ends import Ends, ends_of
from .images import with_colours
from .lending import Lender
from .ltx import STATISTICS, noised, statistics_of, told_of
from .wan_wrapper import unwrapped

CORE_SETTINGS = Settings(frame_fit="crop", size_fit="crop")
_DTYPES = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


class EngineModule(nn.Module):
    """A network that runs in chunks and tiles, under the names of its own weights.

    ends: colours, channels and sizes of what goes in and comes out.
    """

    comfy_has_chunked_io = True

    def __init__(self, network: nn.Module) -> None:
        """Raises `LoweringError` where the engine cannot run the network."""
        super().__init__()
        card.keep_probes()
        self.ends = ends_of(vae_core.from_module(network))
        for name, part in network.named_children():
            self.add_module(name, part)
        inside = statistics_of(network)
        if inside is not None:
            self.add_module(STATISTICS, inside)
        self.told = told_of(network)
        for name, value in self.told.items():
            setattr(self, name, value)
        self.config = getattr(network, "config", None)  # what parts alone do not show
        self.settings = CORE_SETTINGS

    def video_vae(self, dtype: torch.dtype, device: torch.device | str) -> VideoVAE:
        """The engine over this network."""
        return replace(vae_core.from_module(self, dtype, device), lender=Lender())

    def encode(self, x: Tensor, device: torch.device | None = None, tile_px: Any = None) -> Tensor:
        """Latents [b, z, n, h/r, w/r] of `x` [b, c, t, h, w] in [-1, 1]."""
        settings = replace(self.settings, tile_px=tile_px)
        return self.video_vae(x.dtype, device or x.device).encode(x, settings).mode()

    def decode(self, z: Tensor, output_buffer: Tensor | None = None, tile_px: Any = None) -> Tensor:
        """Video [b, c, t, h, w] in about [-1, 1] of latents as the host has them, written into
        `output_buffer` where there is one.
        """
        settings = replace(self.settings, tile_px=tile_px)
        z = noised(self.ends.taken(z), self.told)
        video = self.video_vae(z.dtype, z.device).decode(z, settings)
        return video if output_buffer is None else output_buffer.copy_(video)

    def decode_output_shape(self, shape: Any) -> tuple[int, ...]:
        """The shape of what `decode` makes of latents of `shape`."""
        batch, _, n, *sides = shape
        own = self.ends
        frames = own.sample_frames(n)
        return (batch, own.colours_out, frames, *(own.px * side for side in sides))

    def encode_tiled(self, x: Tensor, tile_x: int | None = None, tile_y: int | None = None, **_):
        """As `encode`; tiles, in pixels, are upper bounds, and overlaps mean nothing."""
        return self.encode(x, tile_px=tile_bound(tile_y, tile_x))

    def decode_tiled(self, z: Tensor, tile_x: int | None = None, tile_y: int | None = None, **_):
        """As `decode`; tiles are in latent elements here."""
        return self.decode(z, tile_px=tile_bound(tile_y, tile_x, unit=self.ends.px))


def tile_bound(height: int | None, width: int | None, unit: int = 1) -> tuple[int, int] | None:
    """(height, width) in pixels of the largest tile; None where both are open."""
    if not height and not width:
        return None
    sides = (2**20 if not side else side * unit for side in (height, width))
    low, high = (max(side, SMALLEST_TILE_PX) for side in sides)
    return (low, high)


class ExactMixin:
    """The calls that the host's nodes make on a VAE, through our engine."""

    exact_settings: Settings = CORE_SETTINGS

    @property
    def video_vae(self) -> VideoVAE:
        """The engine over this VAE's network, on its device and in its dtype."""
        return self.first_stage_model.video_vae(self.vae_dtype, self.device)

    @property
    def ends(self) -> Ends:
        """Colours, channels and sizes of what goes in and comes out."""
        return self.first_stage_model.ends

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Latents of an IMAGE [t, h, w, c], or of several [b, t, h, w, c]."""
        return self._encode(pixel_samples, self.exact_settings)

    def encode_tiled(
        self, pixel_samples: Tensor, tile_x=None, tile_y=None, overlap=None, **_: Any
    ) -> Tensor:
        """As `encode`: tiles are an upper bound, overlaps mean nothing."""
        del overlap
        bound = tile_bound(tile_y, tile_x)
        return self._encode(pixel_samples, replace(self.exact_settings, tile_px=bound))

    def _encode(self, pixels: Tensor, settings: Settings) -> Tensor:
        from .live import Watch
        from .running import encode_image

        clips = pixels if pixels.ndim == 5 else pixels.unsqueeze(0)
        ends = self.ends
        cropped = [_centre(with_colours(clip, ends.colours_in), ends.px) for clip in clips]
        runs = (encode_image(self, clip, settings, Watch("encode")) for clip in cropped)
        latents = joined([run.posterior.mode() for run in runs])
        return self.ends.handed_on(latents).to(self.output_device, host.result_dtype())

    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        """Pictures [b, t, h, w, c] in [0, 1]."""
        del vae_options
        return self._decode(samples_in, self.exact_settings)

    def decode_tiled(
        self, samples: Tensor, tile_x=None, tile_y=None, overlap=None, **_: Any
    ) -> Tensor:
        """As `decode`: tiles, in latent elements, are an upper bound, overlaps mean nothing."""
        del overlap
        bound = tile_bound(tile_y, tile_x, unit=self.ends.px)
        return self._decode(samples, replace(self.exact_settings, tile_px=bound))

    def _decode(self, samples: Tensor, settings: Settings) -> Tensor:
        from .live import Watch
        from .running import decode_latents

        latents = self.ends.taken(samples)
        return decode_latents(self, latents, settings, None, Watch("decode")).images

    def throw_exception_if_invalid(self) -> None:
        """This VAE was checked when it was made."""


def _centre(clip: Tensor, px: int) -> Tensor:
    """The middle of [t, h, w, c] whose sides are multiples of `px`, as core crops.

    Raises `InputError` where nothing would be left.
    """
    h, w = (side // px * px for side in clip.shape[1:3])
    if min(h, w) < 1:
        raise InputError(
            f"core's nodes crop pictures to multiples of {px} pixels, and need that many on every"
            f" side; got {clip.shape[1]}x{clip.shape[2]}. Exact VAE Encode pads smaller ones."
        )
    top, left = (clip.shape[1] - h) // 2, (clip.shape[2] - w) // 2
    return clip[:, top : top + h, left : left + w]


def load_vae(path: Path, dtype: str, reference: str = "official") -> Any:
    """The VAE in a file or folder; dtype: auto, bf16, fp16 or fp32, where auto is the host's
    choice. reference: whose result is meant, see `Settings`.

    What the host's own loader can build, it builds. Raises `LoadError` with what the file looks
    like, where it is something else.
    """
    theirs = core_vae(path, _DTYPES[dtype])
    if theirs is not None:
        vae = exact_vae(theirs)
    else:
        vae = host.new_vae(ExactMixin, _DTYPES[dtype])
        vae = _furnished(vae, vae_core.load(path, dtype=vae.vae_dtype).module)
    return _with(vae, replace(CORE_SETTINGS, reference=reference))


def _furnished(vae: Any, network: nn.Module) -> Any:
    """`vae` with a network of its own in it."""
    module = EngineModule(network).eval()
    ends = module.ends
    vae.first_stage_model = module
    vae.patcher = host.patcher_of(module, vae)
    vae.latent_channels, vae.output_channels = ends.channels, ends.colours_in
    vae.latent_dim, vae.size = 3, None
    vae.upscale_ratio = (ends.sample_frames, ends.px, ends.px)
    vae.downscale_ratio = (ends.whole_latent_frames, ends.px, ends.px)
    vae.upscale_index_formula = vae.downscale_index_formula = (ends.ratios.frames, ends.px, ends.px)
    vae.working_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    vae.process_input = lambda image: image * 2.0 - 1.0
    vae.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)
    vae.disable_offload = False
    return _engaged(vae)


def _engaged(vae: Any) -> Any:
    """`vae` with what the host wants to know of a network that cuts itself up."""
    vae.handles_tiling = vae.crop_input = True
    vae.memory_used_encode = lambda shape, dtype: _needed(vae, "encode", shape)
    vae.memory_used_decode = lambda shape, dtype: _needed(vae, "decode", shape)
    return vae


def _needed(vae: Any, job: str, shape: Any) -> int:
    """Bytes that a run with room to spare takes beside the weights."""
    engine = vae.video_vae
    plan = engine.plan_encode if job == "encode" else engine.plan_decode
    return plan(tuple(shape), vae.exact_settings).peak_bytes


def exact_vae(vae: Any) -> Any:
    """`vae`, from any loader, as one that runs through our engine, sharing its weights.

    Takes our own, core's that holds a network of one of our families, the bare network that
    CogVideoXWrapper passes, and WanVideoWrapper's, whose weights it copies. Raises `InputError` for
    any other, with its name.
    """
    if isinstance(vae, ExactMixin):
        return vae
    vae = unwrapped(vae)
    network = vae if isinstance(vae, nn.Module) else getattr(vae, "first_stage_model", None)
    if not isinstance(network, nn.Module):
        raise InputError(f"vae must be {WANTED}; got {_what(vae)}. {_REMEDY}")
    try:
        module = EngineModule(network).eval()
    except (LoweringError, AttributeError) as error:
        raise InputError(
            f"vae must be {WANTED}; got one that holds {type(network).__name__}"
            f" ({error}). {_REMEDY}"
        ) from None
    if network is vae:
        dtype = next(network.parameters()).dtype
        return _furnished(host.new_vae(ExactMixin, dtype), network)
    return _adopted(vae, module)


def with_settings(vae: Any, settings: Settings) -> Any:
    """`vae`, exact, with `settings` wherever core's nodes run it; the one that came stays as it
    is. Raises `SettingsError` where it cannot run on the devices that they name.
    """
    ours = exact_vae(vae)
    if settings.devices:
        members_of(ours.video_vae, settings)
    fresh = _adopted(ours, EngineModule(ours.first_stage_model).eval())
    return _with(fresh, replace(settings, frame_fit="crop", size_fit="crop"))


def _with(vae: Any, settings: Settings) -> Any:
    """`vae`, one of ours, with these settings."""
    vae.exact_settings = vae.first_stage_model.settings = settings
    return vae


WANTED = (
    "a CogVideoX VAE, or that of Wan 2.1, Qwen-Image, Wan 2.2 5B, LTX-2, HunyuanVideo 1.0, 1.5,"
    " SeedVR2 or Mochi"
)
_REMEDY = "Load one with Exact VAE Loader."


def _adopted(vae: Any, module: EngineModule) -> Any:
    """Core's VAE as one of ours: the same weights, the same handle of the host on them."""
    kind = host.vae_class(ExactMixin)
    ours = kind.__new__(kind)
    ours.__dict__.update(vae.__dict__)
    ours.first_stage_model = module
    return _engaged(ours)


def _what(vae: Any) -> str:
    return "nothing" if vae is None else type(vae).__name__
