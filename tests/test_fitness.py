"""Does the host start, with what still works, whatever is wrong with the pack or around it?"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pack import ROOT, node, part, run

ALL = 8
MODULES = {"loader": 2, "encode": 1, "decode": 1, "video": 2, "plan": 1, "convert": 1}
NEEDS_ENCODE = set(MODULES) - {"convert", "encode"}
"""Modules that take a check of widgets from the encoder's."""


class Routes(list[Any]):
    """What a server has been told to answer, as the host keeps it until it starts."""

    def post(self, path: str) -> Any:
        def add(handler: Any) -> Any:
            self.append(SimpleNamespace(path=path, handler=handler))
            return handler

        return add


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    """Those of a server that is there."""
    found = Routes()
    instance = SimpleNamespace(routes=found)
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", server)
    monkeypatch.setitem(sys.modules, "aiohttp", SimpleNamespace(web=None))
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a folder with a copy of the nodes; modules loaded from it are forgotten again."""
    before = set(sys.modules)

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(ROOT / "nodes", folder / "nodes", ignore=lambda *_: {"__pycache__"})
        shutil.copy(ROOT / "__init__.py", folder)
        return folder

    yield make
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def loaded(folder: Path) -> ModuleType:
    """The pack in a folder, loaded as the host does; nothing may be raised."""
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = module
    spec.loader.exec_module(module)
    return module


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of; each is one line."""
    found = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert all("\n" not in line and "Exact Video VAE" in line for line in found)
    assert all(entry.exc_info is None for entry in caplog.records)
    return found


def test_of_two_copies_the_second_stands_back_and_says_where_both_are(place, routes, caplog):
    first, second = loaded(place("first_copy")), loaded(place("second_copy"))
    assert len(first.NODE_CLASS_MAPPINGS) == ALL
    assert (second.NODE_CLASS_MAPPINGS, second.WEB_DIRECTORY) == ({}, None)
    assert len(routes) == 1
    (line,) = lines(caplog)
    assert "first_copy is used" in line
    assert "second_copy is not" in line


def test_a_copy_that_is_loaded_anew_keeps_its_nodes(place, routes, caplog):
    folder = place("a_copy")
    loaded(folder)
    for name in [name for name in sys.modules if name.startswith("a_copy")]:
        del sys.modules[name]
    assert len(loaded(folder).NODE_CLASS_MAPPINGS) == ALL
    assert len(routes) == 1
    assert lines(caplog) == []


def test_the_route_of_an_earlier_version_is_seen(place, routes, caplog):
    routes.post("/exact_video_vae/plan")(lambda request: None)
    assert loaded(place("newer")).NODE_CLASS_MAPPINGS == {}
    assert "installed twice" in lines(caplog)[0]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("wrong", ["<<<<<<< HEAD\n", "raise SystemExit(1)\n", "import nowhere\n"])
def test_a_broken_file_takes_its_own_nodes_alone(place, routes, caplog, module, wrong):
    folder = place(f"broken_{module}")
    (folder / "nodes" / f"{module}.py").write_text(wrong, encoding="utf-8")
    found = loaded(folder)
    lost = NEEDS_ENCODE | {"encode"} if module == "encode" else {module}
    assert len(found.NODE_CLASS_MAPPINGS) == ALL - sum(MODULES[name] for name in lost)
    assert set(found.NODE_DISPLAY_NAME_MAPPINGS) == set(found.NODE_CLASS_MAPPINGS)
    assert len(lines(caplog)) == len(lost)
    assert len(routes) == 1


@pytest.mark.parametrize("name", ["__init__", "bridge/fitness", "bridge/__init__"])
def test_where_nothing_can_be_loaded_one_line_says_so(place, routes, caplog, name):
    folder = place("ruined")
    (folder / "nodes" / f"{name}.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    found = loaded(folder)
    assert (found.NODE_CLASS_MAPPINGS, found.WEB_DIRECTORY) == ({}, None)
    (line,) = lines(caplog)
    assert "no node can be offered" in line


@pytest.mark.parametrize("instance", [None, SimpleNamespace(), SimpleNamespace(routes=object())])
def test_a_server_of_another_make_costs_the_plans_alone(
    place, monkeypatch: pytest.MonkeyPatch, instance
):
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", server)
    assert len(loaded(place("elsewhere")).NODE_CLASS_MAPPINGS) == ALL


@pytest.mark.parametrize("package", ["diffusers", "av", "safetensors"])
def test_a_missing_package_is_named_at_the_start_with_what_still_works(
    place, routes, caplog, monkeypatch: pytest.MonkeyPatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    assert len(loaded(place("poor")).NODE_CLASS_MAPPINGS) == ALL
    (line,) = lines(caplog)
    assert f"package {package} is not installed" in line
    assert "still work" in line
    assert f"pip install {package}" in line


class NeedsMuch:
    """A node that needs a package which nobody has."""

    FUNCTION = "run"

    def run(self) -> None:
        """Fails."""
        importlib.import_module("no_such_package.part")


def test_a_node_without_its_package_says_which_and_where_to_put_it():
    told = part("nodes.bridge.fitness").explained(NeedsMuch, "Exact VAE Something")
    sentence = "Exact VAE Something needs the package no_such_package, which is missing"
    with pytest.raises(Exception, match=sentence) as caught:
        told().run()
    assert sys.executable in str(caught.value)


def test_a_package_that_fails_while_it_is_imported_is_told_too():
    missing = part("nodes.bridge.missing")
    wrapped = RuntimeError("Failed to import a_package.part")
    wrapped.__cause__ = ImportError("numpy.core.multiarray failed to import")
    told = missing.lacking("The plan", wrapped)
    assert told == (
        "The plan needs a package that cannot be imported: numpy.core.multiarray failed to import."
    )
    assert missing.lacking("The plan", RuntimeError("out of memory")) is None


def test_an_error_of_a_run_passes_as_it_is():
    with pytest.raises(part("vae_core").LoadError, match="there is no 'gone' any more"):
        run("ExactVAELoader", change={"vae_name": "gone"})
    assert node("ExactVAELoader").load.__doc__ == "The VAE called `vae_name`."
