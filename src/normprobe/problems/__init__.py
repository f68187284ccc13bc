"""Where problems come from and how an answer is judged: the testbed, a user's file, and others."""

from normprobe.problems.source import ProblemSource, open_source

__all__ = ["ProblemSource", "open_source"]
