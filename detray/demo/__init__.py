"""The main job of `make demo`: an inverted index of Python's own standard library."""
