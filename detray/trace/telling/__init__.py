"""Lives in plain sentences, in the order of the trace: `detray story`."""
