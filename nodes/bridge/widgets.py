"""What can a person set on a node, and which values are legal?

Every node takes its widgets from here, so that one name means one thing. Names and order are kept
by saved workflows and never change: new widgets are only ever appended. Nothing here knows a tensor
or the host.

The server checks `min` and `max` of a widget only while a node does not name it in VALIDATE_INPUTS,
and never its `step`; linked values are never checked before they are there; and it shows a sentence
once for each input that is named. Hence nodes name chunk_size alone when a prompt is queued, and
ask `refusal` of all when they run.
"""

from __future__ import annotations

from typing import Any

CATEGORY = "Exact Video VAE"

Widget = tuple[Any, dict[str, Any]]

CHUNK_SIZE: Widget = (
    "INT",
    {
        "default": 8,
        "min": 4,
        "max": 4096,
        "step": 4,
        "tooltip": "Video frames that go through the network together; a multiple of 4. Memory"
        " grows with it. Within norm_scope 'chunk' it changes the picture very slightly, so keep it"
        " the same for encoding and decoding. 8 is what the model's own software uses. With other"
        " models than CogVideoX it never changes the picture, and is only the most that is taken at"
        " a time.",
    },
)
TILE_SIZE: Widget = (
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": 16384,
        "step": 16,
        "tooltip": "Largest tile in pixels; 0 lets the planner choose. With exact tiling it changes"
        " speed and memory, never the picture. With blend it is the size of the blended tiles (0"
        " means 256), and it does change the picture.",
    },
)
OVERLAP: Widget = (
    "INT",
    {
        "default": 64,
        "min": 0,
        "max": 8192,
        "step": 8,
        "advanced": True,
        "tooltip": "Pixels that neighbouring tiles share and blend over. Only used with tiling"
        " 'blend': exact tiles have no seams, so there is nothing to blend.",
    },
)
TILING: Widget = (
    ["exact", "blend", "off"],
    {
        "default": "exact",
        "tooltip": "exact: the same pixels as the untiled network, in any memory. blend:"
        " overlapping tiles faded into each other, as other nodes do; seams and colours may differ"
        " from the untiled picture. off: whole pictures, most memory.",
    },
)
NORM_SCOPE: Widget = (
    ["chunk", "clip"],
    {
        "default": "chunk",
        "advanced": True,
        "tooltip": "Over which frames the network's normalisation takes its statistics. chunk: over"
        " the frames of a chunk, as diffusers does. clip: over the whole clip, as the encoder was"
        " trained; activations of the whole clip are then kept, in host memory if need be. It"
        " means something for CogVideoX alone: elsewhere normalisation looks at single frames or"
        " voxels.",
    },
)
MEMORY_BUDGET: Widget = (
    "FLOAT",
    {
        "default": 0.0,
        "min": 0.0,
        "max": 1024.0,
        "step": 0.25,
        "round": 0.01,
        "tooltip": "GiB of graphics memory for activations, beside the weights; 0 takes what is"
        " free. The planner stays within it, moving activations to host memory where it must. A"
        " budget that is too small is refused before anything runs, with the smallest that would"
        " do.",
    },
)
FRAME_POLICY: Widget = (
    ["pad", "crop", "error"],
    {
        "default": "pad",
        "advanced": True,
        "tooltip": "What to do with frame counts other than 1, 5, 9, 13, ... (for LTX 1, 9, 17,"
        " 25, ..., for Mochi 1, 7, 13, 19, ...): repeat the last frame (taken off again after"
        " decoding), drop frames at the end, or stop with an error.",
    },
)
SIZE_POLICY: Widget = (
    ["pad", "crop", "error"],
    {
        "default": "pad",
        "advanced": True,
        "tooltip": "What to do with widths and heights that are no multiple of 8 (16 with Wan 2.2"
        " 5B and HunyuanVideo 1.5, 32 with LTX): repeat the edge (taken off again after decoding),"
        " cut pixels off right and below, or stop with an error.",
    },
)
POSTERIOR: Widget = (
    ["mode", "sample"],
    {
        "default": "mode",
        "advanced": True,
        "tooltip": "mode: the likeliest latents, always the same; right for editing and for"
        " image-to-video. sample: drawn from the encoder's distribution, as in training.",
    },
)
SAMPLE_SEED: Widget = (
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": 2**53 - 1,
        "control_after_generate": False,
        "advanced": True,
        "tooltip": "Seed of the noise where posterior is 'sample'. The same seed draws the same"
        " noise on every device, with every tiling and chunk size; with norm_scope 'chunk' the"
        " latents still differ very slightly between chunk sizes.",
    },
)

REFERENCE: Widget = (
    ["official", "core", "core-as-is"],
    {
        "default": "official",
        "advanced": True,
        "tooltip": "Whose result is meant where they differ: for HunyuanVideo, and where Mochi"
        " encodes. official: their authors', whose attention sees a frame and those before it."
        " core: that of ComfyUI's own class, whose attention sees later frames, too; what it needs"
        " of the whole clip is then kept in host memory. core-as-is: the same, with HunyuanVideo"
        " 1.0's encoder out of phase, as that class has it.",
    },
)

DEVICES: Widget = (
    "STRING",
    {
        "default": "",
        "advanced": True,
        "tooltip": "Devices that do the work together, the VAE's own among them, such as 'cuda:0,"
        " cuda:1'; empty: the VAE's own alone. Each makes a band of rows of everything, with the"
        " result of one. Weights are copied to the others as they are needed. memory_budget then"
        " counts for each. Blended tiles cannot be shared.",
    },
)

RUN_WIDGETS: dict[str, Widget] = {
    "chunk_size": CHUNK_SIZE,
    "tile_size": TILE_SIZE,
    "overlap": OVERLAP,
    "tiling": TILING,
    "norm_scope": NORM_SCOPE,
    "memory_budget": MEMORY_BUDGET,
}
"""What encoding, decoding and planning have in common, in this order."""

FIT_WIDGETS: dict[str, Widget] = {"frame_policy": FRAME_POLICY, "size_policy": SIZE_POLICY}
"""What is done to sizes that the network cannot take; encoding only."""

_ALL = {
    **RUN_WIDGETS,
    **FIT_WIDGETS,
    "posterior": POSTERIOR,
    "sample_seed": SAMPLE_SEED,
    "reference": REFERENCE,
    "devices": DEVICES,
}

SMALLEST_TILE = 16
SHORTEST_CHUNK: int = CHUNK_SIZE[1]["step"]


def usual_overlap(tile_px: int, latent_px: int = OVERLAP[1]["step"]) -> int:
    """A quarter of a tile in whole latent elements, each so many pixels wide."""
    return tile_px // 4 // latent_px * latent_px


def refusal(values: dict[str, Any]) -> str | None:
    """Why these widgets cannot be used, in a sentence that names the widget; None if they can.

    Values that are None (linked, not known yet) are passed over, and so are widgets of one node
    alone, which it checks itself.
    """
    known = {name: values[name] for name in _ALL if values.get(name) is not None}
    for name, value in known.items():
        if (reason := _out_of_range(name, value)) is not None:
            return reason
    return _chunk_refusal(known) or _tile_refusal(known) or _devices_refusal(known)


def device_names(written: str) -> tuple[str, ...]:
    """The devices that a person has written down, in any of the ways that one separates words."""
    return tuple(written.replace(",", " ").replace(";", " ").split())


def _out_of_range(name: str, value: Any) -> str | None:
    kind, options = _ALL[name]
    if isinstance(kind, list):
        names = ", ".join(kind)
        return None if value in kind else f"{name} must be one of {names}; got {value!r}."
    if kind == "STRING":
        return None if isinstance(value, str) else f"{name} must be text; got {value!r}."
    number = int if kind == "INT" else (int, float)
    if isinstance(value, bool) or not isinstance(value, number):
        what = "a whole number" if kind == "INT" else "a number"
        return f"{name} must be {what}; got {value!r}."
    low, high = options["min"], options["max"]
    return None if low <= value <= high else f"{name} must be {low} to {high}; got {value}."


def _chunk_refusal(values: dict[str, Any]) -> str | None:
    step = SHORTEST_CHUNK
    chunk = values.get("chunk_size", step)
    if chunk % step == 0:
        return None
    below = max(chunk // step * step, step)
    return (
        f"chunk_size must be a multiple of {step}, whatever the model; got {chunk}. Use {below} or"
        f" {below + step}."
    )


def _tile_refusal(values: dict[str, Any]) -> str | None:
    tile, overlap = values.get("tile_size", 0), values.get("overlap", 0)
    if 0 < tile < SMALLEST_TILE:
        return (
            f"tile_size must be 0, which lets the planner choose, or at least {SMALLEST_TILE}"
            f" pixels; got {tile}."
        )
    if values.get("tiling") == "blend" and 0 < tile <= overlap:
        return (
            f"overlap must be smaller than tile_size where tiles are blended; got an overlap of"
            f" {overlap} and tiles of {tile} pixels. Use an overlap of {usual_overlap(tile)}."
        )
    return None


def _devices_refusal(values: dict[str, Any]) -> str | None:
    names = device_names(values.get("devices", ""))
    if len(names) != 1:
        return None
    return (
        f"devices must name two or more that share a run, such as 'cuda:0, cuda:1'; got {names[0]}"
        " alone. Name another one, or leave it empty: the VAE's own device then does all."
    )
