"""Minutes of seeded trouble, checked against a serial model (`make stress`)."""
