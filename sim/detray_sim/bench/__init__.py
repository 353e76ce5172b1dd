"""Benchmarks of the simulator's own speed: virtual time is free, CPU time is not."""
