"""Where does what a probe found stay, and when does it still hold?

One file of JSON for each kind of device and dtype, in the folder that a host gave (`keep_in`), else
in the user's own cache. It holds the facts that it was made under; where one of them is another
now, or the file is not what this module writes, there is nothing, and the probe is made anew.
Nothing that goes wrong with a file stops a run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, cast

from ..planning.routes import Finding, Route, Table
from ..planning.workspaces import ConvClass, Workspace

_LOG = logging.getLogger("vae_core")
_FORMAT = 2
_LARGEST_BYTES = 2**22

Facts = Mapping[str, str]


class _Kept:
    """Where files go. folder: None for the user's cache. warned: whether a failure was said."""

    folder: Path | None = None
    warned: bool = False


def keep_in(folder: str | os.PathLike[str] | None) -> None:
    """Keep what probes find in `folder`, which need not exist yet; None: in the user's cache."""
    _Kept.folder = None if folder is None else Path(folder)


def cache_folder() -> Path | None:
    """The user's folder for what can be made anew; None where there is no such place."""
    with contextlib.suppress(RuntimeError):  # a user without a home
        return _system_cache() / "exact_video_vae"
    return None


def _system_cache() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    given = os.environ.get("XDG_CACHE_HOME", "")
    # by the rule of that variable a relative path means nothing
    return Path(given) if os.path.isabs(given) else Path.home() / ".cache"


def path_for(facts: Facts) -> Path | None:
    """The file for a device and a dtype; None where there is no folder."""
    folder = _Kept.folder or cache_folder()
    if folder is None:
        return None
    words = f"{facts.get('device')}-{facts.get('dtype')}".removeprefix("torch.")
    return folder / f"probe-{re.sub(r'[^A-Za-z0-9]+', '-', words).strip('-').lower()}.json"


def read(facts: Facts) -> Table | None:
    """What was found under these very facts; None where nothing was."""
    path = path_for(facts)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LARGEST_BYTES))
        if content["format"] != _FORMAT or content["facts"] != dict(facts):
            return None
        return _table(content)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is in a file, a run goes on without it
        _warn(f"cannot be read ({type(error).__name__}) and is made anew: {path}")
        return None


def write(facts: Facts, table: Table) -> None:
    """Keep what was found, whole or not at all; nothing where that cannot be."""
    path = path_for(facts)
    if path is None:
        return
    text = json.dumps({"format": _FORMAT, "facts": dict(facts), **_content(table)}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, part = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
        try:
            with open(number, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        _warn(f"cannot be kept ({error.strerror}) and is made again next time: {path}")


def _warn(what: str) -> None:
    if not _Kept.warned:
        _LOG.warning("what the device's probe found %s", what)
    _Kept.warned = True


# As JSON


def _content(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "copied": table.copied,
        "wrong": list(table.wrong),
        "classes": [
            {**asdict(kind), "routes": [_finding_content(one) for one in findings]}
            for kind, findings in table.found.items()
        ],
        "raised": [{**asdict(kind), **asdict(line)} for kind, line in table.raised.items()],
    }


def _finding_content(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "route": finding.route.value}


def _table(content: dict[str, Any]) -> Table:
    """Raises where something is missing, or is not what it should be."""
    found = {
        _kind(entry): tuple(_finding(one) for one in entry["routes"])
        for entry in content["classes"]
    }
    raised = {_kind(entry): _workspace(entry) for entry in content["raised"]}
    wrong = tuple(_word(one) for one in content["wrong"])
    return Table(_word(content["title"]), found, wrong, raised, _number(content["copied"]))


def _finding(entry: dict[str, Any]) -> Finding:
    line, error, share = entry["workspace"], entry["error"], entry["share"]
    if not isinstance(entry["right"], bool):
        raise ValueError(entry["right"])
    return Finding(
        Route(entry["route"]),
        entry["right"],
        None if error is None else _number(error),
        None if share is None else _number(share),
        None if line is None else _workspace(line),
        _number(entry["seconds"]),
        int(_number(entry["operations"])),
    )


def _kind(entry: dict[str, Any]) -> ConvClass:
    frames, rows, columns = map(_count, cast("list[object]", entry["taps"]))
    names = ("in_channels", "out_channels", "stride", "stride_t")
    to = {name: _count(entry[name]) for name in names}
    return ConvClass(taps=(frames, rows, columns), **to)


def _workspace(entry: dict[str, Any]) -> Workspace:
    base = _number(entry["base_bytes"])
    return Workspace(int(base), _number(entry["per_input"]), _number(entry["per_output"]))


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    if not isfinite(value) or value < 0:
        raise ValueError(value)
    return value


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value
