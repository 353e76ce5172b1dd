"""Asking the processes of a cluster or a session what they know."""
