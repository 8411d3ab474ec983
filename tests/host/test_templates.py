"""Do the nodes of core's official templates that have a VAE give core's untiled result through us?

1. A template is read from the package that core's own list of templates comes from, the newer
   host's or, where that has it no more, the older one's; its nodes that have a VAE are run with the
   widgets that they have there.
2. Models are left out: clips, latents and conditioning are random, and sizes smaller. The VAE is
   core's own, as its loader makes it, narrow and with random weights.
3. What a tiled node gives is compared with what core's untiled one gives.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from host import server
from host.client import Client, Prompt
from host.workflow import distance, widget_names

pytestmark = pytest.mark.host

MOST = 1e-4
FIND = """
import sys
from comfyui_workflow_templates import get_asset_path
print(get_asset_path(sys.argv[1], sys.argv[1] + ".json"))
"""


@dataclass(frozen=True, slots=True)
class Template:
    """name: of its file. family: of its VAE. latents: frames, rows, columns and channels.
    px: of a cell's side. nodes: how many of its nodes have a VAE. apart: whether core's tiles cut
    such latents.
    """

    name: str
    family: str
    latents: tuple[int, int, int, int]
    px: int
    nodes: int
    apart: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """In place of a template's own, where a node has them."""
        frames, rows, columns, _ = self.latents
        length = 4 * (frames - 1) + 1
        return {"width": columns * self.px, "height": rows * self.px, "length": length}


TEMPLATES = (
    Template("video_ltx2_t2v", "ltx", (3, 3, 18, 128), 32, 2, apart=True),
    Template("video_wan2_2_5B_ti2v", "wan22", (3, 4, 6, 48), 16, 2),
    Template("video_hunyuan_video_1.5_720p_t2v", "hunyuan15", (3, 3, 34, 32), 16, 5, apart=True),
    Template("video_hunyuan_video_1.5_720p_i2v", "hunyuan15", (3, 3, 5, 32), 16, 6),
    Template("mochi_text_to_video_example", "mochi", (3, 5, 7, 12), 8, 1),
    Template("utility_seedvr2_3b_int8_upscale_video", "seedvr2", (3, 5, 66, 16), 8, 2, apart=True),
)
CODERS = ("VAEDecode", "VAEDecodeTiled", "VAEEncode", "VAEEncodeTiled")
CONDITIONED = {
    "HunyuanVideo15ImageToVideo": "concat_latent_image",
    "HunyuanVideo15SuperResolution": "concat_latent_image",
}
"""What a node of that kind hangs on its conditioning."""


@cache
def path_of(name: str) -> Path:
    """Where a template lies."""
    for found in (server.checkout, server.registry):
        try:
            python = found().python
        except server.HostMissing:
            continue
        command = [str(python), "-c", FIND, name]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if not run.returncode:
            return Path(run.stdout.strip())
    pytest.skip(f"no ComfyUI here brings {name}")


def with_vae(name: str) -> list[dict[str, Any]]:
    """The nodes of a template, and of the subgraphs in it, that take a VAE of pictures and no model
    beside it.
    """
    workflow = json.loads(path_of(name).read_text(encoding="utf-8"))
    graphs = workflow, *workflow.get("definitions", {}).get("subgraphs", ())
    nodes = [node for graph in graphs for node in graph["nodes"]]
    taken = [(node, {slot["name"] for slot in node["inputs"]}) for node in nodes]
    return [node for node, names in taken if "vae" in names and "upscale_model" not in names]


def loaders(family: str) -> dict[str, Prompt]:
    """Core's VAE, and the same after our node."""
    core = {"class_type": "TestNarrowVAE", "inputs": {"family": family}}
    ours = {"chunk_size": 8, "norm_scope": "chunk", "memory_budget": 0.0, "reference": "core"}
    apply = {"class_type": "ExactVAEApply", "inputs": {"vae": ["0", 0], **ours}}
    return {"core": {"1": core}, "applied": {"0": core, "1": apply}}


def sources(template: Template) -> Prompt:
    """What a node's inputs are linked to, in place of models and files."""
    frames, rows, columns, channels = template.latents
    cells = {"frames": frames, "rows": rows, "columns": columns, "channels": channels}
    sizes = template.sizes
    clip = {"height": sizes["height"], "width": sizes["width"], "seed": 0, "negate": False}
    return {
        "samples": {"class_type": "TestLatents", "inputs": {**cells, "seed": 0}},
        "pixels": {"class_type": "TestClip", "inputs": {"frames": sizes["length"], **clip}},
        "start_image": {"class_type": "TestClip", "inputs": {"frames": 1, **clip}},
        "positive": {"class_type": "TestConditioning", "inputs": {}},
    }


LINKS = {
    "vae": ["1", 0],
    "samples": ["samples", 0],
    "latent": ["samples", 0],
    "pixels": ["pixels", 0],
    "start_image": ["start_image", 0],
    "positive": ["positive", 0],
    "negative": ["positive", 0],
}


def through(host: Client, loader: Prompt, template: Template, node: dict, kind: str = ""):
    """What a template's node gives; kind: another one, of the same inputs and no widgets."""
    used = kind or node["type"]
    widgets = {} if kind else widgets_of(host, node)
    sizes = {name: value for name, value in template.sizes.items() if name in widgets}
    links = {slot["name"]: LINKS[slot["name"]] for slot in node["inputs"] if slot["name"] in LINKS}
    prompt = {**loader, **sources(template)}
    prompt["9"] = {"class_type": used, "inputs": {**widgets, **sizes, **links}}
    last = "9"
    if used in CONDITIONED:
        hung = {"conditioning": ["9", 0], "key": CONDITIONED[used]}
        prompt["10"], last = {"class_type": "TestHung", "inputs": hung}, "10"
    capture = {"value": [last, 0], "name": "template"}
    host.succeed({**prompt, "11": {"class_type": "TestCapture", "inputs": capture}})
    return host.captured("template")


def widgets_of(host: Client, node: dict[str, Any]) -> dict[str, Any]:
    """By name, as the template has them."""
    names = widget_names(host.object_info()[node["type"]])
    return dict(zip(names, node["widgets_values"], strict=False))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_the_vae_nodes_of_an_official_template_equal_core_untiled(
    client: Client, template: Template, capsys: pytest.CaptureFixture[str]
):
    nodes = with_vae(template.name)
    by = loaders(template.family)
    if client.run({**by["core"], **ended()}).end == "execution_error":
        pytest.skip("this ComfyUI does not know the family")
    if any(node["type"] not in client.object_info() for node in nodes):
        pytest.skip("this ComfyUI lacks nodes of the template")
    assert len(nodes) == template.nodes
    ours, theirs = {}, {}
    for index, node in enumerate(nodes):
        untiled = node["type"].removesuffix("Tiled") if node["type"] in CODERS else ""
        wanted = through(client, by["core"], template, node, untiled)
        for name, found in (("applied", ours), ("core", theirs)):
            got = through(client, by[name], template, node)
            assert got.shape == wanted.shape
            found[f"{index} {node['type']}"] = distance(got, wanted)
    with capsys.disabled():
        print(f"\n{template.name}: through us {ours}; core itself {theirs}")  # noqa: T201
    assert max(ours.values()) <= MOST
    assert (max(theirs.values()) > 100 * MOST) == template.apart


def ended() -> Prompt:
    """Nodes that end a prompt with the VAE "1"."""
    size = {"frames": 1, "height": 64, "width": 64}
    return {
        "2": {"class_type": "TestReserved", "inputs": {"vae": ["1", 0], **size}},
        "3": {"class_type": "TestCapture", "inputs": {"value": ["2", 0], "name": "known"}},
    }
