"""ERSS: mix an earlier high-norm state of the same request into a state (arXiv 2606.06188).

Each request keeps a bank per layer: its `bank_size` states of the largest norms above τ so far, as they came. When
triggered, the entry v of the best cosine with the state h is mixed in, h' = (1 − β)·h + β·v. (The reference mixes into
one half of the residual stream only, h + (1 − β)·r + β·v.) The paper's text steers at peaks, its code after a streak of
low norms; both are here, by name. In the code an injection ends the streak, so a cooldown shorter than a streak never
binds; here the streak goes on, and the cooldown alone spaces injections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError
from normprobe.policies.draws import RequestKeys, normal, stream_key, uniform_at
from normprobe.policies.ops import inject, replace_rows, rows_of, turn
from normprobe.policies.policy import Cost, Counts, Policy, RunningPolicy, check_within
from normprobe.policies.rows import Change, Rerun, Rows, RowStates, norms
from normprobe.policies.threshold import RunningThresholdPolicy, ThresholdPolicy

TRIGGERS = ("at_peaks", "low_streak")
DIRECTIONS = ("nearest", "random_bank", "scaled", "rotated")
_CHANCE, _ENTRY, _AXIS = 0, 1, 2  # streams of draws


@dataclass(frozen=True)
class ERSS(ThresholdPolicy):
    """Injections of earlier high-norm states.

    trigger: `at_peaks`, tokens above τ, or `low_streak`, tokens that end at least `streak` tokens below it.
    probability: of acting on a triggered token, keyed by (seed, request, layer, step). cooldown: tokens after an
    injection without another. min_cosine: an entry less alike is not used. beta: β. bank_size: entries per layer.
    direction: `nearest` is the method. The others are baselines that act on the very same tokens: `random_bank` mixes
    in any entry, `scaled` gives the state the norm that the mixture would have, `rotated` turns it by the mixture's
    angle towards a random side.

    Raises NormprobeError for settings that make no sense.
    """

    trigger: str = "at_peaks"
    streak: int = 40
    probability: float = 0.2
    cooldown: int = 32
    min_cosine: float = 0.5
    beta: float = 0.5
    bank_size: int = 32
    direction: str = "nearest"
    seed: int = 0

    name: ClassVar[str] = "erss"
    kind: ClassVar[str] = "steering"
    counts: ClassVar[Counts] = {"streak": "tokens", "cooldown": "tokens", "bank_size": "states"}

    def __post_init__(self) -> None:
        for name, known in {"trigger": TRIGGERS, "direction": DIRECTIONS}.items():
            if (value := getattr(self, name)) not in known:
                raise NormprobeError(f"expected {name} among {', '.join(known)}, got {value}; choose one")
        check_within("bank_size", self.bank_size, 1, hint="the paper has 32")
        check_within("streak", self.streak, 1, hint="the paper's code has 40")
        check_within("cooldown", self.cooldown, 0, hint="the paper has 32")
        check_within("probability", self.probability, 0, 1)
        check_within("beta", self.beta, 0, 1)
        check_within("min_cosine", self.min_cosine, -1, 1)

    def cost(self, state_bytes: int) -> Cost:
        """By layer the bank with its norms, two counters and the key of the draws; the request's key."""
        by_layer = self.bank_size * (state_bytes + 4) + 2 * 8 + 8
        return Cost(self.threshold.bytes_per_slot + len(self.layers) * by_layer + RequestKeys.BYTES)

    def baselines(
        self,
        rate: Mapping[int, float],
        seed: int,
        entropy_above: Callable[[float], float] | None,
        n_layers: int,
    ) -> dict[str, Policy]:
        """The same tokens changed as much, by something else than the most similar state."""
        return {
            "random bank vector": replace(self, direction="random_bank"),
            "length alone": replace(self, direction="scaled"),
            "rotation": replace(self, direction="rotated"),
        }

    def start(self, n_slots: int, d: int, device: torch.device) -> RunningPolicy:
        return _RunningERSS(self, n_slots, d, device)


class _RunningERSS(RunningThresholdPolicy):
    """ERSS at work: banks and counters by [layer, slot]. One slot more takes the rows that do not count."""

    def __init__(self, settings: ERSS, n_slots: int, d: int, device: torch.device) -> None:
        super().__init__(settings, n_slots, device)
        self.settings = settings
        self._index = {layer: i for i, layer in enumerate(settings.layers)}
        # Made here: a tensor made of numbers in a pass would wait for the device.
        self._places = torch.arange(len(settings.layers), device=device)
        self._spare = n_slots
        shape = (len(settings.layers), n_slots + 1)
        # Its dtype is that of the first state.
        self._bank: Float[torch.Tensor, "layer slot entry d"] | None = None
        self._d = d
        self._bank_norm = torch.full((*shape, settings.bank_size), -torch.inf, device=device)
        self._low = torch.zeros(shape, dtype=torch.int64, device=device)
        self._since = torch.full(shape, settings.cooldown, dtype=torch.int64, device=device)
        self._keys = RequestKeys(n_slots, device)
        self._chance_key = torch.zeros(shape, dtype=torch.int64, device=device)
        self._pending: list[tuple[torch.Tensor, ...]] = []

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        super().reset(slots, requests)
        at = torch.tensor(list(slots), dtype=torch.int64, device=self._places.device)
        self._keys.reset(slots, requests)
        for layer, i in self._index.items():
            self._chance_key[i, at] = stream_key(self._keys.of(at), layer, self.settings.seed, _CHANCE)
        self._bank_norm[:, at] = -torch.inf
        self._low[:, at] = 0
        self._since[:, at] = self.settings.cooldown

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        s, i, slot = self.settings, self._index[layer], rows.slot
        if self._bank is None:
            shape = (*self._bank_norm.shape, self._d)
            self._bank = torch.zeros(shape, dtype=rows.hidden.dtype, device=rows.hidden.device)
        eligible, (_, norm, above) = rows.eligible, self.peaks(rows, layer)
        due = above if s.trigger == "at_peaks" else ~above & (self._low[i, slot] + 1 >= s.streak)
        may = eligible & due & (self._since[i, slot] >= s.cooldown)
        if (maybe := rows_of(may)) is not None:
            chance = uniform_at(self._chance_key[i, slot[maybe]], rows.step[maybe]) < s.probability
            may = replace_rows(may, maybe, may[maybe] & chance)
        bank, bank_norm = self._bank[i], self._bank_norm[i]
        mixed, acts = inject(
            rows.hidden, norm, slot, may, bank, bank_norm, min_cosine=s.min_cosine, beta=s.beta
        )
        at = torch.where(eligible, slot, self._spare)
        self._pending.append((self._places[i], at, rows.hidden, norm, above, acts))
        if s.beta == 0:
            # To the bit: an angle of 0 is not found exactly, and −0 + 0 is +0.
            return Change(rows.hidden, acts)
        if s.direction != "nearest":
            instead = self._instead(rows, layer, mixed).to(rows.hidden.dtype)
            mixed = torch.where(acts[:, None], instead, rows.hidden)
        return Change(mixed, acts)

    def _instead(self, rows: Rows, layer: int, mixed: RowStates) -> RowStates:
        """The states that a baseline direction gives. mixed: the states that the method gives."""
        s, key = self.settings, self._keys.of(rows.slot)
        match s.direction:
            case "random_bank":
                assert self._bank is not None
                i = self._index[layer]
                drawn = normal(key, layer, rows.step, s.seed, s.bank_size, _ENTRY)
                filled = self._bank_norm[i, rows.slot] > -torch.inf
                entry = torch.where(filled, drawn, -torch.inf).argmax(dim=-1)
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
        """Store the states above τ in place of the shortest ones, and advance the counters: all layers at once."""
        super().finish()
        if not self._pending or self._bank is None:
            return
        place, at, hidden, norm, above, acts = map(torch.stack, zip(*self._pending, strict=True))
        self._pending.clear()
        slots = torch.add(at, place[:, None], alpha=self._spare + 1).flatten()
        above, acts = above.flatten(), acts.flatten()
        for count, ends in ((self._low, above), (self._since, acts)):
            count = count.view(-1)
            count.index_copy_(0, slots, (count.index_select(0, slots) + 1).masked_fill(ends, 0))
        if (rows := rows_of(above)) is None:
            return
        into, state, size = slots[rows], hidden.flatten(0, 1)[rows], norm.flatten()[rows]
        bank, bank_norm = self._bank.flatten(0, 1), self._bank_norm.flatten(0, 1)
        shortest = bank_norm[into].min(dim=-1)
        enters, entry = above[rows] & (size > shortest.values), shortest.indices
        bank[into, entry] = torch.where(enters[:, None], state, bank[into, entry])
        bank_norm[into, entry] = torch.where(enters, size, shortest.values)
