"""Translations cover exactly what the nodes have, in the shape that the host's client reads.

The host merges locales/<language>/main.json with nodeDefs.json and serves them at /i18n. The client
looks a text up by node, then `inputs` and the input's name, or `outputs` and the output's number.
What the panel says lies under `exactVideoVae`; tests/web holds it against the panel's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pack
import pytest

LOCALES = pack.ROOT / "locales"
LANGUAGES = ["en", "fr", "ja", "zh"]
OTHERS = [language for language in LANGUAGES if language != "en"]
FROM_DISK = {"vae_name", "file"}
"""Their choices are files of the machine, which no one translates."""

MESSAGE_SYNTAX = set("{}@|")
"""What vue-i18n reads as placeholders, links and plurals."""

Texts = dict[tuple[str, ...], str]


def definitions() -> dict[str, Any]:
    """What the nodes themselves say, in the shape of nodeDefs.json."""
    titles = pack.pack().NODE_DISPLAY_NAME_MAPPINGS
    return {
        node: {
            "display_name": titles[node],
            "description": kind.DESCRIPTION,
            "inputs": {name: _input(name, *spec) for name, spec in _inputs(kind).items()},
            "outputs": _outputs(kind),
        }
        for node, kind in pack.pack().NODE_CLASS_MAPPINGS.items()
    }


def _inputs(kind: type[Any]) -> dict[str, Any]:
    groups = kind.INPUT_TYPES()
    return {**groups["required"], **groups.get("optional", {})}


def _input(name: str, kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    entry = {"name": name, "tooltip": options["tooltip"]}
    if isinstance(kind, list) and name not in FROM_DISK:
        return {**entry, "options": {choice: choice for choice in kind}}
    return entry


def _outputs(kind: type[Any]) -> dict[str, Any]:
    names = getattr(kind, "RETURN_NAMES", kind.RETURN_TYPES)
    pairs = zip(names, kind.OUTPUT_TOOLTIPS, strict=True)
    return {str(index): {"name": name, "tooltip": tip} for index, (name, tip) in enumerate(pairs)}


def flat(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """All texts of a tree of dictionaries, each with the keys that lead to it."""
    if isinstance(tree, str):
        yield path, tree
        return
    assert isinstance(tree, dict), f"{path} holds no text"
    for key, value in tree.items():
        yield from flat(value, (*path, key))


def texts(language: str, file: str) -> Texts:
    """All texts of one file."""
    path = LOCALES / language / f"{file}.json"
    return dict(flat(json.loads(path.read_text(encoding="utf-8"))))


OURS: Texts = dict(flat(definitions()))


def test_the_languages_are_those_that_were_promised() -> None:
    assert sorted(path.name for path in LOCALES.iterdir()) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_only_files_that_the_host_reads(language: str) -> None:
    names = {path.name for path in (LOCALES / language).iterdir()}
    assert names == {"main.json", "nodeDefs.json"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_covers_the_definitions_with_nothing_left_over(language: str) -> None:
    found = texts(language, "nodeDefs").keys()
    assert sorted(OURS.keys() - found) == [], "missing"
    assert sorted(found - OURS.keys()) == [], "left over"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_names_every_category(language: str) -> None:
    kinds = pack.pack().NODE_CLASS_MAPPINGS.values()
    parts = {part for kind in kinds for part in kind.CATEGORY.split("/")}
    found = {path for path in texts(language, "main") if path[0] != "exactVideoVae"}
    assert found == {("nodeCategories", part) for part in parts}


def test_english_texts_are_the_definitions_own() -> None:
    assert texts("en", "nodeDefs") == OURS
    assert all(path[-1] == text for path, text in texts("en", "main").items())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_has_space_around_it(language: str) -> None:
    for file in ("main", "nodeDefs"):
        for path, text in texts(language, file).items():
            assert text, path
            assert text == text.strip(), path


@pytest.mark.parametrize("language", OTHERS)
def test_sentences_are_translated(language: str) -> None:
    found = texts(language, "nodeDefs")
    same = [path for path, text in OURS.items() if text.endswith(".") and found[path] == text]
    assert same == []


@pytest.mark.parametrize("language", OTHERS)
def test_sentences_are_not_shared_between_languages(language: str) -> None:
    found = texts(language, "nodeDefs")
    for other in set(OTHERS) - {language}:
        theirs = texts(other, "nodeDefs")
        sentences = (path for path, text in OURS.items() if text.endswith("."))
        assert [path for path in sentences if found[path] == theirs[path]] == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_translated_tooltip_explains_the_values_that_the_english_one_explains(
    language: str,
) -> None:
    found = texts(language, "nodeDefs")
    for path in OURS:
        if path[3:4] == ("options",):
            value, tip = path[4], (*path[:3], "tooltip")
            if re.search(rf"\b{re.escape(value)}:", OURS[tip]):
                assert value in found[tip], path


@pytest.mark.parametrize("language", OTHERS)
def test_labels_of_one_widgets_choices_differ(language: str) -> None:
    labels: dict[tuple[str, ...], list[str]] = {}
    for path, text in texts(language, "nodeDefs").items():
        if "options" in path:
            labels.setdefault(path[:-1], []).append(text)
    assert [path for path, found in labels.items() if len(set(found)) < len(found)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_inputs_of_one_node_have_labels_of_their_own(language: str) -> None:
    labels: dict[str, list[str]] = {}
    for path, text in texts(language, "nodeDefs").items():
        if path[1] == "inputs" and path[3:] == ("name",):
            labels.setdefault(path[0], []).append(text)
    assert [node for node, found in labels.items() if len(set(found)) < len(found)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_client_would_take_for_syntax(language: str) -> None:
    found = [*texts(language, "nodeDefs").values(), *texts(language, "main").values()]
    assert [text for text in found if MESSAGE_SYNTAX & set(text)] == []


def test_no_key_holds_a_dot_which_the_client_would_replace() -> None:
    assert [path for path in OURS if any("." in key for key in path)] == []
