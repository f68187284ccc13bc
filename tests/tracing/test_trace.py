"""Traces against what the model itself returns for each response; their table and files, and what they refuse."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import Float
from safetensors.numpy import load_file

from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble, open_model
from normprobe.problems.testbed.problems import make_problems
from normprobe.problems.testbed.roles import roles
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.runs.layout import FILES
from normprobe.runs.run_file import Arrays, arrays
from normprobe.tracing.trace import STATE_SIGNALS, fill_traces, replay, token_table, trace

SMALL = 1_000_000
"""Bytes in which the tiny model reads chunks of a few tokens."""


@pytest.fixture
def opened(tiny_qwen3_dir) -> OpenModel:
    opened = open_model(tiny_qwen3_dir, check=False)
    opened.model.set_attn_implementation("eager")  # which can return its weights
    return opened


@pytest.fixture
def problems() -> pd.DataFrame:
    made = make_problems(6, seed=0)
    return pd.DataFrame(
        {
            "problem_id": [problem.id for problem in made],
            "domain": [problem.domain for problem in made],
            "difficulty": [problem.difficulty for problem in made],
            "question": [problem.question for problem in made],
            "answer": [problem.answer for problem in made],
            "split": ["sae", "select", "measure"] * 2,
        }
    )


@pytest.fixture
def responses(opened, problems) -> pd.DataFrame:
    """What a perfect model would have written."""
    rows = []
    for problem, made in zip(problems.to_dict("records"), make_problems(6, seed=0), strict=True):
        for mode in ("think", "no_think", "filler"):
            prompt = opened.chat.prompt_ids(made.question, mode, len(made.thought) if mode == "filler" else 0)
            text = f"answer : {made.answer} <|im_end|>"
            if mode == "think":
                text = f"{made.thought_text} </think> {text}"
            ids = prompt + opened.tokenizer(text, add_special_tokens=False)["input_ids"]
            spans = opened.chat.spans(ids, len(prompt))
            rows.append(
                {
                    "response_id": f"{made.id}/{mode}/0",
                    "problem_id": made.id,
                    "split": problem["split"],
                    "mode": mode,
                    "sample": 0,
                    "token_ids": np.array(ids),
                    "n_prompt": len(prompt),
                    "thought_start": spans.thought[0],
                    "thought_end": spans.thought[1],
                    "answer_start": spans.answer[0],
                    "answer_end": spans.answer[1],
                }
            )
    return pd.DataFrame(rows)


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -(p * p.clamp(min=1e-30).log()).sum(-1)


def test_signals_are_those_of_each_response_alone(opened, problems, responses):
    tokens, signals = trace(opened, responses, problems, memory=SMALL, progress=False)
    assert {array.shape for name, array in signals.items() if name != "surprisal"} == {(4, len(tokens))}
    assert {array.dtype for array in signals.values()} == {np.dtype("float32")}
    for response_id, part in tokens.groupby("response_id", sort=False):
        ids = torch.tensor(part["token_id"].to_numpy())
        with torch.no_grad():
            out = opened.model(ids[None], output_hidden_states=True, output_attentions=True)
        states = torch.stack(out.hidden_states[1:-1])[:, 0].double()  # the last is after the final norm
        p = torch.softmax(out.logits[0].double(), -1)
        column = part.index.to_numpy()
        expected = {
            "norm": states.square().sum(-1).sqrt(),
            "entropy_softmax": entropy(torch.softmax(states, -1)),
            "entropy_rms": entropy(torch.softmax(states / states.square().mean(-1, keepdim=True).sqrt(), -1)),
            "entropy_energy": entropy(states.square() / states.square().sum(-1, keepdim=True)),
            "attention_entropy": torch.stack([entropy(a[0].double()).mean(0) for a in out.attentions]),
        }
        for name, values in expected.items():
            found = torch.from_numpy(signals[name][: len(values), column]).double()
            torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-5, msg=f"{name} of {response_id}")
        last = torch.from_numpy(signals["output_entropy"][-1, column]).double()
        torch.testing.assert_close(last, entropy(p), rtol=1e-4, atol=1e-5)
        surprisal = -p[torch.arange(len(ids) - 1), ids[1:]].log()
        found = torch.from_numpy(signals["surprisal"][column]).double()
        assert math.isnan(found[0])
        torch.testing.assert_close(found[1:], surprisal, rtol=1e-4, atol=1e-5)
        lens = torch.softmax(opened.unembed(states[1].float()).double(), -1)
        found = torch.from_numpy(signals["output_entropy"][1, column]).double()
        torch.testing.assert_close(found, entropy(lens), rtol=1e-4, atol=1e-5)


def peak(h: Float[torch.Tensor, "*token d"]) -> Float[torch.Tensor, "*token"]:
    """maxᵢ |hᵢ| / ‖h‖₂, in [1/√d, 1]: how much of the state one coordinate holds."""
    h = h.float()
    return h.abs().amax(-1) / torch.linalg.vector_norm(h, dim=-1)


def test_a_signal_is_added_by_a_function_and_a_line_in_each_table(
    opened, problems, responses, tmp_path, monkeypatch
):
    monkeypatch.setitem(STATE_SIGNALS, "peak", peak)
    line = "peak? layer token share of the state's norm that its largest coordinate has"
    signals = Arrays({**FILES["signals/model"].arrays.by_name, **arrays(line).by_name})
    monkeypatch.setitem(FILES, "signals/model", replace(FILES["signals/model"], arrays=signals))
    fill_traces(tmp_path, {"model": opened}, responses, problems, progress=False)
    found = load_file(tmp_path / "model.safetensors")["peak"]
    ids = torch.from_numpy(responses["token_ids"][responses["split"] != "sae"].iloc[0])
    with torch.no_grad():
        state = opened.model(ids[None], output_hidden_states=True).hidden_states[1][0, -1].tolist()
    expected = max(map(abs, state)) / math.sqrt(sum(x * x for x in state))
    assert found[0, len(ids) - 1] == pytest.approx(expected, rel=1e-5)


def test_batches_change_nothing_and_other_splits_are_left_out(opened, responses):
    whole = replay(opened, responses, progress=False)
    single = replay(opened, responses, memory=SMALL, progress=False)
    for name, values in whole.items():
        np.testing.assert_allclose(values, single[name], rtol=1e-4, atol=1e-5)
    traced = responses[responses["split"] != "sae"]
    np.testing.assert_allclose(replay(opened, traced, progress=False)["norm"], whole["norm"], rtol=1e-5)


def test_the_lens_on_a_sample_reads_those_tokens_and_the_last_layer_alone(opened, responses):
    whole = replay(opened, responses, progress=False)
    sampled = replay(opened, responses, lens_tokens=20, progress=False)
    read = np.isfinite(sampled["output_entropy"])
    assert read.sum(axis=1).tolist() == [20, 20, 20, read.shape[1]]
    assert (read[0] == read[1]).all()
    np.testing.assert_allclose(sampled["output_entropy"][read], whole["output_entropy"][read], atol=1e-5)
    for name in whole.keys() - {"output_entropy"}:
        np.testing.assert_allclose(sampled[name], whole[name], atol=1e-5)
    again = replay(opened, responses, lens_tokens=20, progress=False)["output_entropy"]
    np.testing.assert_array_equal(np.isfinite(again), read)
    too_many = replay(opened, responses, lens_tokens=10**6, progress=False)["output_entropy"]
    assert np.isfinite(too_many).all()


def test_a_budget_that_cannot_do_is_refused_with_what_can(opened, responses):
    with pytest.raises(NormprobeError, match=r"give --memory 0\.0\d or shorter responses"):
        replay(opened, responses, memory=1000, progress=False)


def test_the_token_table_says_what_each_token_is(opened, problems, responses):
    norm = np.ones(
        (4, sum(len(ids) for ids in responses["token_ids"][responses["split"] != "sae"])), dtype=np.float32
    )
    norm[:2, 7] = 11  # in half of the layers
    norm[0, 9] = 11
    table = token_table(opened, responses, problems, norm, roles=roles)
    traced = responses[responses["split"] != "sae"]
    assert table["token_id"].tolist() == [i for ids in traced["token_ids"] for i in ids]
    assert " ".join(table["token"]) == " ".join(opened.tokenizer.decode(ids) for ids in traced["token_ids"])
    assert np.flatnonzero(table["sink"]).tolist() == sorted({7, *np.flatnonzero(table["position"] == 0)})
    assert set(table["segment"][table["mode"] == "no_think"]) == {"prompt", "answer", "format"}
    for problem, made in zip(problems["problem_id"], make_problems(6, seed=0), strict=True):
        for mode in ("think", "filler") if problem in set(traced["problem_id"]) else ():
            part = table[(table["problem_id"] == problem) & (table["mode"] == mode)]
            assert part["domain"].unique().tolist() == [made.domain]
            assert part["difficulty"].unique().tolist() == [made.difficulty]
            assert part["token"][part["segment"] == "answer"].tolist() == [
                "answer",
                ":",
                *made.answer.split(),
            ]
            thought = part[part["segment"] == "thought"]
            if mode == "filler":
                assert thought["token"].tolist() == ["."] * len(made.thought)
                assert thought["role"].isna().all()
            else:
                assert thought["token"].tolist() == [token.text for token in made.thought]
                assert thought["role"].tolist() == [token.role for token in made.thought]
            assert part["token"][part["segment"] == "format"].tolist()[-1] == "<|im_end|>"
            assert part["role"][part["segment"] == "prompt"].isna().all()


def test_traces_resume_subject_by_subject(opened, problems, responses, make_tiny_qwen3, tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    twin = assemble(make_tiny_qwen3(seed=5), build_tokenizer(), "twin", check=False)
    weight = twin.model.get_parameter("model.layers.2.mlp.down_proj.weight")
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = math.nan
    subjects = {"model": opened, "early": twin}
    with pytest.raises(NormprobeError, match="NaN or infinity in layer 2 of subject 'early'"):
        fill_traces(folder, subjects, responses, problems, roles=roles, progress=False)
    assert not (folder / "early.safetensors").exists()
    done = folder / "model.safetensors"
    written = done.stat().st_mtime_ns
    with torch.no_grad():
        weight.copy_(kept)
    fill_traces(folder, subjects, responses, problems, roles=roles, progress=False)
    assert done.stat().st_mtime_ns == written
    names = ["early.safetensors", "model.safetensors", "tokens.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == names
    tokens, signals = trace(opened, responses, problems, roles=roles, progress=False)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "tokens.parquet"), tokens, check_dtype=False)
    for name, values in load_file(done).items():
        np.testing.assert_array_equal(values, signals[name])
    norm = load_file(folder / "early.safetensors")["norm"]
    np.testing.assert_array_equal(norm, replay(twin, responses, progress=False)["norm"])


def test_a_control_with_another_tokenizer_is_refused(opened, problems, responses, make_tiny_qwen3, tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["new"])
    other = assemble(make_tiny_qwen3(), tokenizer, "other", check=False)
    with pytest.raises(NormprobeError, match="subject 'early' to share the model's tokenizer"):
        fill_traces(folder, {"model": opened, "early": other}, responses, problems, progress=False)
    assert not list(folder.iterdir())


def test_foreign_tokens_and_nothing_to_read_are_refused(opened, responses):
    with pytest.raises(NormprobeError, match="expected responses in the splits select, measure, got none"):
        replay(opened, responses[responses["split"] == "sae"], progress=False)
    foreign = responses.copy()
    foreign["token_ids"] = [np.array([1, 100_000])] * len(foreign)
    with pytest.raises(NormprobeError, match="below the vocabulary of subject 'model'"):
        replay(opened, foreign, progress=False)
