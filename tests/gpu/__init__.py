"""Is a graphics card good enough for the engine, and the engine for it? `accept.py` asks."""
