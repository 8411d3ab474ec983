"""Which families can be trained, each by which network, from which start, in which order of crops?

A network is a module with ``build``, ``is_branch``, ``use_branches``, ``round_trip``, ``export``,
``load_state``, ``load`` and ``scale``.  A new family is one such module, one recipe and one row
here; a start beyond what ``build`` gives is a function of the network and the sampler of crops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import network_cogvideox
import network_wan
import recipes
import start_wan
from data import CropSampler
from torch import nn


@dataclass(frozen=True, slots=True)
class Family:
    """What a run needs to know about a family."""

    network: ModuleType
    recipe: recipes.Recipe
    start: Callable[[nn.Module, CropSampler], None] | None = None


FAMILIES = {
    "cogvideox": Family(network_cogvideox, recipes.COGVIDEOX),
    "wan": Family(network_wan, recipes.WAN, start_wan.start),
}
