"""Open a model, prove that its sites are the residual stream, and make its prompts in each mode."""
