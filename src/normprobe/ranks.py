"""The processes that torchrun starts for one training: each trains some of the layers, the first leads the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from normprobe.errors import NormprobeError
from normprobe.model_settings import ModelSettings

_Work = TypeVar("_Work")


@dataclass(frozen=True)
class Rank:
    """One process of `total`; alone without torchrun. local: its number on its machine, and so its GPU's."""

    number: int = 0
    total: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Rank:
        """As torchrun tells. Raises NormprobeError for variables that are not numbers."""
        names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
        try:
            return cls(*(int(os.environ.get(name, default)) for name, default in names.items()))
        except ValueError as error:
            raise NormprobeError(
                f"expected numbers in {', '.join(names)}, as torchrun sets them, got another value ({error}); "
                "unset them"
            ) from error

    @property
    def leads(self) -> bool:
        """Whether this process keeps the run directory."""
        return self.number == 0

    def own(self, work: Sequence[_Work]) -> list[_Work]:
        """What of the work is this process's, such as the layers that it trains."""
        return list(work[self.number :: self.total])

    def placed(self, model: ModelSettings) -> ModelSettings:
        """The model on this process's GPU, where it is to be on one."""
        if self.total == 1 or model.device != "cuda":
            return model
        return replace(model, device=f"cuda:{self.local}")


ALONE = Rank()
