"""How will a run go, and what will it take? All of it is decided before a tensor is touched.

`machine` says what there is to run on, `memory` counts the bytes of a step and its tiles, `pool`
hands memory on from store to store, `planner` chooses chunks, tiles and places for a budget, and
`plan` is what it has chosen, for a program and for a person to read. Imports no torch.
"""
