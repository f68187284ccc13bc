"""Sparse autoencoders per layer: trained or published, the reasoning features they hold, and what claims read of them."""
