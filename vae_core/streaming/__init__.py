"""How does a clip go through while its frames still arrive, and nobody knows how many will?

`frame_feed` collects frames as they come, `encode_stream` pushes them through the network chunk by
chunk. What is made of the results is the caller's.
"""
