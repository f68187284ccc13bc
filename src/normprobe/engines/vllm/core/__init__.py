"""Runs in the engine core, around its scheduler: requests that have to wait, and results on finished outputs."""
