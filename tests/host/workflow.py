"""How does a workflow file become a prompt, and what should it give?

1. `to_prompt` does what the web client does when a person presses Run: widgets by position, links,
   nothing of notes.
2. `captures` adds a node that writes out each tensor our nodes and core's VAE nodes give.
3. `Expected` computes the same from the prompt with `vae_core` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from host.client import Prompt
from safetensors.torch import load_file
from torch import Tensor

from vae_core import Settings, VideoVAE, sample_clip_path
from vae_core.media.framing import Framing
from vae_core.media.video import Resize, Selection, frames_to_tensor, open_video, read_video

NOTES = {"MarkdownNote", "Note"}
WIDGETS = {"BOOLEAN", "COMBO", "FLOAT", "INT", "STRING"}


def widget_names(info: dict[str, Any]) -> list[str]:
    """The widgets of a node, in the order of `widgets_values`."""
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return [
        name for name, (kind, *_) in inputs.items() if isinstance(kind, list) or kind in WIDGETS
    ]


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> Prompt:
    """The prompt of a workflow in the web client's format."""
    origins = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        names = widget_names(object_info[node["type"]])
        values = node["widgets_values"]
        assert len(values) <= len(names), f"{node['type']} has widgets {names}, got {values}"
        inputs = dict(zip(names, values, strict=False))
        for slot in node["inputs"]:
            if slot["link"] is not None:
                inputs[slot["name"]] = origins[slot["link"]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def captures(prompt: Prompt, object_info: dict[str, Any]) -> dict[str, str]:
    """{name of a capture: node}; adds the nodes that make them to `prompt`."""
    found = {}
    for key, node in list(prompt.items()):
        kind = node["class_type"]
        is_ours = kind.startswith(("Exact", "VAE"))
        if is_ours and object_info[kind]["output"][0] in {"IMAGE", "LATENT"}:
            name = f"{kind}_{key}"
            capture = {"value": [key, 0], "name": name}
            prompt[f"capture_{key}"] = {"class_type": "TestCapture", "inputs": capture}
            found[name] = key
    return found


class Expected:
    """What the nodes of a prompt should give, by `vae_core` alone."""

    def __init__(self, prompt: Prompt, engine: VideoVAE, base: Path) -> None:
        self._prompt, self._engine, self._base = prompt, engine, base
        self._done: dict[str, Tensor] = {}

    def of(self, key: str) -> Tensor:
        """Latents [1, c, n, h, w], or pictures [t, h, w, 3] in [0, 1]."""
        if key not in self._done:
            node = self._prompt[key]
            make = getattr(self, "_" + node["class_type"])
            self._done[key] = make(node["inputs"])
        return self._done[key]

    def handed_on(self, key: str) -> Tensor:
        """The same as the node gives it: LTX's latents are normalised by its VAE."""
        made, statistics = self.of(key), self._engine.latent_statistics
        if self._engine.family.name == "ltx" and made.ndim == 5 and statistics:
            return statistics.normalised(made)
        return made

    def _settings(self, inputs: dict[str, Any], **fits: Any) -> Settings:
        blended = inputs.get("tiling") == "blend"
        return Settings(
            chunk_frames=inputs.get("chunk_size", 8),
            norm_scope=inputs.get("norm_scope", "chunk"),
            tiling="blend" if blended else "exact",
            tile_px=inputs["tile_size"] if blended else None,
            overlap_px=inputs["overlap"] if blended else 64,
            **fits,
        )

    def _ExactVAEEncodeVideo(self, inputs: dict[str, Any]) -> Tensor:
        with open_video(sample_clip_path()) as video:
            own = video.info
        height = round(own.height_px * inputs["width"] / own.width_px / 8) * 8
        resize = Resize(height, inputs["width"], Framing(inputs["framing"]))
        selection = Selection(max_frames=inputs["count"] or None)
        clip = read_video(sample_clip_path(), selection, resize)
        return self._engine.encode(frames_to_tensor(clip.frames), self._settings(inputs)).mode()

    def _ExactVAEDecodeFramewise(self, inputs: dict[str, Any]) -> Tensor:
        video = self._engine.decode(self.of(inputs["samples"][0]), self._settings(inputs))
        return ((video.movedim(1, -1).flatten(0, 1) + 1.0) / 2.0).clamp(0.0, 1.0)

    _ExactVAEDecodeVideo = _ExactVAEDecodeFramewise

    def _ExactVAEEncodeTiled(self, inputs: dict[str, Any]) -> Tensor:
        return self._encoded(inputs["images"], self._settings(inputs))

    def _VAEDecode(self, inputs: dict[str, Any]) -> Tensor:
        return self._ExactVAEDecodeFramewise({"samples": inputs["samples"]})

    _VAEDecodeTiled = _VAEDecode

    def _VAEEncode(self, inputs: dict[str, Any]) -> Tensor:
        return self._encoded(inputs["pixels"], Settings(frame_fit="crop", size_fit="crop"))

    def _encoded(self, images: Any, settings: Settings) -> Tensor:
        video = (self.of(images[0]) * 2.0 - 1.0).permute(3, 0, 1, 2).unsqueeze(0)
        return self._engine.encode(video, settings).mode()

    _VAEEncodeTiled = _VAEEncode

    def _LoadLatent(self, inputs: dict[str, Any]) -> Tensor:
        name = inputs["latent"].removesuffix(" [output]")
        return load_file(self._base / "output" / name)["latent_tensor"]


def distance(got: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the range of values."""
    span = max(float(expected.max() - expected.min()), 1.0)
    return float((got.to(torch.float32) - expected).abs().max()) / span
