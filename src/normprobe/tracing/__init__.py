"""Paired responses, what the model's residual stream does while it reads or writes them, and how that is stored."""

from normprobe.tracing.stages import fill_responses, fill_traces

__all__ = ["fill_responses", "fill_traces"]
