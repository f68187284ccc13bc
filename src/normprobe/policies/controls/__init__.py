"""Policies that exist for comparison only: what each method and the causal experiment are measured against."""
