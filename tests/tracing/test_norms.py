"""The norms of texts read once are those that tracing finds."""

import numpy as np
import pandas as pd

from normprobe.models.open import open_model
from normprobe.tracing.norms import read_norms
from normprobe.tracing.trace import replay


def test_they_are_the_norms_of_a_trace_text_by_text():
    opened = open_model("tiny-thinker")
    questions = ("math : a= 4 ; b: a +9 ; ? b", "math : a= 4 ; ? a", "math : a= 4 ; b: a +9 ; ? b")
    texts = [opened.chat.prompt_ids(question, "think") for question in questions]
    norms = read_norms(opened, texts)
    assert [norm.shape for norm in norms] == [(12, len(ids)) for ids in texts]
    traced = replay(opened, pd.DataFrame({"token_ids": texts, "split": "measure"}), progress=False)
    np.testing.assert_allclose(np.concatenate(norms, axis=1), traced["norm"], rtol=1e-5)
