"""Which network is it, and which program does it stand for?

One file a family lowers a live module to programs: `cogvideox`, `wan`. They share `building`, which
walks modules, and `attributes`, which looks whether a module's parts compute what their classes are
known for; `family` says whose a module is. Around them, `identify` tells networks apart by names
and shapes, `loading` reads a file into a module, and `conventions` has the ways in which other
programs hand over a family's latents. Nothing is run here.
"""
