"""An engine is added in one place: a class that satisfies the protocol writes a run's responses and experiments."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

from normprobe.engines.base import Engine, Generated
from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.models.identity import ModelIdentity
from normprobe.models.model import OpenModel
from normprobe.models.open import open_model
from normprobe.problems.testbed.source import BundledProblems
from normprobe.tracing.responses import fill_responses


@dataclass(frozen=True)
class OneAtATime:
    """Prompt by prompt, through Transformers' own `generate`."""

    opened: OpenModel

    @property
    def chat(self) -> Chat:
        return self.opened.chat

    @property
    def identity(self) -> ModelIdentity:
        return self.opened.identity

    @property
    def context(self) -> int | None:
        return self.opened.model.config.max_position_embeddings

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, policy: object = None, **_: object
    ) -> Generated:
        if policy is not None:
            raise NormprobeError("expected no policy, which this engine does not know; use the engine hf")
        written = []
        for prompt in prompts:
            ids = torch.tensor([list(prompt)])
            tokens = self.opened.model.generate(ids, max_new_tokens=max_new_tokens, do_sample=False)
            written.append(tokens[0, len(prompt) :].tolist())
        finish = ["stop" if tokens[-1] in self.chat.eos_ids else "length" for tokens in written]
        return Generated(written, finish, None, [None] * len(written))


def test_responses_are_the_same_whichever_engine_writes_them(tmp_path: Path) -> None:
    opened = open_model("tiny-thinker")
    toy = OneAtATime(opened)
    assert isinstance(toy, Engine)
    source = BundledProblems()
    problems = source.load({"sae": 8, "select": 8, "measure": 8}, 0)
    tables = {}
    for name, engine in (("toy", toy), ("hf", HfEngine(opened))):
        (tmp_path / name).mkdir()
        fill_responses(
            tmp_path / name, engine, problems, max_new_tokens=120, scorer=source.score, progress=False
        )
        tables[name] = pd.read_parquet(tmp_path / name / "responses.parquet")
    pd.testing.assert_frame_equal(tables["toy"], tables["hf"])
    with pytest.raises(NormprobeError, match="use the engine hf"):
        toy.generate([[1]], 4, policy="alrr")
