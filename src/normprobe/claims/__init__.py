"""The claims of the paper (arXiv 2606.06188), one file each: estimand, rule written beforehand, controls, panel."""
