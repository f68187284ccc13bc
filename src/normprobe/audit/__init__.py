"""The audit of the verdicts: claims fail where they should, succeed where an effect was planted, intervals cover."""
