"""What a trace says of tasks, objects, workers, nodes and heads, gathered into lives."""
