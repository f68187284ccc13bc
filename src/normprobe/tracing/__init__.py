"""Paired responses, and the signals of the residual stream at each of their tokens."""
