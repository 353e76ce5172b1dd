"""Where time went and why, walked back to the first cause: `detray why`."""
