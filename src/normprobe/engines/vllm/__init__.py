"""The vLLM engine: policies in a serving engine, as a general plugin. Nothing here is imported without vLLM."""
