"""Sparse autoencoders of a run: trained or published, the features that reasoning raises, what is kept of the codes."""
