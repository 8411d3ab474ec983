"""What of the pack cannot work in this host, and how is that said in one line?

1. `answers_alone`: one copy of the pack answers the web client. A second one, in another folder,
   stands back: the host would not start with the route there twice.
2. `warn`: what is wrong goes to the log as one line; nothing here raises while the host starts.
3. `explained`: a node that needs a package which is missing or broken says which, when it runs.

Nothing is imported to find out: a package counts as there when it can be found.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from .missing import lacking, remedy

NEEDED = {
    "diffusers": "Exact VAE Loader cannot build a VAE; VAEs of other loaders still work",
    "av": "the video nodes cannot read or write files; the other nodes still work",
    "safetensors": "Exact VAE Loader cannot read weights; VAEs of other loaders still work",
}
"""By package: what does not work without it, and what does."""

_log = logging.getLogger(__name__)


class PackageError(Exception):
    """A node needs a package that this Python lacks or cannot import; the sentence says which."""


def warn(what: str) -> None:
    """A line of the log that says whose it is."""
    _log.warning("Exact Video VAE: %s", " ".join(what.split()))


def answers_alone() -> bool:
    """Let the host's server answer this copy's route; False where another copy's stands already.

    Says in the log what of the pack will not work.
    """
    other = None
    try:
        from . import routes

        other = routes.register()
    except Exception as error:
        warn(f"no plans in the graph editor, the nodes work: {type(error).__name__}: {error}.")
    if other is not None:
        here = Path(__file__).parents[2]
        warn(f"it is installed twice: {other} is used, {here} is not. Remove one of the two.")
        return False
    for package, lost in NEEDED.items():
        if not _is_there(package):
            warn(f"the package {package} is not installed: {lost}. {remedy(package)}")
    return True


def _is_there(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def explained(kind: type[Any], title: str) -> type[Any]:
    """`kind`, a node called `title`, whose run tells of missing packages in a sentence."""
    run: Callable[..., Any] = getattr(kind, kind.FUNCTION)

    @wraps(run)
    def told(*args: Any, **values: Any) -> Any:
        try:
            return run(*args, **values)
        except (ImportError, RuntimeError) as error:
            reason = lacking(title, error)
            if reason is None:
                raise
            raise PackageError(reason) from error

    setattr(kind, kind.FUNCTION, told)
    return kind
