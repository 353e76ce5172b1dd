"""What a command refuses, in one line."""

from __future__ import annotations


class Refused(Exception):
    """Arguments that make no sense: exit status 2, one line."""
