"""A cluster on machines of its own while they die, freeze and lose each other: `make chaos`."""
