"""The head of a cluster: the global scheduler in a process of its own."""
