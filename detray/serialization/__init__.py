"""Values, calls and errors as bytes and back: the same in real processes and in simulated ones."""
