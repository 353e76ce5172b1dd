"""Standing at any step of a trace: checkpoints, moments named by sentences, rows as they were."""
