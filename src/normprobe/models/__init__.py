"""Open a model, prove that its sites are where they are said to be, and speak to it in each mode."""
