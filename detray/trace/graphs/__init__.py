"""The computation graph, and what can be measured on it: path, span, slack, width."""
