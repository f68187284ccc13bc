"""The vLLM engine: a plugin that applies policies inside a serving engine.

frontend/, core/ and worker/ hold what runs in each of vLLM's kinds of processes; what stands here, several share.
"""
