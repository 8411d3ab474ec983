"""How does ComfyUI core take turns with sides of this process, in another interpreter?

`core.py serve` keeps core's network there and waits, which costs no time of the others. Clips and
results go through files; the seconds that it reports are those of the run alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from . import core


@dataclass(slots=True)
class Waiting:
    """A process that has core's network ready. folder: for what is handed over."""

    process: subprocess.Popen[str]
    folder: Path

    @classmethod
    @contextmanager
    def for_network(cls, task: core.Task, module: torch.nn.Module) -> Iterator[Waiting]:
        """Core's network with the weights of `module`; the process ends with the block."""
        with TemporaryDirectory() as name:
            weights = Path(name, "weights.pt")
            torch.save(module.state_dict(), weights)
            arguments, environment = core.command("serve", *task.words, str(weights))
            environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            with subprocess.Popen(arguments, env=environment, **pipes) as process:
                try:
                    while (line := process.stdout.readline()) != "ready\n":
                        if not line:
                            raise RuntimeError("ComfyUI core ended before it was ready")
                    yield cls(process, Path(name))
                finally:
                    process.stdin.close()

    def __call__(self, x: Tensor) -> Tensor:
        """What core makes of a clip."""
        target = self.folder / "result.pt"
        self._ask(x, str(target))
        return torch.load(target)

    def seconds(self, x: Tensor) -> float:
        """How long core takes for a clip."""
        return self._ask(x, None)

    def _ask(self, x: Tensor, target: str | None) -> float:
        source = self.folder / "clip.pt"
        torch.save(x, source)
        print(json.dumps([str(source), target]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())
