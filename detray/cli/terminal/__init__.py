"""What commands show, and what they say beside it."""
