"""ERSS: mix an earlier high-norm state of the same request into a state (arXiv 2606.06188).

Each request keeps a bank per layer: its `bank_size` states of the largest norms above τ so far, as they came. When
triggered, the entry v of the best cosine with the state h is mixed in, h' = (1 − β)·h + β·v. (The reference mixes into
one half of the residual stream only, h + (1 − β)·r + β·v.) The paper's text steers at peaks, its code after a streak of
low norms; both are here, by name. In the code an injection ends the streak, so a cooldown shorter than a streak never
binds; here the streak goes on, and the cooldown alone spaces injections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError
from normprobe.policies.controls.rotation import turn
from normprobe.policies.draws import keys, lots, normal, uniform_at
from normprobe.policies.ops import holding, inject, peaks, put
from normprobe.policies.rows import Change, Rerun, Rows, RunningPolicy, norms, request_key
from normprobe.policies.threshold import AdaptiveThreshold, FixedThreshold

TRIGGERS = ("at_peaks", "low_streak")
DIRECTIONS = ("nearest", "random_bank", "scaled", "rotated")
_CHANCE, _ENTRY, _AXIS = 0, 1, 2  # streams of draws


@dataclass(frozen=True)
class ERSS:
    """Injections of earlier high-norm states.

    trigger: `at_peaks`, tokens above τ, or `low_streak`, tokens that end at least `streak` tokens below it.
    probability: of acting on a triggered token, keyed by (seed, request, layer, step). cooldown: tokens after an
    injection without another. min_cosine: an entry less alike is not used. beta: β. bank_size: entries per layer.
    direction: `nearest` is the method. The others are baselines that act on the very same tokens: `random_bank` mixes
    in any entry, `scaled` gives the state the norm that the mixture would have, `rotated` turns it by the mixture's
    angle towards a random side.

    Memory: bank_size · d values in the model's dtype per request and layer, 256 KiB at d = 4,096 in 16 bits; while a
    layer is asked, the banks of its rows once more, and once in float32.

    Raises NormprobeError for settings that make no sense.
    """

    threshold: FixedThreshold | AdaptiveThreshold
    trigger: str = "at_peaks"
    streak: int = 40
    probability: float = 0.2
    cooldown: int = 32
    min_cosine: float = 0.5
    beta: float = 0.5
    bank_size: int = 32
    direction: str = "nearest"
    seed: int = 0

    kind: ClassVar[str] = "steering"

    def __post_init__(self) -> None:
        for name, known in (("trigger", TRIGGERS), ("direction", DIRECTIONS)):
            if getattr(self, name) not in known:
                raise NormprobeError(
                    f"expected {name} among {', '.join(known)}, got {getattr(self, name)}; choose one"
                )
        if self.bank_size < 1:
            raise NormprobeError(
                f"expected a bank of at least one state, got {self.bank_size}; the paper has 32"
            )
        if self.streak < 1 or self.cooldown < 0:
            raise NormprobeError(
                f"expected streak ≥ 1 and cooldown ≥ 0 tokens, got {self.streak} and {self.cooldown}; correct them"
            )
        for name, low in (("probability", 0), ("beta", 0), ("min_cosine", -1)):
            if not low <= getattr(self, name) <= 1:
                raise NormprobeError(f"expected {name} in [{low}, 1], got {getattr(self, name)}; correct it")

    @property
    def layers(self) -> tuple[int, ...]:
        return self.threshold.layers

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningERSS(self, n_slots, d, device)


class _RunningERSS:
    """Banks and counters by [layer, slot]; one slot more than there are requests takes what does not count."""

    def __init__(self, settings: ERSS, n_slots: int, d: int, device: torch.device) -> None:
        self.settings = settings
        self.threshold = settings.threshold.start(n_slots, device)
        self._index = {layer: i for i, layer in enumerate(settings.layers)}
        # Made here: a tensor made of numbers in a pass would wait for the device.
        self._places = torch.arange(len(settings.layers), device=device)
        self._spare = n_slots
        shape = (len(settings.layers), n_slots + 1)
        # Its dtype is that of the first state.
        self._bank: Float[torch.Tensor, "layer slot entry d"] | None = None
        self._d = d
        self._norm = torch.full((*shape, settings.bank_size), -torch.inf, device=device)
        self._low = torch.zeros(shape, dtype=torch.int64, device=device)
        self._since = torch.full(shape, settings.cooldown, dtype=torch.int64, device=device)
        self._key = torch.zeros(n_slots + 1, dtype=torch.int64, device=device)
        self._lot = torch.zeros(shape, dtype=torch.int64, device=device)
        self._seen: list[tuple[torch.Tensor, ...]] = []

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.threshold.reset(slots)
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._key.device)
        key = keys([request_key(request) for request in requests], self._key.device)
        self._key[at] = key
        for layer, i in self._index.items():
            self._lot[i, at] = lots(key, layer, self.settings.seed, _CHANCE)
        self._norm[:, at] = -torch.inf
        self._low[:, at] = 0
        self._since[:, at] = self.settings.cooldown

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        """Mix bank entries into the triggered rows."""
        s, i, slot = self.settings, self._index[layer], rows.slot
        if self._bank is None:
            shape = (*self._norm.shape, self._d)
            self._bank = torch.zeros(shape, dtype=rows.hidden.dtype, device=rows.hidden.device)
        tau, eligible = self.threshold.tau(layer, slot), rows.eligible
        norm, above = peaks(rows.hidden, tau, eligible)
        self.threshold.see(layer, slot, norm, eligible)
        due = above if s.trigger == "at_peaks" else ~above & (self._low[i, slot] + 1 >= s.streak)
        may = eligible & due & (self._since[i, slot] >= s.cooldown)
        if (maybe := holding(may)) is not None:
            chance = uniform_at(self._lot[i, slot[maybe]], rows.step[maybe]) < s.probability
            may = put(may, maybe, may[maybe] & chance)
        bank, held = self._bank[i], self._norm[i]
        mixed, acts = inject(rows.hidden, norm, slot, may, bank, held, min_cosine=s.min_cosine, beta=s.beta)
        at = torch.where(eligible, slot, self._spare)
        self._seen.append((self._places[i], at, rows.hidden, norm, above, acts))
        if s.beta == 0:
            # To the bit: an angle of 0 is not found exactly, and −0 + 0 is +0.
            return Change(rows.hidden, acts)
        if s.direction != "nearest":
            instead = self._instead(rows, layer, mixed).to(rows.hidden.dtype)
            mixed = torch.where(acts[:, None], instead, rows.hidden)
        return Change(mixed, acts)

    def _instead(
        self, rows: Rows, layer: int, mixed: Float[torch.Tensor, "row d"]
    ) -> Float[torch.Tensor, "row d"]:
        """What a baseline makes of the rows, given what the method makes of them."""
        s, key = self.settings, self._key[rows.slot]
        match s.direction:
            case "random_bank":
                assert self._bank is not None
                i = self._index[layer]
                lots = normal(key, layer, rows.step, s.seed, s.bank_size, _ENTRY)
                filled = self._norm[i, rows.slot] > -torch.inf
                entry = torch.where(filled, lots, -torch.inf).argmax(dim=-1)
                return torch.lerp(rows.hidden, self._bank[i, rows.slot, entry], s.beta)
            case "scaled":
                return rows.hidden * (norms(mixed) / norms(rows.hidden).clamp_min(1e-12))[:, None]
            case _:
                state, there = rows.hidden.float(), mixed.float()
                scale = (norms(state) * norms(there)).clamp_min(1e-12)
                angle = torch.acos(((state * there).sum(dim=-1) / scale).clamp(-1, 1))
                side = normal(key, layer, rows.step, s.seed, state.shape[1], _AXIS)
                return turn(state, side, angle[:, None])

    def finish(self) -> None:
        """States above τ enter the banks in place of the shortest there, counters count: all layers at once."""
        self.threshold.finish()
        if not self._seen or self._bank is None:
            return
        place, at, hidden, norm, above, acts = map(torch.stack, zip(*self._seen, strict=True))
        self._seen.clear()
        slots = torch.add(at, place[:, None], alpha=self._spare + 1).flatten()
        above, acts = above.flatten(), acts.flatten()
        for count, ends in ((self._low, above), (self._since, acts)):
            count = count.view(-1)
            count.index_copy_(0, slots, (count.index_select(0, slots) + 1).masked_fill(ends, 0))
        if (rows := holding(above)) is None:
            return
        into, state, size = slots[rows], hidden.flatten(0, 1)[rows], norm.flatten()[rows]
        bank, held = self._bank.flatten(0, 1), self._norm.flatten(0, 1)
        shortest = held[into].min(dim=-1)
        enters, entry = above[rows] & (size > shortest.values), shortest.indices
        bank[into, entry] = torch.where(enters[:, None], state, bank[into, entry])
        held[into, entry] = torch.where(enters, size, shortest.values)
