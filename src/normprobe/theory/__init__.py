"""The two-sided bound and its assumptions A1-A4 (arXiv 2606.06188, section 3), in numpy and with every constant."""
