"""Paired responses, what the model's residual stream does while it reads or writes them, and how that is stored."""

from normprobe.tracing.stages import stage_responses, stage_traces

__all__ = ["stage_responses", "stage_traces"]
