"""Responses of a random model: decoded as `generate` does, the same in any batch, whole after an interruption."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from normprobe.engines.hf import HfEngine
from normprobe.engines.hf.decode import decode
from normprobe.errors import NormprobeError
from normprobe.models.initialise import initialise
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import END, END_THINK, VOCABULARY
from normprobe.tracing.responses import fill_responses

NEW_TOKENS = 20


@pytest.fixture
def opened(make_tiny_qwen3) -> OpenModel:
    """Weights so wide that it says many different tokens; every eighth token ends a response."""
    model = make_tiny_qwen3()
    model.config.initializer_range = 0.2
    initialise(model, torch.Generator().manual_seed(0))
    ends = [i for i in range(7, len(VOCABULARY), 8) if VOCABULARY[i] != END_THINK]
    model.generation_config.eos_token_id = [VOCABULARY.index(END), *ends]
    return assemble(model, build_tokenizer(), "random", check=False)


@pytest.fixture
def problems() -> pd.DataFrame:
    made = make_problems(10, seed=0)
    return pd.DataFrame(
        {
            "problem_id": [problem.id for problem in made],
            "domain": [problem.domain for problem in made],
            "difficulty": [problem.difficulty for problem in made],
            "question": [problem.question for problem in made],
            "answer": [*(problem.answer for problem in made[:-1]), None],
            "split": ["sae", "select", "measure", "sae", "measure"] * 2,
        }
    )


@pytest.fixture
def generate(opened: OpenModel, tmp_path: Path):
    """The table of responses; each call writes into a folder of its own."""

    def generate(problems: pd.DataFrame, **arguments) -> pd.DataFrame:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        fill_responses(folder, HfEngine(opened), problems, progress=False, **arguments)
        return pd.read_parquet(folder / "responses.parquet")

    return generate


def prompts_of(opened: OpenModel, problems: pd.DataFrame) -> list[list[int]]:
    return [opened.chat.prompt_ids(question, "think") for question in problems["question"]]


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one.drop(columns="token_ids"), other.drop(columns="token_ids"))
    assert [list(ids) for ids in one["token_ids"]] == [list(ids) for ids in other["token_ids"]]


def test_greedy_decoding_is_what_generate_gives_one_by_one(opened, problems):
    prompts = prompts_of(opened, problems)
    expected = [
        opened.model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)[
            0, len(prompt) :
        ]
        for prompt in prompts
    ]
    written = decode(opened, prompts, NEW_TOKENS)
    assert written == [tokens.tolist() for tokens in expected]
    assert len({len(tokens) for tokens in written}) > 3, "rows must leave the batch at different steps"


def test_sampling_follows_the_softmax(opened, problems):
    prompt = prompts_of(opened, problems)[0]
    draws = (np.arange(500)[:, None] + 0.5) / 500
    with torch.no_grad():
        p = torch.softmax(opened.model(torch.tensor([prompt])).logits[0, -1].double() / 1.7, dim=0).numpy()
    first = [tokens[0] for tokens in decode(opened, [prompt] * 500, 1, temperature=1.7, draws=draws)]
    counts = np.bincount(first, minlength=len(p))
    assert np.abs(counts - 500 * p).max() <= 1 + 1e-3


def test_a_response_does_not_depend_on_the_others(generate, problems):
    together = generate(problems, max_new_tokens=NEW_TOKENS, batch_size=64)
    same(together, generate(problems, max_new_tokens=NEW_TOKENS, batch_size=3))
    reversed_ = generate(problems.iloc[::-1], max_new_tokens=NEW_TOKENS, batch_size=4)
    backwards = reversed_.set_index("response_id").loc[together["response_id"]].reset_index()
    same(together, backwards[together.columns])


def test_the_table_says_what_was_generated(generate, opened, problems):
    answers = []

    def scorer(text: str, gold: str) -> bool:
        answers.append((text, gold))
        return text == "" or len(text) % 2 == 0

    table = generate(problems, max_new_tokens=NEW_TOKENS, scorer=scorer)
    assert table["response_id"].tolist() == [
        f"{problem}/{mode}/0"
        for problem in problems["problem_id"]
        for mode in ("think", "no_think", "filler")
    ]
    assert len(answers) == 27, "a problem without gold answer is not scored"
    assert table["correct"].isna().sum() == 3
    for row in table.to_dict("records"):
        ids = row["token_ids"].tolist()
        question = problems.set_index("problem_id")["question"][row["problem_id"]]
        n_filler = 0
        if row["mode"] == "filler":
            thinking = table.set_index("response_id").loc[f"{row['problem_id']}/think/0"]
            n_filler = thinking["thought_end"] - thinking["thought_start"]
            assert row["thought_end"] - row["thought_start"] == n_filler
        assert ids[: row["n_prompt"]] == opened.chat.prompt_ids(question, row["mode"], int(n_filler))
        assert 1 <= len(ids) - row["n_prompt"] <= NEW_TOKENS
        assert (row["finish"] == "stop") == (ids[-1] in opened.chat.eos_ids)
        assert not set(ids[row["n_prompt"] : -1]) & set(opened.chat.eos_ids)
        spans = opened.chat.spans(ids, row["n_prompt"])
        assert spans.thought == (row["thought_start"], row["thought_end"])
        assert spans.answer == (row["answer_start"], row["answer_end"])
        assert row["truncated"] == spans.truncated == (row["mode"] == "think" and row["answer_start"] == -1)
        answer = ids[row["answer_start"] : row["answer_end"]] if row["answer_start"] >= 0 else []
        assert row["answer_text"] == opened.tokenizer.decode(answer, skip_special_tokens=True)
    assert set(table["finish"]) == {"stop", "length"}


def test_interrupted_responses_go_on_where_they_were(opened, problems, tmp_path):
    arguments = {"max_new_tokens": 8, "batch_size": 4, "progress": False}
    scored = []

    def scorer(text: str, gold: str) -> bool:
        scored.append(gold)
        if len(scored) == 17:
            raise KeyboardInterrupt
        return len(text) % 2 == 0

    halted, whole = tmp_path / "halted", tmp_path / "whole"
    for folder in (halted, whole):
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        fill_responses(halted, HfEngine(opened), problems, scorer=scorer, **arguments)
    assert not (halted / "responses.parquet").exists()
    before = len(scored)
    fill_responses(halted, HfEngine(opened), problems, scorer=scorer, **arguments)
    assert len(scored) - before < 27, "finished batches are not generated again"
    fill_responses(whole, HfEngine(opened), problems, scorer=scorer, **arguments)
    same(*(pd.read_parquet(folder / "responses.parquet") for folder in (halted, whole)))
    assert [path.name for path in halted.iterdir()] == ["responses.parquet"]


def test_what_cannot_be_answered_is_refused(generate, problems):
    with pytest.raises(NormprobeError, match="within the model's 512 tokens"):
        generate(problems, max_new_tokens=500)
    with pytest.raises(NormprobeError, match="at least one problem"):
        generate(problems.iloc[:0], max_new_tokens=8)
    with pytest.raises(NormprobeError, match="once"):
        generate(pd.concat([problems, problems]), max_new_tokens=8)


class CountingEngine(HfEngine):
    """Counts its calls."""

    calls = 0

    def generate(self, *arguments, **options):
        self.calls += 1
        return super().generate(*arguments, **options)


@pytest.mark.parametrize(
    ("question", "max_new_tokens", "message"),
    [
        ("math <|im_end|> ?", 20, "control tokens"),
        ("math ?", 470, "within the model's 512 tokens"),
    ],
)
def test_what_cannot_end_well_is_refused_before_the_first_response(
    opened, problems, tmp_path, question, max_new_tokens, message
):
    """The last problem's question is wrong; or a thought of full length would leave filler's answer no room."""
    problems.loc[len(problems) - 1, "question"] = question
    engine = CountingEngine(opened)
    with pytest.raises(NormprobeError, match=message):
        fill_responses(tmp_path, engine, problems, max_new_tokens=max_new_tokens, progress=False)
    assert engine.calls == 0


def test_where_room_is_short_an_answer_after_filler_gets_what_is_left(generate, problems, opened):
    longest = max(len(opened.chat.prompt_ids(str(q), "no_think")) for q in problems["question"])
    limit = 512 - longest - 64
    written = generate(problems, max_new_tokens=limit)
    assert (written["token_ids"].map(len) <= 512).all()
    assert set(written["mode"]) == {"think", "no_think", "filler"}
