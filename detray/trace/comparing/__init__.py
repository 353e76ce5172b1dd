"""Two runs side by side: `detray diff`."""
