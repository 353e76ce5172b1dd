"""What should have been, and the smallest part of a trace in which it was not."""
