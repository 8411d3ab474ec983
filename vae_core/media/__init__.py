"""How do pixels and latents get into files and out of them?

`video` and `reel` read frames, `selection`, `framing` and `colour` say which and how they become
pixels in [-1, 1], `video_writing` and `audio` write them; `latent_file` and `latent_stream` hold
latents; `pipeline` lets reading, computing and writing overlap. Nothing here runs a network.
"""
