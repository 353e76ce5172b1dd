"""Simulated clusters for detray: virtual time, made-up workloads, injected faults. Not here yet."""
