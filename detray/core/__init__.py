"""The pure cores: state machines that decide everything and perform nothing."""
