"""What does each class of diffusers have of its own around the network, that a stand-in must keep?

1. `KINDS` names the classes that `accelerate` takes, each with what its methods do beside running
   the parts: how many frames they push through together, and how they treat other counts of frames.
2. `kind_of` tells which of them a module is.
3. LTX's methods take more than a video or latents: how much noise is left in latents (`temb`),
   which goes into the program of the decoder, and whether no later frames shall be seen (`causal`),
   which is what the module is made for, or refused.

Which network a class holds, and whether its authors clamp, is the family's business.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor, nn

from .errors import InputError
from .families.cogvideox_keys import RATIOS
from .settings import Fit, Layout, Settings

DROP_IN = Settings(layout=Layout.DIFFUSERS, size_fit=Fit.ERROR)
"""What `accelerate` takes unless told otherwise: the class's own frame counts, and nothing padded,
since the class's return types could not tell of it.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One class of diffusers.

    module: where it is. name: of the class.
    encoding, decoding: settings as they are meant for a live module of it, given those that the
        caller chose.
    told: whether its methods take more than a video or latents.
    bare: whether `_decode` and `tiled_decode` give the video itself, in no type of diffusers'.
    """

    module: str
    name: str
    encoding: Callable[[nn.Module, Settings], Settings]
    decoding: Callable[[nn.Module, Settings], Settings]
    told: bool = False
    bare: bool = False

    @property
    def type(self) -> type[nn.Module]:
        """The class itself, imported now."""
        return getattr(importlib.import_module(f"{_AUTOENCODERS}.{self.module}"), self.name)


_AUTOENCODERS = "diffusers.models.autoencoders"


def _in_sample_frames(module: nn.Module, settings: Settings) -> Settings:
    """CogVideoX's encode cuts chunks of its own length, which matters to the result."""
    frames = cast("Any", module).num_sample_frames_batch_size
    return replace(settings, chunk_frames=frames) if settings == DROP_IN else settings


def _in_latent_frames(module: nn.Module, settings: Settings) -> Settings:
    """CogVideoX's decode does so in latent frames."""
    frames = RATIOS.frames * cast("Any", module).num_latent_frames_batch_size
    return replace(settings, chunk_frames=frames) if settings == DROP_IN else settings


def _whole_cells(_: nn.Module, settings: Settings) -> Settings:
    """Wan's encode leaves out the frames behind the last 4k+1, Mochi's those behind the last 6k+1,
    and LTX's takes no others than 8k+1; of a layout they know nothing else, and chunks do not
    matter.
    """
    own = settings.layout is Layout.DIFFUSERS
    return replace(settings, layout=Layout.ALIGNED, frame_fit=Fit.CROP) if own else settings


def _no_other_frames(_: nn.Module, settings: Settings) -> Settings:
    """HunyuanVideo's encode is for 4k+1 frames and no others; of a layout it knows nothing else.
    What 1.0's class cuts up in time goes through whole.
    """
    own = settings.layout is Layout.DIFFUSERS
    return replace(settings, layout=Layout.ALIGNED, frame_fit=Fit.ERROR) if own else settings


KINDS = (
    Kind(
        "autoencoder_kl_cogvideox", "AutoencoderKLCogVideoX", _in_sample_frames, _in_latent_frames
    ),
    Kind("autoencoder_kl_wan", "AutoencoderKLWan", _whole_cells, _whole_cells),
    Kind("autoencoder_kl_qwenimage", "AutoencoderKLQwenImage", _whole_cells, _whole_cells),
    Kind("autoencoder_kl_ltx", "AutoencoderKLLTXVideo", _whole_cells, _whole_cells, told=True),
    Kind("autoencoder_kl_ltx2", "AutoencoderKLLTX2Video", _whole_cells, _whole_cells, told=True),
    Kind("autoencoder_kl_mochi", "AutoencoderKLMochi", _whole_cells, _whole_cells),
    Kind(
        "autoencoder_kl_hunyuanvideo15",
        "AutoencoderKLHunyuanVideo15",
        _no_other_frames,
        _no_other_frames,
        bare=True,
    ),
    Kind(
        "autoencoder_kl_hunyuan_video",
        "AutoencoderKLHunyuanVideo",
        _no_other_frames,
        _no_other_frames,
    ),
)


def kind_of(module: object) -> Kind | None:
    """The kind that a module is of, or is derived from; None where it is none of them."""
    for kind in KINDS:
        if any(base.__name__ == kind.name for base in type(module).__mro__) and isinstance(
            module, kind.type
        ):
            return kind
    return None


def timestep_of(temb: object) -> float | None:
    """How much noise a decoder is told of; None where nothing is said.

    temb: a number, or one for each clip, all the same. Raises `InputError` for others.
    """
    if temb is None or isinstance(temb, int | float):
        return None if temb is None else float(temb)
    values = [float(one) for one in temb.flatten()] if isinstance(temb, Tensor) else []
    if len(set(values)) != 1:
        raise InputError(
            "an accelerated VAE tells all clips of a batch the same timestep; got"
            f" {temb!r}. Decode them one by one."
        )
    return values[0]


def check_causal(module: nn.Module, name: str, causal: object) -> None:
    """`InputError` where a coder is told to see no later frames, and is made to see them."""
    if causal and not getattr(getattr(module, name), "is_causal", True):
        raise InputError(
            f"this VAE's {name} looks ahead; causal={causal!r} asks for another one. Leave it out,"
            f" or make the VAE with {name}_causal=True."
        )


def arguments_of(
    module: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What a call of one of the class's methods asks for, by name, defaults included; in order."""
    bound = inspect.signature(getattr(type(module), name)).bind(module, *args, **kwargs)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name != "self"}


def heeding(
    engine: Any, door: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What a door of an engine gives, once what it was told is heeded.

    engine: what stands in for a module's methods, as `accelerate` has it. door: one of them, which
        takes a video or latents, and whether a type of diffusers' is wanted.
    """
    name, module = door.__name__, engine.vae.module
    asked = arguments_of(module, name, args, kwargs)
    check_causal(module, "encoder" if "encode" in name else "decoder", asked.get("causal"))
    vae = replace(engine.vae, timestep=timestep_of(asked.get("temb")))
    first = next(iter(asked.values()))
    kept = {name: asked[name] for name in ("return_dict",) if name in asked}
    return door(replace(engine, vae=vae), first, **kept)
