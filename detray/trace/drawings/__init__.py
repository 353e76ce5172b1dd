"""Graphs written to files: pictures, and formats that other programs read."""
