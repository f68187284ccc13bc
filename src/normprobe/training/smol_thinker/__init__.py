"""Teach SmolLM2 to think: by demonstrations, and by reinforcement learning from the same warm-up."""
