"""Statistics with the problem as the unit: scipy and numpy only, every draw from an explicit generator."""
