"""How likely k samples hold a right one."""

from __future__ import annotations

import math

from normprobe.errors import NormprobeError


def pass_at_k(n: int, right: int, k: int) -> float:
    """pass@k of a problem of whose n samples `right` are right: the share of sets of k samples that hold a right one,
    1 − C(n − right, k) / C(n, k), the unbiased estimate of Chen et al. (arXiv 2107.03374, equation 1).

    Raises NormprobeError unless 0 ≤ right ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= right <= n and 1 <= k <= n):
        raise NormprobeError(
            f"expected 0 ≤ right ≤ n and 1 ≤ k ≤ n, got n = {n}, right = {right}, k = {k}; draw at least k samples"
        )
    return 1 - math.comb(n - right, k) / math.comb(n, k)
