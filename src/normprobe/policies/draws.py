"""Counter-based random numbers: a draw depends on what it is for and on nothing else, on any device.

A draw is a hash of (seed, stream, request, layer, step): the finaliser of SplitMix64 (Steele et al. 2014), applied once
per part, in integers (a normal draw is equal to the rounding of the device's logarithm and cosine).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Int

from normprobe.policies.rows import RowFloats, RowInts, RowStates


def _signed(value: int) -> int:
    """The 64 bits of a number, as torch's int64 has them."""
    return ((value + 2**63) % 2**64) - 2**63


_GAMMA, _FIRST, _SECOND = (
    _signed(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def request_key(request: str) -> int:
    """What keys a request's random draws, whatever its slot and batch: a hash of its name, 64 bits, unsigned."""
    return int.from_bytes(hashlib.blake2b(request.encode(), digest_size=8).digest(), "big")


def keys(numbers: Sequence[int], device: torch.device) -> Int[torch.Tensor, " request"]:
    """Keys of requests (`request_key`, unsigned) as a tensor: the same 64 bits, signed."""
    return torch.tensor([_signed(number) for number in numbers], dtype=torch.int64, device=device)


class RequestKeys:
    """The keys of the requests in all slots of a running policy; one slot more takes padding."""

    BYTES = 8
    """Memory per slot."""

    def __init__(self, n_slots: int, device: torch.device) -> None:
        self._key = torch.zeros(n_slots + 1, dtype=torch.int64, device=device)

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._key.device)
        self._key[at] = keys([request_key(request) for request in requests], self._key.device)

    def of(self, slot: RowInts) -> RowInts:
        """The key of each row's request; any for padding, slot −1."""
        return self._key[slot]


def _shifted(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift to the right: torch's is arithmetic."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(state: torch.Tensor, part: torch.Tensor | int) -> torch.Tensor:
    """The state with another part hashed in; products wrap around, as they should."""
    value = (state ^ part) + _GAMMA
    value = (value ^ _shifted(value, 30)) * _FIRST
    value = (value ^ _shifted(value, 27)) * _SECOND
    return value ^ _shifted(value, 31)


def stream_key(key: RowInts, layer: int, seed: int, stream: int = 0) -> RowInts:
    """The part of the hash that is the same at every step, for `uniform_at`. Arguments as in `uniform`."""
    value = _mixed(key, _signed(seed))
    for part in (layer, stream):
        value = _mixed(value, part)
    return value


def _unit(bits: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1), multiples of 2⁻²⁴, which float32 holds exactly."""
    return _shifted(bits, 40).to(torch.float32) * 2.0**-24


def uniform(key: RowInts, layer: int, step: RowInts, seed: int, stream: int = 0) -> RowFloats:
    """One draw per row, uniform in [0, 1). stream: tells apart several draws for the same row."""
    return uniform_at(stream_key(key, layer, seed, stream), step)


def uniform_at(stream: RowInts, step: RowInts) -> RowFloats:
    """`uniform` of rows whose `stream_key` is known."""
    return _unit(_mixed(stream, step.to(torch.int64)))


def normal(key: RowInts, layer: int, step: RowInts, seed: int, d: int, stream: int = 0) -> RowStates:
    """d standard normal draws per row (Box and Muller 1958), float32."""
    base = _mixed(stream_key(key, layer, seed, stream), step.to(torch.int64))[:, None]
    column = torch.arange(d, device=key.device)[None]
    # 1 − u lies in (0, 1]: its logarithm is finite.
    radius = torch.sqrt(-2 * torch.log1p(-_unit(_mixed(base, 2 * column + 1))))
    return radius * torch.cos(2 * math.pi * _unit(_mixed(base, 2 * column + 2)))
