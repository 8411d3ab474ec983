"""What does ComfyUI find when it loads this folder? The node mappings and the web folder."""

# ComfyUI loads this file as a package. A test runner or a linter may load it as a plain module,
# where a relative import has no parent: then the pack has no nodes to offer, and must not fail.
if __package__:
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
else:
    NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = {}, {}

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
