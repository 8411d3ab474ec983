"""Every node has a help page that names all that the node has, with its defaults."""

from __future__ import annotations

import json
import re
from typing import Any

import pack
import pytest

DOCS = pack.ROOT / "web" / "docs"
NODES = sorted(pack.pack().NODE_CLASS_MAPPINGS)
SECTIONS = [
    "When to use it",
    "Inputs",
    "Outputs",
    "Example",
    "What goes wrong",
]
FROM_DISK = {"vae_name", "file"}
"""Their choices, and so their defaults, depend on the machine."""


def page(node: str) -> str:
    """The text of a help page."""
    return (DOCS / f"{node}.md").read_text(encoding="utf-8")


def section(node: str, title: str) -> str:
    """What stands under a heading of a page."""
    return page(node).split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(node: str, title: str) -> dict[str, list[str]]:
    """The rows of a section's table, by the name in their first cell."""
    found = re.findall(r"^\| `(\w+)` \|(.*)\|$", section(node, title), flags=re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" |")] for name, rest in found}


def inputs(node: str) -> dict[str, Any]:
    """All inputs of a node that a person sees."""
    groups = pack.node(node).INPUT_TYPES()
    return {**groups["required"], **groups.get("optional", {})}


def outputs(node: str) -> list[str]:
    """The names of a node's outputs."""
    kind = pack.node(node)
    return list(getattr(kind, "RETURN_NAMES", kind.RETURN_TYPES))


def test_there_is_a_page_for_every_node_and_for_nothing_else() -> None:
    assert sorted(path.stem for path in DOCS.glob("**/*.md")) == NODES


@pytest.mark.parametrize("node", NODES)
def test_a_page_begins_with_the_nodes_name_and_has_all_sections(node: str) -> None:
    name = pack.pack().NODE_DISPLAY_NAME_MAPPINGS[node]
    assert page(node).startswith(f"# {name}\n")
    headings = re.findall(r"^## (.*)$", page(node), flags=re.MULTILINE)
    assert headings[: len(SECTIONS)] == SECTIONS
    assert all(section(node, heading).strip() for heading in headings)


@pytest.mark.parametrize("node", NODES)
def test_a_page_has_a_row_for_every_input_in_the_nodes_order(node: str) -> None:
    assert list(rows(node, "Inputs")) == list(inputs(node))


@pytest.mark.parametrize("node", NODES)
def test_a_page_has_a_row_for_every_output_in_the_nodes_order(node: str) -> None:
    assert list(rows(node, "Outputs")) == outputs(node)


@pytest.mark.parametrize("node", NODES)
def test_a_page_gives_the_defaults_of_all_widgets(node: str) -> None:
    told = {name: cells[0] for name, cells in rows(node, "Inputs").items()}
    for name, default in pack.widgets(node).items():
        if name not in FROM_DISK:
            expected = f"{default:g}" if isinstance(default, float) else str(default)
            assert told[name] == expected, name


@pytest.mark.parametrize("node", NODES)
def test_a_page_explains_every_choice_of_a_widget(node: str) -> None:
    told = rows(node, "Inputs")
    for name, (kind, *_) in inputs(node).items():
        if isinstance(kind, list) and name not in FROM_DISK:
            text = " ".join(told[name])
            assert [choice for choice in kind if choice not in text] == [], name


@pytest.mark.parametrize("node", NODES)
def test_workflows_that_a_page_names_exist_and_hold_the_node(node: str) -> None:
    for name in re.findall(r"`(example_workflows/[^`]*)`", page(node)):
        workflow = json.loads((pack.ROOT / name).read_text(encoding="utf-8"))
        assert node in {item["type"] for item in workflow["nodes"]}, name


@pytest.mark.parametrize("node", NODES)
def test_nodes_of_this_pack_that_a_page_names_exist(node: str) -> None:
    names = pack.pack().NODE_DISPLAY_NAME_MAPPINGS.values()
    rest = page(node)
    for name in sorted(names, key=len, reverse=True):
        rest = re.sub(re.escape(name).replace(r"\ ", r"\s"), "", rest)
    # What encoding padded: by either of the two encoding nodes.
    assert re.findall(r"Exact VAE\s(?!Encode added)\w+", rest) == []
