"""What a campaign tries: something that reads files, good examples of them, and how hostile ones are made."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.hostile import Files, mutated

Make = Callable[[random.Random, Files], Files]


@dataclass(frozen=True)
class Reader:
    """examples: folders of good files. read: what is tried on the folder. make: a hostile folder out of a good one."""

    name: str
    examples: Callable[[], Sequence[Files]]
    read: Callable[[Path], object]
    make: Make = mutated

    @functools.cached_property
    def good(self) -> Sequence[Files]:
        return self.examples()

    def input(self, seed: int, number: int) -> Files:
        """Input `number`, the same whenever and wherever it is made. The first ones are the good examples."""
        if number < len(self.good):
            return self.good[number]
        random_ = random.Random(f"{seed}/{self.name}/{number}")
        return self.make(random_, random_.choice(self.good))


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()
