"""What does ComfyUI find when it loads this folder? The node mappings and the web folder.

Whatever is wrong with this folder is said in one line, and never keeps the host from starting.
"""

import logging

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = {}, {}

# ComfyUI loads this file as a package. A test runner or a linter may load it as a plain module,
# where a relative import has no parent: then the pack has no nodes to offer, and must not fail.
if __package__:
    try:
        from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    # Some packages end the process where they find themselves broken.
    except (Exception, SystemExit) as error:
        logging.getLogger(__name__).error(
            "Exact Video VAE: no node can be offered (%s: %s). Install the pack anew.",
            type(error).__name__,
            error,
        )

# Without nodes the scripts would have nothing to hang their panels on.
WEB_DIRECTORY = "./web" if NODE_CLASS_MAPPINGS else None

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
