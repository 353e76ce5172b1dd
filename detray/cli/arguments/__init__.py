"""What several commands are told in the same way: traces, expectations, sizes."""
