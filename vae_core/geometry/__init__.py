"""Where does a piece of work lie? Regions, chunks, tiles, crops and sizes, in whole numbers.

`region` has the intervals and boxes that everything else speaks in, `grid` cuts a clip into chunks
and a tensor into tiles, `fitting` says what happens to a size that a network cannot take, `blend`
lays out the overlapping crops of blend mode. It knows no network and no memory, and no torch.
"""
