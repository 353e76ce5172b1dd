"""detray: distributed execution for Python, every decision made by a pure state machine."""
