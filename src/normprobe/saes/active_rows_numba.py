"""The sums over active features on a CPU, compiled by Numba: the same functions as in `active_rows`, in fewer passes.

Each kernel takes a range of rows or features, so that threads share the work (torch's number of threads decides how
many); no sum depends on how it was shared.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, no_type_check  # a kernel is compiled as it stands

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit

_SUMS = {"reassoc", "contract", "nsz"}
"""What the compiler may assume of sums: their order is free, so that a processor's vectors are used."""
_LANES = 8
"""Features of a group whose largest is looked at first."""


def largest(
    rows: Float[torch.Tensor, "row d"],
    encoder: Float[torch.Tensor, "feature d"],
    bias: Float[torch.Tensor, " feature"],
    k: int,
    parts: Float[torch.Tensor, "row feature"],
) -> tuple[Float[torch.Tensor, "row k"], Int[torch.Tensor, "row k"]]:
    """As `active_rows.largest`."""
    torch.mm(rows, encoder.T, out=parts)
    n_rows, width = parts.shape
    n_groups = width // _LANES if width % _LANES == 0 and width // _LANES >= k else width
    values = torch.empty(n_rows, k)
    index = torch.empty(n_rows, k, dtype=torch.int64)
    _shared(_largest, n_rows, parts.numpy(), bias.numpy(), n_groups, values.numpy(), index.numpy())
    return values, index


def decoded(
    codes: Float[torch.Tensor, "row k"],
    feature: Int[torch.Tensor, "row k"],
    atoms: Float[torch.Tensor, "feature d"],
    centred: Float[torch.Tensor, "row d"],
) -> tuple[Float[torch.Tensor, "row d"], Float[torch.Tensor, "row k"]]:
    """As `active_rows.decoded`."""
    residual, products = torch.empty_like(centred), torch.empty_like(codes)
    given = [tensor.numpy() for tensor in (codes, feature, atoms, centred, residual, products)]
    _shared(_decoded, len(codes), *given)
    return residual, products


def summed(
    feature: Int[torch.Tensor, "row k"],
    n_features: int,
    weighted: list[tuple[Float[torch.Tensor, "row k"], Float[torch.Tensor, "row d"]]],
) -> list[Float[torch.Tensor, "feature d"]]:
    """As `active_rows.summed`."""
    start, order = _by_feature(feature.numpy().ravel(), n_features)
    sums = []
    for weights, batch in weighted:
        out = torch.empty(n_features, batch.shape[1])
        arrays = (weights.numpy().ravel(), batch.numpy(), out.numpy())
        _shared(_summed, n_features, start, order, feature.shape[1], *arrays)
        sums.append(out)
    return sums


def _shared(kernel: Callable[..., None], n: int, *arguments: Any) -> None:
    """Call a kernel on 0…n−1, shared out among as many threads as torch uses."""
    threads = min(torch.get_num_threads(), n)
    if threads == 1:
        kernel(0, n, *arguments)
        return
    bounds = [n * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda begin, end: kernel(begin, end, *arguments), bounds, bounds[1:]))


@njit(nogil=True, cache=True)
@no_type_check
def _largest(
    first: int,
    last: int,
    parts: Float[np.ndarray, "row feature"],
    bias: Float[np.ndarray, " feature"],
    n_groups: int,
    values: Float[np.ndarray, "row k"],
    index: Int[np.ndarray, "row k"],
) -> None:
    """A row's k largest of parts + bias, looked for only in groups whose largest may be among them.

    How large that has to be is guessed from the row before; where the guess lets too few through, it is the k-th of the
    groups' largest. A row with NaN may end with NaN instead of what is lacking.
    """
    width, k = parts.shape[1], values.shape[1]
    best = np.empty(n_groups, np.float32)
    work = np.empty(width, np.float32)
    value = np.empty(width + 1, np.float32)
    place = np.empty(width + 1, np.int64)
    guess = np.float32(np.inf)
    for row in range(first, last):
        _maxima_of_groups(parts[row], bias, best)
        n = _at_least(guess, parts[row], bias, best, value, place)
        if n < k:
            work[:n_groups] = best
            n = _at_least(_kth_largest(work, n_groups, k), parts[row], bias, best, value, place)
        least = np.float32(-np.inf)
        if n >= k:
            work[:n] = value[:n]
            least = _kth_largest(work, n, k)
        found = 0
        for i in range(n):
            if value[i] > least:
                values[row, found] = value[i]
                index[row, found] = place[i]
                found += 1
        for i in range(n):
            if value[i] == least and found < k:
                values[row, found] = value[i]
                index[row, found] = place[i]
                found += 1
        values[row, found:] = np.nan
        index[row, found:] = 0
        guess = least - np.float32(0.08) * abs(least)


@njit(nogil=True, cache=True, fastmath=True)
@no_type_check
def _maxima_of_groups(
    part: Float[np.ndarray, " feature"],
    bias: Float[np.ndarray, " feature"],
    best: Float[np.ndarray, " group"],
) -> None:
    """Group g are the features g, g + n, g + 2n … of n groups."""
    n = best.size
    for begin in range(0, part.size, n):
        of_part, of_bias = part[begin : begin + n], bias[begin : begin + n]
        if begin == 0:
            for group in range(n):
                best[group] = of_part[group] + of_bias[group]
        else:
            for group in range(n):
                best[group] = max(best[group], of_part[group] + of_bias[group])


@njit(nogil=True, cache=True)
@no_type_check
def _at_least(
    least: float,
    part: Float[np.ndarray, " feature"],
    bias: Float[np.ndarray, " feature"],
    best: Float[np.ndarray, " group"],
    value: Float[np.ndarray, " room"],
    place: Int[np.ndarray, " room"],
) -> int:
    """Write what is not below `least`, and where it stands. Returns how many."""
    n, found = best.size, 0
    for group in range(n):
        if best[group] >= least:
            for feature in range(group, part.size, n):
                this = part[feature] + bias[feature]
                value[found] = this
                place[found] = feature
                found += this >= least  # no branch, which a processor could not foresee
    return found


@njit(nogil=True, cache=True)
@no_type_check
def _kth_largest(values: Float[np.ndarray, " n"], n: int, k: int) -> float:
    """The k-th largest of the first n, which are left in another order (Hoare's selection)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return values[k - 1]


@njit(nogil=True, cache=True, fastmath=_SUMS)
@no_type_check
def _decoded(
    first: int,
    last: int,
    codes: Float[np.ndarray, "row k"],
    feature: Int[np.ndarray, "row k"],
    atoms: Float[np.ndarray, "feature d"],
    centred: Float[np.ndarray, "row d"],
    residual: Float[np.ndarray, "row d"],
    products: Float[np.ndarray, "row k"],
) -> None:
    d, k = atoms.shape[1], codes.shape[1]
    for row in range(first, last):
        rest = residual[row]
        for i in range(d):
            rest[i] = -centred[row, i]
        for j in range(k):
            code, atom = codes[row, j], atoms[feature[row, j]]
            for i in range(d):
                rest[i] += code * atom[i]
        for j in range(k):
            atom, product = atoms[feature[row, j]], np.float32(0)
            for i in range(d):
                product += atom[i] * rest[i]
            products[row, j] = product


@njit(nogil=True, cache=True)
@no_type_check
def _by_feature(
    feature: Int[np.ndarray, " pair"], n_features: int
) -> tuple[Int[np.ndarray, " bound"], Int[np.ndarray, " pair"]]:
    """The pairs in the order of their features, and where each feature's begin and the last one's end."""
    start = np.zeros(n_features + 1, np.int64)
    for this in feature:
        start[this + 1] += 1
    start = np.cumsum(start)
    free = start[:-1].copy()
    order = np.empty(feature.size, np.int64)
    for pair in range(feature.size):
        order[free[feature[pair]]] = pair
        free[feature[pair]] += 1
    return start, order


@njit(nogil=True, cache=True, fastmath=_SUMS)
@no_type_check
def _summed(
    first: int,
    last: int,
    start: Int[np.ndarray, " bound"],
    order: Int[np.ndarray, " pair"],
    k: int,
    weights: Float[np.ndarray, " pair"],
    batch: Float[np.ndarray, "row d"],
    out: Float[np.ndarray, "feature d"],
) -> None:
    d = batch.shape[1]
    for feature in range(first, last):
        total = out[feature]
        total[:] = 0
        for pair in order[start[feature] : start[feature + 1]]:
            weight, row = weights[pair], batch[pair // k]
            if weight != 0:
                for i in range(d):
                    total[i] += weight * row[i]
