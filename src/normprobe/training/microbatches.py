"""Sequences of like length together, so that little is padding."""

import random
from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Ids(Protocol):
    """What has token ids."""

    @property
    def ids(self) -> list[int]: ...


Read = TypeVar("Read", bound=Ids)


def microbatches(
    stream: Iterable[Read], per_step: int, tokens: int, n_steps: int, rng: random.Random
) -> list[list[list[Read]]]:
    """As many sequences of the stream as `n_steps` steps read, by step and microbatch.

    A microbatch holds sequences of like length, up to so many tokens with padding.
    """
    drawn, total = list[Read](), 0
    for sequence in stream:
        drawn.append(sequence)
        total += len(sequence.ids)
        if total >= n_steps * per_step * tokens:
            break
    drawn.sort(key=lambda sequence: len(sequence.ids))
    batches: list[list[Read]] = [[]]
    for sequence in drawn:
        if (len(batches[-1]) + 1) * len(sequence.ids) > tokens:
            batches.append([])
        batches[-1].append(sequence)
    rng.shuffle(batches)
    # A few microbatches more than per_step · n_steps arise from padding: deal them out in turn.
    return [batches[i::n_steps] for i in range(n_steps)]
