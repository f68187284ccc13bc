"""Data sets of a hub, or of a folder: `hf:NAME[:CONFIG][@SPLIT]`, or the path of a folder, read by `datasets`.

A folder is one that `datasets` saved, or holds Parquet, JSON lines, JSON or CSV files. Columns are read as those of a
file. `datasets` comes with the extra: `pip install 'normprobe[lm-eval]'`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from normprobe.errors import NormprobeError
from normprobe.problems.problem_rows import problem_table
from normprobe.problems.scoring import matches
from normprobe.problems.source import Regime, own_problems
from normprobe.runs.atomic import sha256_of


@dataclass(frozen=True)
class HubProblems:
    """The problems of one split of a data set; answers are judged by `matches`, and no token has a role.

    split: None where the data set has one only.
    """

    dataset: str
    config: str | None
    split: str | None
    max_new_tokens: int = 2048

    @property
    def name(self) -> str:
        config, split = (
            f"{mark}{part}" if part else "" for mark, part in ((":", self.config), ("@", self.split))
        )
        return f"hf:{self.dataset}{config}{split}"

    @property
    def asks_hub(self) -> bool:
        return not Path(self.dataset).is_dir()

    @property
    def roles(self) -> None:
        return None

    def load(self, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
        """All problems of the split, whatever the sizes; see `problem_table`."""
        return problem_table(self._rows(), self.name, Path(self.dataset).name, seed)

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        """Raises NormprobeError for a data set that cannot be had, and one with several splits where none is chosen."""
        import datasets

        folder = Path(self.dataset)
        try:
            if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
                found: Any = datasets.load_from_disk(str(folder))
            elif folder.is_dir():
                found = datasets.load_dataset(str(folder.resolve()), self.config)
            else:
                found = datasets.load_dataset(self.dataset, self.config)
        except Exception as error:  # of the hub, of files, of code that a data set may no longer bring
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise NormprobeError(
                f"expected a data set {self.dataset}, got an error ({reason}); check the name, or give a folder or file"
            ) from error
        if not isinstance(found, dict):
            found = {self.split or "train": found}
        names = list(found)
        if self.split is None and len(names) > 1:
            raise NormprobeError(
                f"expected a split of {self.dataset}, got several ({', '.join(names)}); name one, as in "
                f"{self.name}@{names[-1]}"
            )
        if self.split is not None and self.split not in found:
            raise NormprobeError(
                f"expected a split of {self.dataset} among {', '.join(names)}, got {self.split!r}; correct it"
            )
        return found[self.split or names[0]].to_list()

    def fingerprint(self) -> str:
        """A hash of a folder's files; else the data set's name, whose newest revision is read."""
        folder = Path(self.dataset)
        if not folder.is_dir():
            return self.name
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(str(file.relative_to(folder)).encode())
            digest.update(bytes.fromhex(sha256_of(file)))
        return digest.hexdigest()

    def score(self, answer: str, gold: str) -> bool:
        """Whether the text gives the gold answer, as `matches` has it."""
        return matches(answer, gold)

    def regimes(self, problems: pd.DataFrame) -> Sequence[Regime]:
        """The run's own problems, greedy and at temperature 1: `select` to tune on, `measure` to test on."""
        return own_problems(problems, self.name)


def open_named(rest: str) -> HubProblems:
    """The problems of a data set named as `NAME[:CONFIG][@SPLIT]`. Raises NormprobeError without name or `datasets`."""
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise NormprobeError(
            "expected the package datasets, got none; pip install 'normprobe[lm-eval]'"
        ) from error
    whole, _, split = rest.partition("@")
    name, _, config = whole.partition(":")
    if not name:
        raise NormprobeError(
            f"expected a data set as in hf:openai/gsm8k:main@test, got 'hf:{rest}'; name one"
        )
    return HubProblems(name, config or None, split or None)
