"""Which networks that are nearly one of HunyuanVideo are refused, 1.0 or 1.5, and by which path?"""

from __future__ import annotations

import pytest
from networks_hunyuan import random_hunyuan, random_hunyuan_1_5

from vae_core import from_module
from vae_core.errors import LoweringError

NETWORKS = {"1.0": random_hunyuan, "1.5": random_hunyuan_1_5}
FAULTS = {
    "1.0: another padding": ("encoder.conv_in", "pad_mode", "constant", "must replicate"),
    "1.5: another padding": ("encoder.conv_in", "pad_mode", "constant", "must replicate"),
    "1.0: another factor": (
        *("decoder.up_blocks.0.upsamplers.0", "upsample_factor", (1, 3, 3)),
        "double",
    ),
    "1.0: more heads": ("decoder.mid_block.attentions.0", "heads", 2, "one head"),
    "1.5: another scale": ("decoder.norm_out", "scale", 2.0, "by their root"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_computes_something_else_is_refused_by_its_path(name: str) -> None:
    path, attribute, value, words = FAULTS[name]
    module = NETWORKS[name.partition(":")[0]]()
    setattr(module.get_submodule(path), attribute, value)
    with pytest.raises(LoweringError, match=rf"{path} .*{words}"):
        from_module(module)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_deeper_middle_is_refused(build) -> None:
    module = build()
    module.decoder.mid_block.resnets.append(module.decoder.mid_block.resnets[0])
    with pytest.raises(LoweringError, match=r"decoder\.mid_block\.resnets must hold 2"):
        from_module(module)
