"""Paired responses, and the signals of the residual stream at each of their tokens."""

from normprobe.tracing.stages import fill_responses, fill_traces

__all__ = ["fill_responses", "fill_traces"]
