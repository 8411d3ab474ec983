"""What does a script find that runs the engine beside core's own classes, where core runs?"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from host import server

MOST = {"float32": 1e-4, "float64": 1e-9}
"""By dtype, of the range."""


def found_by(script: str, needs: str = "main.py") -> Any:
    """What `script` prints as JSON in its last line; it is told to stay on the processor.

    needs: a file of ComfyUI without which there is nothing to compare with.
    """
    try:
        host = server.checkout()
    except server.HostMissing as error:
        pytest.skip(str(error))
    if not (host.folder / needs).is_file():
        pytest.skip(f"this ComfyUI has no {needs}")
    places = [str(host.folder), str(server.ROOT)]
    run = subprocess.run(
        [str(host.python), "-c", script, "--cpu"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def check(worst: dict[str, float], cases: int) -> None:
    """Every error, of so many, is within the bound of the dtype that its name ends with."""
    assert len(worst) == cases
    for name, error in worst.items():
        assert error <= MOST[name.split()[-1]], f"{name} differs by {error:.3g} of the range"
