"""What was decided: recording, replaying and drawing it."""
