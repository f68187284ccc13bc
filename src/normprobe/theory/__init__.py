"""The two-sided bound and its assumptions A1-A4 (arXiv 2606.06188, section 3), in numpy and with every constant.

Each estimator's docstring says what it measures and which way it errs. What they share:

- For one bound input (a problem in a layer) every constant is the least one with which its assumption holds there. That
  is no estimate: the bound is algebra, proved in `proof_slack` and `proof_bound` (`normprobe theorem`).
- For a *new* problem no sample gives the supremum: a new problem exceeds the largest of n values with probability
  1/(n + 1). What a sample gives is a level that a new problem stays within with probability 95 %: the order statistic
  ⌈0.95 (n + 1)⌉ of n exchangeable problems (Wilks 1941), which exists from n = 19 on.
- Of a *mean over problems* the interval is the BCa bootstrap over problems (`normprobe.stats.bootstrap`).
- ε, δ and κ of mean states are lengths and absolute values of means over tokens, in which noise does not cancel: small
  values come out too large, by terms of order 1/n in their squares (n tokens). That is the safe side for the bound, but
  not where a small value is the finding: a random dictionary read over the same tokens shows how much of it is noise.
"""
