"""Which network is it, and which program does it stand for?

One file a family lowers a live module to programs: `cogvideox`, `wan`. They share `building`, which
walks modules, and `attributes`, which looks whether a module's parts compute what their classes are
known for; `family` says whose a module is. Around them, `cogvideox_keys` and `wan_keys` say how
files hold a family's VAE, in the words of `keys`; `identify` tells networks apart by names and
shapes, `stored` reads a file's tensors and `loading` makes a module of them; and `conventions` has
the ways in which other programs hand over a family's latents. Nothing is run here.
"""
