"""What stands beside a trace so that its tasks can run again."""
