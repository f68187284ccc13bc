"""Runs in the process that takes requests: what an engine and each request may ask for, and results for clients."""
