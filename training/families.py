"""Which families can be trained, each by which network and in which order of crops?

A network is a module with ``build``, ``use_branches``, ``round_trip``, ``export``, ``load_state``
and ``load``.  A new family is one such module, one recipe and one row here.
"""

from dataclasses import dataclass
from types import ModuleType

import network_cogvideox
import network_wan
import recipes


@dataclass(frozen=True, slots=True)
class Family:
    """What a run needs to know about a family."""

    network: ModuleType
    recipe: recipes.Recipe


FAMILIES = {
    "cogvideox": Family(network_cogvideox, recipes.COGVIDEOX),
    "wan": Family(network_wan, recipes.WAN),
}
