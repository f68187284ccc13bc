"""Runs in each worker, on its model runner: which rows belong to which policy, and the extra passes."""
