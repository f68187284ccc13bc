"""Experiments on a running model: what an intervention does to the answers."""
