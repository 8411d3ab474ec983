"""Does the pack keep its promises to saved workflows, to readers and to the host's start?

`nodes_snapshot.json` holds what saved workflows rely on. A change that breaks none of them (a new
node, a widget appended at the end) is added to it by hand; anything else is a mistake.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pack import ROOT, pack

SNAPSHOT = Path(__file__).with_name("nodes_snapshot.json")
NODES = pack().NODE_CLASS_MAPPINGS

# Loads the pack as the host does, with torch there already; prints new and all modules.
IMPORT_PROBE = """
import importlib.util, json, sys
import torch
root = sys.argv[1]
before = set(sys.modules)
spec = importlib.util.spec_from_file_location(
    "a_pack", root + "/__init__.py", submodule_search_locations=[root]
)
pack = importlib.util.module_from_spec(spec)
sys.modules["a_pack"] = pack
spec.loader.exec_module(pack)
print(json.dumps([sorted(set(sys.modules) - before), sorted(sys.modules)]))
"""


def _type_of(kind: Any) -> Any:
    """A widget's type; of a choice only that it is one, where its entries are files."""
    return kind if isinstance(kind, str) else "COMBO"


def _widgets(name: str) -> list[list[Any]]:
    """[name, type, default, choices] of the inputs of a node in order."""
    found = []
    for group in ("required", "optional"):
        for key, (kind, *options) in NODES[name].INPUT_TYPES().get(group, {}).items():
            choices = kind if isinstance(kind, list) and key not in {"vae_name", "file"} else None
            default = (options[0] if options else {}).get("default", choices and choices[0])
            found.append([key, _type_of(kind), default, choices])
    return found


def _contract() -> dict[str, Any]:
    return {
        name: {
            "inputs": _widgets(name),
            "outputs": list(getattr(kind, "RETURN_NAMES", kind.RETURN_TYPES)),
            "types": list(kind.RETURN_TYPES),
        }
        for name, kind in NODES.items()
    }


def test_saved_workflows_keep_loading():
    stored = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert _contract() == stored


def test_node_ids_say_whose_they_are_and_have_a_name_for_people():
    names = pack().NODE_DISPLAY_NAME_MAPPINGS
    assert set(names) == set(NODES)
    assert all(name.startswith("ExactVAE") for name in NODES)
    assert len(set(names.values())) == len(NODES)


@pytest.mark.parametrize("name", NODES)
def test_everything_that_a_person_sees_is_explained(name: str):
    kind = NODES[name]
    assert len(kind.DESCRIPTION) > 40
    assert kind.CATEGORY == "Exact Video VAE"
    assert len(kind.SEARCH_ALIASES) >= 3
    assert len(kind.OUTPUT_TOOLTIPS) == len(kind.RETURN_TYPES)
    types = kind.INPUT_TYPES()
    for group in ("required", "optional"):
        for key, (_, *options) in types.get(group, {}).items():
            assert options, f"{key} has no tooltip"
            assert len(options[0].get("tooltip", "")) > 10, f"{key} has no tooltip"


@pytest.mark.parametrize("name", NODES)
def test_defaults_are_legal(name: str):
    kind = NODES[name]
    assert callable(getattr(kind, kind.FUNCTION))
    for key, (type_, *options) in kind.INPUT_TYPES()["required"].items():
        limits = options[0]
        if isinstance(type_, list):
            assert limits.get("default", type_[0]) in type_, key
        elif type_ in {"INT", "FLOAT"}:
            assert limits["min"] <= limits["default"] <= limits["max"], key


def test_loading_the_pack_costs_nothing():
    """Counted in modules, which are the same on every machine: time is not."""
    command = [sys.executable, "-I", "-c", IMPORT_PROBE, str(ROOT)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    new, loaded = json.loads(done.stdout)
    ours = {name for name in new if name.partition(".")[0] == "a_pack"}
    others = {name.partition(".")[0] for name in new} - {"a_pack"}
    assert others <= sys.stdlib_module_names | {"psutil"}  # which the host itself loads
    assert not {name for name in ours if name.startswith("a_pack.vae_core.")}
    assert len(ours) <= 1 + len(list((ROOT / "nodes").rglob("*.py")))
    assert not {"diffusers", "transformers"} & {name.partition(".")[0] for name in loaded}
