"""The entropies that tokens were drawn with, read once they are written: those of the whole logits."""

import numpy as np
import pytest
import torch

from normprobe.engines.hf import HfEngine
from normprobe.engines.inverse_cdf import output_entropy
from normprobe.experiments import drawn_entropies as reading
from normprobe.models.open import open_model
from normprobe.problems.testbed.problems import make_problems


@pytest.mark.parametrize("scratch", [2**24, 4096])
def test_they_are_those_of_the_whole_logits(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SCRATCH", scratch)
    opened = open_model("tiny-thinker", check=False)
    prompts = [opened.chat.prompt_ids(problem.question, "think") for problem in make_problems(34, 3)]
    written = HfEngine(opened).generate(prompts, 24).tokens
    found = reading.drawn_entropies(opened, prompts, written)
    for i in (0, 7, 33):
        with torch.no_grad():
            logits = opened.model(torch.tensor([prompts[i] + written[i]])).logits[0]
        first = len(prompts[i]) - 1
        expected = output_entropy(logits[first : first + len(written[i]) - 1]).numpy()
        assert len(found[i]) == len(written[i])
        assert found[i][0] == 0
        np.testing.assert_allclose(found[i][1:], expected, atol=1e-5)
