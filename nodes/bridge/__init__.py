"""What do the node classes share with each other and with the host?

`host` alone imports ComfyUI. `vae` is the VAE that travels along the graph's wires, `images` turns
the host's pictures and latents into the engine's and back, `running` and `streaming` run the engine
for a node, `live` and `meter` tell the web client how far it is, `planning` and `routes` answer its
questions before anything runs, `widgets` has the inputs that nodes have in common.
"""
