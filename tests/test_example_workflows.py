"""Are the example workflows whole, without a host: widgets, links, notes and pictures?

That they run, and what they give, is for tests/host.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ltx_files import CHECKPOINT
from pack import ROOT, node, pack
from PIL import Image

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
REAL_FILES = {
    "tiny_vae": ("cogvideox_vae_bf16.safetensors", "CogVideoX-5b/vae", "3d-vae.pt"),
    "tiny_wan_vae": ("wan_2.1_vae.safetensors", "qwen_image_vae.safetensors", "Wan2.1_VAE.pth"),
    CHECKPOINT: ("ltx-2-19b-dev.safetensors", "ltx-2.3-22b-dev.safetensors"),
}
"""By the VAE that a workflow is stored with: the files that a person puts in its place. All but
LTX's ship with the pack.
"""


def of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_are_workflows_for_every_node_but_the_conversion():
    used = {item["type"] for path in WORKFLOWS for item in of(path)["nodes"]}
    ours = set(pack().NODE_CLASS_MAPPINGS)
    assert len(WORKFLOWS) >= 5
    assert ours - used <= {"ExactVAEEncodeTiled", "ExactVAELatentConvert"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_a_picture_and_a_note_with_the_real_models_files(path: Path):
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert picture.width >= 480
    (note,) = [item for item in of(path)["nodes"] if item["type"] == "MarkdownNote"]
    loaders = [item for item in of(path)["nodes"] if item["type"] == "ExactVAELoader"]
    (shipped,) = {item["widgets_values"][0].partition(" ")[0] for item in loaders}
    for name in REAL_FILES[shipped]:
        assert name in note["widgets_values"][0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_gives_each_of_our_widgets_a_legal_value(path: Path):
    for item in of(path)["nodes"]:
        if not item["type"].startswith("Exact"):
            continue
        groups = node(item["type"]).INPUT_TYPES()
        widgets = {
            name: spec
            for name, spec in {**groups["required"], **groups.get("optional", {})}.items()
            if isinstance(spec[0], list) or spec[0] in {"INT", "FLOAT", "STRING"}
        }
        values = dict(zip(widgets, item["widgets_values"], strict=True))
        for name, (kind, options) in widgets.items():
            if values[name] == CHECKPOINT:
                assert (item["type"], name) == ("ExactVAELoader", "vae_name")
            elif isinstance(kind, list):
                assert values[name] in kind, name
            elif kind != "STRING":
                assert options["min"] <= values[name] <= options["max"], name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_links_of_a_workflow_have_two_ends_of_one_type(path: Path):
    workflow = of(path)
    nodes = {item["id"]: item for item in workflow["nodes"]}
    for link, source, output, target, entry, kind in workflow["links"]:
        start, end = nodes[source]["outputs"][output], nodes[target]["inputs"][entry]
        assert link in start["links"]
        assert link == end["link"]
        assert start["type"] == kind
        assert end["type"] in {kind, "*"}
    assert workflow["last_node_id"] == max(nodes)
    assert workflow["last_link_id"] == max(link[0] for link in workflow["links"])


def test_the_ltx_workflow_decodes_as_core_s_template_does():
    """With its node and widgets, and the VAE of a checkpoint that it loads."""
    (path,) = [path for path in WORKFLOWS if "ltx" in path.stem]
    nodes = {item["type"]: item for item in of(path)["nodes"]}
    assert nodes["VAEDecodeTiled"]["widgets_values"] == [512, 64, 4096, 8]
    assert nodes["ExactVAELoader"]["widgets_values"][0] == CHECKPOINT
    frames, width = (nodes["ExactVAEEncodeVideo"]["widgets_values"][i] for i in (2, 5))
    assert frames % 8 == 1
    assert width % 32 == 0
