"""What single requests ask for and get back: refusals, results, aborts, samples."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from serving_fixture import Asked, Engine

pytest.importorskip("vllm.version")

from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams, RequestOutputKind
from vllm.v1.request import RequestStatus

from normprobe.engines.hf import HfEngine
from normprobe.engines.vllm.core import scheduling
from normprobe.engines.vllm.frontend.best_of import best_of
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.lrs import choose, lrs_scores
from normprobe.policies.spec import build

if TYPE_CHECKING:
    from normprobe.models.model import OpenModel

PROBE = {"policy": "probe", "layers": [3, 9, 10], "max_tokens": 64, "tau": "profile"}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("nonsense", "a policy among"),
        ({"policy": "alrr", "alpha": 0.5}, "alpha"),
        ({"policy": "alrr", "layers": [99]}, "layers 0…11, got \\[99\\]"),
        ({"policy": "alrr", "tau": {"12": 5.0}}, "layers 0…11, got \\[12\\]"),
        ({"policy": "alrr", "damping": 2.0}, "damping in"),
        ({"policy": "alrr", "damping": "much"}, "damping"),
        ("{not json", "expected JSON"),
        (17, "a policy"),
        ([], "a policy"),
        ([["alrr"]], "a list of policies"),
        ('[[{"policy": "alrr"}]]', "a list of policies"),
        ({"policy": "probe", "max_tokens": 10**9}, "max_tokens of at most 256"),
        ([{"policy": "probe"}, {"policy": "alrr", "max_passes": 10**12}], "256 extra passes of a token"),
        ('{"policy": "alrr", "growth": 1' + "0" * 400 + "}", r"beyond 2e\+19"),
    ],
)
def test_a_bad_request_is_refused_alone(
    engine: Engine, prompts: list[list[int]], policy: Any, message: str
) -> None:
    wanted = engine.serve({"good": Asked(prompts[0], "alrr")})
    engine.add("good", Asked(prompts[0], "alrr"))
    engine.llm.llm_engine.step()
    with pytest.raises(VLLMValidationError, match=message):
        engine.add("bad", Asked(prompts[1], policy))
    done = engine.run()
    assert list(done) == ["good"]
    assert list(done["good"].outputs[0].token_ids) == wanted["good"]


def test_json_text_and_a_mapping_are_the_same_settings(engine: Engine, prompts: list[list[int]]) -> None:
    """HTTP carries no nested values in `vllm_xargs`."""
    text = '{"policy": "suppress", "scale": 0.5, "tau": {"9": 13.0}}'
    mapping = {"policy": "suppress", "tau": {"9": 13.0}, "scale": 0.5}
    both = engine.serve({"text": Asked(prompts[3], text), "mapping": Asked(prompts[3], mapping)})
    assert both["text"] == both["mapping"]
    assert both["text"] != engine.serve({"plain": Asked(prompts[3])})["plain"]


def test_a_probe_measures_what_it_does_in_the_hugging_face_engine(
    engine: Engine, opened: "OpenModel", prompts: list[list[int]], profile: Path
) -> None:
    probe = build(PROBE, LayerProfile.load(profile))
    expected = HfEngine(opened).generate(prompts, 60, policy=probe, quiet=True).probes
    for i, prompt in enumerate(prompts):
        engine.add(str(i), Asked(prompt, PROBE))
    done = engine.run()
    for i in range(len(prompts)):
        result, wanted = done[str(i)].kv_transfer_params["normprobe"], expected[i]
        assert wanted is not None
        assert result["n_tokens"] == wanted["n_tokens"] == len(done[str(i)].outputs[0].token_ids)
        assert result["layers"].keys() == wanted["layers"].keys()
        for layer, values in wanted["layers"].items():
            assert result["layers"][layer] == {
                name: pytest.approx(value, rel=1e-5, abs=1e-4) for name, value in values.items()
            }
        assert result["scores"] == pytest.approx(wanted["scores"], rel=1e-5, abs=1e-4)


def test_only_requests_with_a_probe_bring_results(engine: Engine, prompts: list[list[int]]) -> None:
    engine.add("probed", Asked(prompts[0], [{"policy": "alrr"}, {"policy": "probe", "layers": [2]}]))
    engine.add("recursed", Asked(prompts[1], "alrr"))
    engine.add("plain", Asked(prompts[2]))
    done = engine.run()
    assert set(done["probed"].kv_transfer_params["normprobe"]["layers"]) == {"2"}
    assert done["recursed"].kv_transfer_params is None
    assert done["plain"].kv_transfer_params is None


def test_every_sample_of_a_prompt_brings_its_results(engine: Engine, prompts: list[list[int]]) -> None:
    engine.add(
        "many",
        Asked(
            prompts[8], PROBE, more={"n": 4, "temperature": 2.0, "output_kind": RequestOutputKind.FINAL_ONLY}
        ),
    )
    output = engine.run()["many"]
    samples = output.kv_transfer_params["normprobe"]["samples"]
    assert {i: sample["n_tokens"] for i, sample in samples.items()} == {
        str(one.index): len(one.token_ids) for one in output.outputs
    }
    assert len({sample["n_tokens"] for sample in samples.values()}) > 1


def test_a_request_that_a_stop_string_ends_brings_its_results(
    engine: Engine, opened: "OpenModel", prompts: list[list[int]]
) -> None:
    whole = engine.serve_alone({str(i): Asked(prompt) for i, prompt in enumerate(prompts)})
    words = {name: opened.tokenizer.decode(tokens[5]).strip() for name, tokens in whole.items()}
    for i, prompt in enumerate(prompts):
        engine.add(str(i), Asked(prompt, PROBE, more={"stop": [words[str(i)]]}))
    engine.add("unstopped", Asked(prompts[0], PROBE, more={"stop": ["never written"]}))
    done = engine.run()
    for i in range(len(prompts)):
        answer = done[str(i)].outputs[0]
        assert answer.stop_reason == words[str(i)]
        result = done[str(i)].kv_transfer_params["normprobe"]
        assert result["n_tokens"] == len(answer.token_ids) <= 6
        assert len(result["layers"]["3"]["norm"]) == result["n_tokens"]
    result = done["unstopped"].kv_transfer_params["normprobe"]
    assert result["n_tokens"] == len(whole["0"])
    assert engine.core.normprobe.reports._stops._reading == {}


def test_preempted_requests_count_each_token_once(engine: Engine, prompts: list[list[int]]) -> None:
    """A preempted request is computed again, several of its tokens in one pass; so is nobody else's."""
    names = [str(i) for i in range(2 * len(prompts))]
    for i, name in enumerate(names):
        engine.add(name, Asked(prompts[i % len(prompts)], PROBE))
    preempted, done = 0, {}
    while engine.llm.llm_engine.has_unfinished_requests():
        done |= {output.request_id: output for output in engine.llm.llm_engine.step() if output.finished}
        preempted += any(one.num_preemptions for one in engine.core.scheduler.requests.values())
    assert preempted
    for i, name in enumerate(names):
        result = done[name].kv_transfer_params["normprobe"]
        assert result["n_tokens"] == len(done[name].outputs[0].token_ids)
        twin = done[names[i - len(prompts)]].kv_transfer_params["normprobe"]
        assert result["scores"] == pytest.approx(twin["scores"], rel=1e-4, abs=1e-3)


def test_requests_that_a_reset_of_the_cache_starts_anew_count_each_token_once(
    engine: Engine, prompts: list[list[int]]
) -> None:
    """Preempted and resumed in one pass."""
    asked = {str(i): Asked(prompt, PROBE) for i, prompt in enumerate(prompts[:5])}
    alone = engine.serve_alone(asked)
    for name, one in asked.items():
        engine.add(name, one)
    for _ in range(12):
        engine.llm.llm_engine.step()
    assert engine.llm.llm_engine.reset_prefix_cache(reset_running_requests=True)
    engine.add("after", Asked(prompts[0], PROBE))
    done = engine.run()
    for name, tokens in (alone | {"after": alone["0"]}).items():
        assert list(done[name].outputs[0].token_ids) == tokens
        assert done[name].kv_transfer_params["normprobe"]["n_tokens"] == len(tokens)


def test_a_request_may_be_named_like_a_sample(engine: Engine, prompts: list[list[int]]) -> None:
    engine.add("3_name", Asked(prompts[0], PROBE))
    several = {"n": 4, "temperature": 1.0, "output_kind": RequestOutputKind.FINAL_ONLY}
    engine.add("name", Asked(prompts[1], PROBE, more=several))
    done = engine.run()
    assert "n_tokens" in done["3_name"].kv_transfer_params["normprobe"]
    assert set(done["name"].kv_transfer_params["normprobe"]["samples"]) == {"0", "1", "2", "3"}


@pytest.mark.parametrize("policy", [["alrr", "probe"], '["probe"]'])
def test_a_list_of_names_is_served(engine: Engine, prompts: list[list[int]], policy: object) -> None:
    engine.add("named", Asked(prompts[0], policy, 5))
    assert engine.run()["named"].kv_transfer_params["normprobe"]["n_tokens"] == 5


@pytest.mark.parametrize("form", ["last_third", "A_per_token"])
def test_best_of_orders_the_samples_as_the_selection_chooses(
    engine: Engine, prompts: list[list[int]], form: str
) -> None:
    policy = [{"policy": "alrr"}, PROBE]
    params = SamplingParams(n=6, temperature=2.0, max_tokens=60, extra_args={"normprobe": policy})
    asked = [{"prompt_token_ids": prompt} for prompt in prompts[:5]]
    moved = 0
    for output in best_of(engine.llm, asked, params, form, use_tqdm=False):
        samples = output.kv_transfer_params["normprobe"]["samples"]
        norms = [
            torch.tensor([layer["norm"] for layer in samples[str(index)]["layers"].values()])
            for index in range(6)
        ]
        chosen = choose([lrs_scores(norm, torch.zeros(len(norm)))[form] for norm in norms])
        tokens = {one.index: list(one.token_ids) for one in output.outputs}
        assert tokens[chosen] == list(output.outputs[0].token_ids)  # samples may say the same
        assert [len(tokens[i]) for i in range(6)] == [norm.shape[1] for norm in norms]
        moved += chosen != 0
    assert moved


@pytest.mark.parametrize(
    ("params", "form", "message"),
    [
        ({"n": 2}, "length", "a form among"),
        ({"n": 1}, "A", "several responses"),
        ({"n": 2, "extra_args": {"normprobe": "alrr"}}, "A", "a policy with a probe"),
    ],
)
def test_best_of_says_what_it_cannot_choose_by(
    engine: Engine, prompts: list[list[int]], params: dict[str, Any], form: str, message: str
) -> None:
    with pytest.raises(NormprobeError, match=message):
        best_of(engine.llm, {"prompt_token_ids": prompts[0]}, SamplingParams(max_tokens=4, **params), form)


def test_aborted_requests_leave_nothing(engine: Engine, prompts: list[list[int]]) -> None:
    wanted = engine.serve_alone({"kept": Asked(prompts[0], "alrr")})
    names = [engine.add(f"gone {i}", Asked(prompts[i], PROBE)) for i in range(1, 6)]
    engine.add("kept", Asked(prompts[0], "alrr"))
    for _ in range(4):
        engine.llm.llm_engine.step()
    engine.llm.llm_engine.abort_request(names, internal=True)
    assert list(engine.run()["kept"].outputs[0].token_ids) == wanted["kept"]
    engine.serve({"next": Asked(prompts[0], PROBE)})
    assert engine.core.normprobe.reports._wanted == {}
    assert engine.core.normprobe.reports._samples == {}


def test_settings_of_clients_are_not_kept(engine: Engine, prompts: list[list[int]]) -> None:
    for i in range(5):
        engine.serve({"one": Asked(prompts[i], {"policy": "alrr", "damping": 0.1 * i})})
    assert len(engine.worker.normprobe.slots.running) == 1


def test_requests_wait_while_too_many_settings_are_at_work(
    engine: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "MOST_SETTINGS", 3)
    asked = {
        str(i): Asked(prompts[i], [{"policy": "suppress", "tau": {"9": 5.0 + i}}, PROBE], 20 + i)
        for i in range(9)
    }
    alone = engine.serve_alone(asked)
    names = {name: engine.add(name, one) for name, one in asked.items()}
    engine.add("plain", Asked(prompts[0]))
    engine.llm.llm_engine.abort_request(
        [names.pop("1"), names.pop("7")], internal=True
    )  # at work, and waiting
    done, most = {}, 0
    while engine.llm.llm_engine.has_unfinished_requests():
        done |= {output.request_id: output for output in engine.llm.llm_engine.step() if output.finished}
        most = max(most, len(engine.worker.normprobe.slots.running))
    assert most == 3
    assert set(done) == {*names, "plain"}
    for name in names:
        result = done[name].kv_transfer_params["normprobe"]
        assert result["n_tokens"] == len(alone[name])
        assert list(done[name].outputs[0].token_ids) == alone[name]


def test_when_all_requests_are_to_end_those_that_wait_end_too(
    engine: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a shutdown, or before new weights."""
    monkeypatch.setattr(scheduling, "MOST_SETTINGS", 2)
    names = [
        engine.add(str(i), Asked(prompts[i], {"policy": "suppress", "tau": {"9": 5.0 + i}})) for i in range(6)
    ]
    scheduler = engine.core.scheduler
    assert len(scheduler.requests) == 2
    ended = scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)
    assert sorted(one.request_id for one in ended) == sorted(names)
    assert all(one.is_finished() for one in ended)
    assert not scheduler.requests
    engine.llm.llm_engine.abort_request(names, internal=True)  # the front end's part
    assert set(engine.serve({"next": Asked(prompts[0], {"policy": "alrr"}, 3)})) == {"next"}


def test_samples_that_data_parallel_ranks_would_scatter_are_refused(
    engine: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the front end has a say in this; no rank is needed to refuse."""
    parallel = engine.llm.llm_engine.vllm_config.parallel_config
    monkeypatch.setattr(parallel, "data_parallel_size", 2)
    with pytest.raises(VLLMValidationError, match="n = 1 for a probe under data parallelism"):
        engine.add("many", Asked(prompts[0], "probe", more={"n": 2, "temperature": 1.0}))
    for name, policy, n in (("one", "probe", 1), ("unprobed", "alrr", 2)):
        engine.add(name, Asked(prompts[0], policy, 5, more={"n": n, "temperature": 1.0}))
    assert set(engine.run()) == {"one", "unprobed"}


def test_beam_search_is_refused_where_a_default_policy_would_have_to_follow_it(
    engine: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, params = [{"prompt_token_ids": prompts[0]}], BeamSearchParams(beam_width=2, max_tokens=3)
    assert len(engine.llm.beam_search(asked, params)[0].sequences) == 2
    config = engine.llm.llm_engine.vllm_config
    changed = config.additional_config["normprobe"] | {"policy": '{"policy":"alrr"}'}
    monkeypatch.setattr(config, "additional_config", {"normprobe": changed})
    with pytest.raises(VLLMValidationError, match="beam search under an engine with a default policy"):
        engine.llm.beam_search(asked, params)


def test_requests_with_a_policy_share_no_cache_with_others(engine: Engine, prompts: list[list[int]]) -> None:
    """A second turn whose prompt holds a first answer must not find that answer's changed keys and values."""
    policy = {"policy": "suppress", "tau": {"9": 5.0}, "scale": 0.1}
    first = engine.serve({"first": Asked(prompts[7], policy, 60, {"ignore_eos": True})})["first"]
    turn = prompts[7] + first
    warm = engine.serve({"plain": Asked(turn), "again": Asked(turn, policy)})
    engine.llm.llm_engine.reset_prefix_cache()
    cold = engine.serve({"plain": Asked(turn), "again": Asked(turn, policy)})
    assert warm == cold
