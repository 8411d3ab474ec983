"""Which package is missing where something could not be imported, and what is to be done?"""

from __future__ import annotations

import sys


def remedy(package: str) -> str:
    """How a package gets into the host's own Python."""
    return f"Install it into ComfyUI's own Python: {sys.executable} -m pip install {package}"


def lacking(what: str, error: BaseException | None) -> str | None:
    """Which package `what` needs, in a sentence, where a failed import led to `error`."""
    # Packages that import their parts when asked wrap the failure in a RuntimeError.
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    if error is None:
        return None
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package:
        return f"{what} needs the package {package}, which is missing. {remedy(package)}"
    return f"{what} needs a package that cannot be imported: {error}."
