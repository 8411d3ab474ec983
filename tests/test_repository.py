"""Does the repository hold what its rules promise: import costs, packaging, file sizes, paths?

Nothing here asks git: the tests also run on an unpacked archive.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE_LINES = 400
SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "out"}
TEXT_SUFFIXES = {
    "", ".cfg", ".css", ".html", ".js", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip
# The floors of `vae_core`, from the ground up: folders and single modules. Imports only go down.
FLOORS = (
    "errors", "settings", "geometry", "program", "families", "planning", "running", "streaming",
    "media", "posterior", "vae", "class_doors", "accelerate", "__init__", "datasets", "jobs", "cli",
    "__main__",
)  # fmt: skip
TORCH_FREE_FOLDERS = ("geometry", "program", "planning")

# Prints, as JSON, the top-level names that importing the module named by argv[2] brings in. With
# argv[3] == "alone" the package's own __init__ is left out, so that the module is seen by itself.
IMPORT_PROBE = """
import importlib, json, sys, types
root, name, how = sys.argv[1:4]
if how == "alone":
    package = types.ModuleType("vae_core")
    package.__path__ = [root + "/vae_core"]
    sys.modules["vae_core"] = package
sys.path.insert(0, root)
importlib.import_module(name)
print(json.dumps(sorted({key.partition(".")[0] for key in sys.modules})))
"""

# Loads the pack as ComfyUI does, under a name that is no identifier, then the engine inside it.
HOST_PROBE = """
import importlib, importlib.util, json, sys
root = sys.argv[1]
name = "custom_nodes/exact-video-vae"
spec = importlib.util.spec_from_file_location(
    name, root + "/__init__.py", submodule_search_locations=[root]
)
pack = importlib.util.module_from_spec(spec)
sys.modules[name] = pack
spec.loader.exec_module(pack)
importlib.import_module(name + ".vae_core")
print(json.dumps(sorted(sys.modules)))
"""


def _probe(code: str, *arguments: str) -> list[str]:
    """What `code` prints as JSON when an isolated interpreter runs it."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _files(folder: Path) -> Iterator[Path]:
    """Files that belong to the repository: no caches, environments or outputs."""
    for path in sorted(folder.iterdir()):
        if path.name == ".git":
            continue  # in a worktree it is a file, with a path of this machine
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name not in {".ci", ".github"}
            if not hidden and path.name not in SKIPPED_FOLDERS and path.suffix != ".egg-info":
                yield from _files(path)
        else:
            yield path


def _settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_pack_loads_as_the_host_loads_it():
    name = "a_pack_in_any_folder"
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    try:
        spec.loader.exec_module(pack)
    finally:
        for key in [key for key in sys.modules if key.partition(".")[0] == name]:
            del sys.modules[key]
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    assert (ROOT / pack.WEB_DIRECTORY).is_dir()


def test_the_engine_inside_the_pack_needs_no_installed_copy():
    names = _probe(HOST_PROBE, str(ROOT))
    assert "custom_nodes/exact-video-vae.vae_core" in names
    assert "vae_core" not in names, "a module of vae_core imports vae_core by its absolute name"


def test_importing_the_engine_imports_no_host_and_no_diffusers():
    loaded = _probe(IMPORT_PROBE, str(ROOT), "vae_core", "whole")
    assert not {"comfy", "comfy_api", "diffusers", "folder_paths", "transformers"} & set(loaded)


@pytest.mark.parametrize(
    "module",
    [
        f"{folder}.{path.stem}"
        for folder in ("", *TORCH_FREE_FOLDERS)
        for path in sorted((ROOT / "vae_core" / folder).glob("*.py"))
        if folder or path.stem in ("errors", "settings")
    ],
)
def test_geometry_programs_and_planning_import_no_torch(module: str):
    loaded = _probe(IMPORT_PROBE, str(ROOT), f"vae_core.{module.strip('.')}", "alone")
    assert not {"torch", "numpy"} & set(loaded)


def _imports(path: Path) -> Iterator[tuple[str, ...]]:
    """What a module of `vae_core` imports from it, each as the parts of a path from there."""
    package = path.relative_to(ROOT / "vae_core").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                yield (*base, *name.split("."))


def _floor(parts: tuple[str, ...]) -> int:
    """The floor of a module or of a name in the package's own `__init__`."""
    return FLOORS.index(parts[0]) if parts[0] in FLOORS else FLOORS.index("__init__")


def test_imports_only_go_down_the_floors_of_the_engine():
    upward = [
        f"{path.relative_to(ROOT)} imports {'.'.join(target)}"
        for path in _files(ROOT / "vae_core")
        if path.suffix == ".py"
        for target in _imports(path)
        if _floor(target) > _floor(path.relative_to(ROOT / "vae_core").with_suffix("").parts)
    ]
    assert upward == []


def test_every_part_of_the_engine_has_its_floor():
    parts = {p.stem for p in (ROOT / "vae_core").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert parts - {"__pycache__"} == set(FLOORS)


def test_no_modules_of_the_engine_import_each_other_in_a_circle():
    root = ROOT / "vae_core"
    graph = {
        path.relative_to(root).with_suffix("").parts: set(_imports(path))
        for path in _files(root)
        if path.suffix == ".py"
    }
    graph = {module: {t for t in targets if t in graph} for module, targets in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError where there is one


def test_only_the_engine_is_packaged():
    include = _settings()["tool"]["setuptools"]["packages"]["find"]["include"]
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {"nodes", "vae_core"} <= folders
    assert {name for name in folders if any(fnmatch(name, p) for p in include)} == {"vae_core"}


def test_the_manager_installs_nothing_that_the_host_brings():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {re.split(r"[<>=! ]", line)[0] for line in lines if line and line[0] != "#"}
    assert names == {"diffusers"}


def test_every_command_line_entry_returns_its_exit_code():
    (target,) = _settings()["project"]["scripts"].values()
    module, function = target.split(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    (entry,) = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    assert entry.returns is not None
    assert ast.unparse(entry.returns) == "int"


def test_continuous_integration_runs_the_command_that_the_readme_names():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "exec ./run test"
    assert "\n    ./run test\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", ["vae_core", "nodes", "web", "tests", "training"])
def test_no_file_is_longer_than_the_limit(folder: str):
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in _files(ROOT / folder)
        if path.suffix in {".css", ".js", ".py"}
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE_LINES} == {}


@pytest.mark.parametrize("folder", ["vae_core", "nodes"])
def test_the_product_is_written_in_the_oldest_python_it_promises(folder: str):
    oldest = _settings()["project"]["requires-python"].removeprefix(">=")
    version = (int(oldest.split(".")[0]), int(oldest.split(".")[1]))
    for path in _files(ROOT / folder):
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            ast.parse(text, filename=str(path), feature_version=version)


def test_no_file_names_a_path_of_one_machine():
    machine = re.compile(r"(?<![\w.])/(?:home|root|tmp|Users|work)/[\w.]|[A-Z]:\\\\?Users\\")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in _files(ROOT)
        if path.suffix in TEXT_SUFFIXES
        for match in machine.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
