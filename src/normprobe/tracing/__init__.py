"""Paired responses, what the model's residual stream does while it reads or writes them, and how that is stored."""
