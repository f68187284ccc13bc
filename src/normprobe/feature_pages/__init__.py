"""What a page on a feature shows: where it fires, what it writes, and whether single tokens trigger it."""
