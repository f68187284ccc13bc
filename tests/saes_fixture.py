"""A run up to its responses, with what a perfect model would have written, and a small model to read it."""

from pathlib import Path

import pandas as pd
from layout_fixture import put
from run_fixture import finish

from normprobe.models.identity import ModelIdentity
from normprobe.models.model import OpenModel
from normprobe.problems.testbed.problems import make_problems
from normprobe.runs.directory import Run

SPLITS = ("sae", "select", "measure")
SOME_THINKER = ModelIdentity(
    name="org/Some-Thinker",
    revision=None,
    architecture="Qwen3ForCausalLM",
    weights="0123456789abcdef",
    n_layers=4,
    d_model=16,
    vocab=10,
    dtype="float32",
    chat_template="t",
    tokenizer="k",
)
"""Of a model of another's, with 4 layers of width 16."""


def write_tables(opened: OpenModel, n: int = 24) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Problems and responses: n problems in turn in each split, all modes; the last think response is cut off."""
    problems, responses = [], []
    for i, made in enumerate(make_problems(n, seed=0)):
        split = SPLITS[i % 3]
        problems.append({"problem_id": made.id, "split": split, "question": made.question})
        for mode in ("think", "no_think", "filler"):
            prompt = opened.chat.prompt_ids(made.question, mode, len(made.thought) if mode == "filler" else 0)
            text = f"answer : {made.answer} <|im_end|>"
            if mode == "think":
                text = f"{made.thought_text} </think> {text}" if i < n - 1 else made.thought_text
            ids = prompt + opened.tokenizer(text, add_special_tokens=False)["input_ids"]
            spans = opened.chat.spans(ids, len(prompt))
            (thought_start, thought_end), (answer_start, answer_end) = spans.thought, spans.answer
            responses.append(
                {
                    "response_id": f"{made.id}/{mode}/0",
                    "problem_id": made.id,
                    "split": split,
                    "mode": mode,
                    "sample": 0,
                    "token_ids": ids,
                    "n_prompt": len(prompt),
                    "thought_start": thought_start,
                    "thought_end": thought_end,
                    "answer_start": answer_start,
                    "answer_end": answer_end,
                }
            )
    return pd.DataFrame(problems), pd.DataFrame(responses)


def write_run(path: Path, opened: OpenModel, n: int = 24) -> Run:
    """The same as the first stages of a run."""
    run = Run.open(path, {"seed": 0})
    problems, responses = write_tables(opened, n)
    put(path, "problems", problems.assign(domain=None, difficulty=None, answer=None))
    put(path, "responses", responses)
    finish(run)
    return run
