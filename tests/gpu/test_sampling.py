"""Responses by a CUDA graph: the tokens that the same steps give one by one."""

import torch

from normprobe.problems.bundled import TESTBED
from normprobe.problems.testbed.problems import make_problems
from normprobe.training.sampling import respond
from normprobe.training.tiny_thinker.accuracy import prompt
from normprobe.training.tiny_thinker.model_card import open_checkpoint


def test_a_graph_writes_what_a_cpu_writes(device):
    found = []
    for place in ("cpu", device.type):
        model, tokenizer = open_checkpoint(TESTBED / "final", place)
        texts = [prompt(tokenizer, problem, "think") for problem in make_problems(32, seed=3)]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left").to(place)
        ends = [tokenizer.eos_token_id]
        written = respond(
            model,
            inputs["input_ids"],
            inputs["attention_mask"],
            ends=ends,
            max_new_tokens=64,
            temperature=None,
        )
        found.append(torch.nn.functional.pad(written.cpu(), (0, 64 - written.shape[1]), value=ends[0]))
    # Near ties may fall otherwise on another device, and what follows one differs.
    assert (found[0] == found[1]).all(1).float().mean() >= 0.9
