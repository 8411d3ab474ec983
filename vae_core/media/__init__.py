"""How do pixels and latents get into files and out of them? Nothing here knows of the engine."""
