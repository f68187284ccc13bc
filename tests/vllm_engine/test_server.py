"""The OpenAI-compatible server as a user starts it, in processes of its own, called with a stock client on loopback."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.version")

import httpx
import openai
from vllm_engine.server_process import free_port, serving

from normprobe.problems import bundled

SUPPRESSION = json.dumps({"policy": "suppress", "tau": {"9": 13.0}, "scale": 0.5})
STRONG = json.dumps({"policy": "suppress", "tau": {"9": 13.0}, "scale": 0.1})


@pytest.fixture(scope="module")
def client(profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    port = free_port()
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "NORMPROBE": str(profile)}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    options = "--dtype float32 --enforce-eager --max-model-len 512 --host 127.0.0.1 --served-model-name tiny"
    command += [str(bundled.find("tiny-thinker").folder), *options.split(), "--port", str(port)]
    command += ["--enable-scale-out"]
    with serving(command, port, environment, tmp_path_factory.mktemp("server") / "log") as client:
        yield client


def complete(client: openai.OpenAI, prompt: list[int], policy: str | None, **more: Any) -> Any:
    extra = {"return_token_ids": True} | ({} if policy is None else {"vllm_xargs": {"normprobe": policy}})
    return client.completions.create(
        model="tiny", prompt=prompt, max_tokens=60, temperature=0, extra_body=extra, **more
    )


def test_a_policy_by_request(client: openai.OpenAI, prompts: list[list[int]]) -> None:
    plain, changed = (complete(client, prompts[3], policy) for policy in (None, SUPPRESSION))
    assert plain.choices[0].token_ids != changed.choices[0].token_ids
    assert complete(client, prompts[3], None).choices[0].token_ids == plain.choices[0].token_ids


def test_a_probe_answers_over_http(client: openai.OpenAI, prompts: list[list[int]]) -> None:
    answer = complete(client, prompts[0], "probe")
    result = answer.kv_transfer_params["normprobe"]
    assert result["n_tokens"] == len(answer.choices[0].token_ids)
    assert all(layer["total"] > 0 for layer in result["layers"].values())


def test_streaming_brings_the_same_text(client: openai.OpenAI, prompts: list[list[int]]) -> None:
    whole = complete(client, prompts[3], SUPPRESSION).choices[0].text
    pieces = [part.choices[0].text for part in complete(client, prompts[3], SUPPRESSION, stream=True)]
    assert len(pieces) > 1
    assert "".join(pieces) == whole


def test_streaming_brings_the_same_results(client: openai.OpenAI, prompts: list[list[int]]) -> None:
    whole = complete(client, prompts[3], "probe").kv_transfer_params["normprobe"]
    *parts, last = complete(client, prompts[3], "probe", stream=True)
    assert last.choices[0].finish_reason
    assert last.kv_transfer_params["normprobe"] == whole
    assert not any(hasattr(part, "kv_transfer_params") for part in parts)


def test_streaming_of_one_token_brings_results_with_its_end(client: openai.OpenAI) -> None:
    """The first output is the last, and the role comes before it."""
    messages: Any = [{"role": "user", "content": "math : z= 3 ; a: z *2 ; ? a"}]
    extra = {"vllm_xargs": {"normprobe": "probe"}}
    parts = list(
        client.chat.completions.create(
            model="tiny", messages=messages, extra_body=extra, stream=True, max_tokens=1, temperature=0
        )
    )
    result = [hasattr(part, "kv_transfer_params") for part in parts]
    assert result == [any(choice.finish_reason for choice in part.choices) for part in parts]
    assert sum(result) == 1


def test_streaming_brings_the_results_of_every_sample(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"n": 3, "temperature": 2.0, "max_tokens": 40, "stream": True}
    messages: Any = [{"role": "user", "content": "math : z= 3 ; a: z *2 ; ? a"}]
    extra = {"vllm_xargs": {"normprobe": "probe"}, "return_token_ids": True}
    tokens, result = {"0": 0, "1": 0, "2": 0}, {}
    stream = client.chat.completions.create(model="tiny", messages=messages, extra_body=extra, **asked)
    for part in stream:
        for choice in part.choices:
            tokens[str(choice.index)] += len(getattr(choice, "token_ids", None) or [])
        result = getattr(part, "kv_transfer_params", result)
    assert {index: one["n_tokens"] for index, one in result["normprobe"]["samples"].items()} == tokens


def test_a_bad_request_is_refused_alone_with_its_reason(
    client: openai.OpenAI, prompts: list[list[int]]
) -> None:
    with pytest.raises(openai.BadRequestError, match="expected a policy among"):
        complete(client, prompts[0], "nonsense")
    with pytest.raises(openai.BadRequestError, match="layers 0…11"):
        complete(client, prompts[0], '{"policy": "alrr", "layers": [40]}')
    huge = json.dumps({"policy": "probe", "max_tokens": 10**9})
    with pytest.raises(openai.BadRequestError, match="max_tokens of at most 512"):
        complete(client, prompts[0], huge)
    assert complete(client, prompts[0], "alrr").choices[0].token_ids


def test_beam_search_is_refused_under_a_policy_only(client: openai.OpenAI, prompts: list[list[int]]) -> None:
    beams: dict[str, Any] = {"use_beam_search": True}
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 4, "n": 2, "temperature": 0}
    chat = [{"role": "user", "content": "math : z= 3 ; ? z"}]
    for create, what in (
        (client.completions.create, {"prompt": prompts[0]}),
        (client.chat.completions.create, {"messages": chat}),
    ):
        assert len(create(**asked, **what, extra_body=beams).choices) == 2
        with pytest.raises(openai.BadRequestError, match="expected sampling, got beam search"):
            create(**asked, **what, extra_body=beams | {"vllm_xargs": {"normprobe": "alrr"}})


QUESTION: Any = [{"role": "user", "content": "math : z= 3 ; a: z *2 ; b: a +4 ; c: b *3 ; ? c"}]


def post(client: openai.OpenAI, route: str, body: dict[str, Any], policy: str | None) -> httpx.Response:
    """One more than the client's own routes. route: from the server's root."""
    more = {} if policy is None else {"vllm_xargs": {"normprobe": policy}}
    url = str(client.base_url.copy_with(path=route))
    return httpx.post(url, json={"model": "tiny", "temperature": 0} | body | more, timeout=60)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The contents of a stream, but for its end."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_the_route_in_anthropics_style_carries_policies(client: openai.OpenAI) -> None:
    body = {"messages": QUESTION, "max_tokens": 60}
    plain, changed, probed, refused = (
        post(client, "/v1/messages", body, policy) for policy in (None, STRONG, "probe", "nonsense")
    )
    assert plain.json()["content"][0]["text"] == probed.json()["content"][0]["text"]
    assert plain.json()["content"][0]["text"] != changed.json()["content"][0]["text"]
    result = probed.json()["kv_transfer_params"]["normprobe"]
    assert result["n_tokens"] == plain.json()["usage"]["output_tokens"]
    assert refused.status_code == 400
    assert "expected a policy among" in refused.text
    streamed = events(post(client, "/v1/messages", body | {"stream": True}, "probe"))
    (last,) = (event for event in streamed if "kv_transfer_params" in event)
    assert last["type"] == "message_delta"
    assert last["kv_transfer_params"]["normprobe"] == result
    assert "kv_transfer_params" not in str(
        events(post(client, "/v1/messages", body | {"stream": True}, None))
    )


def test_the_route_of_responses_carries_policies(client: openai.OpenAI) -> None:
    body = {"input": QUESTION[0]["content"], "max_output_tokens": 60}
    plain, changed, probed, refused = (
        post(client, "/v1/responses", body, policy) for policy in (None, STRONG, "probe", "nonsense")
    )
    assert plain.json()["output"][0]["content"] == probed.json()["output"][0]["content"]
    assert plain.json()["output"][0]["content"] != changed.json()["output"][0]["content"]
    result = probed.json()["kv_transfer_params"]["normprobe"]
    assert result["n_tokens"] == plain.json()["usage"]["output_tokens"]
    assert refused.status_code == 400
    assert "expected a policy among" in refused.text
    *_, last = events(post(client, "/v1/responses", body | {"stream": True}, "probe"))
    assert last["type"] == "response.completed"
    assert last["response"]["kv_transfer_params"]["normprobe"] == result


def test_the_route_of_tokens_carries_policies(client: openai.OpenAI, prompts: list[list[int]]) -> None:
    params = {"max_tokens": 60, "temperature": 0.0, "extra_args": {"normprobe": {"policy": "probe"}}}
    body = {"token_ids": prompts[0], "sampling_params": params}
    whole, streamed = (
        post(client, "/inference/v1/generate", body | {"stream": stream}, None) for stream in (False, True)
    )
    result = whole.json()["kv_transfer_params"]["normprobe"]
    assert result["n_tokens"] == len(whole.json()["choices"][0]["token_ids"])
    (last,) = (event for event in events(streamed) if "kv_transfer_params" in event)
    assert last["choices"][0]["finish_reason"]
    assert last["kv_transfer_params"]["normprobe"] == result


def test_a_batch_of_chats_takes_policies_that_bring_no_results(client: openai.OpenAI) -> None:
    plain, changed, probed, refused = (
        post(
            client, "/v1/chat/completions/batch", {"messages": [QUESTION, QUESTION], "max_tokens": 60}, policy
        )
        for policy in (None, STRONG, '["alrr", "probe"]', "nonsense")
    )
    one, other = plain.json()["choices"]
    assert one["message"] == other["message"] != changed.json()["choices"][0]["message"]
    assert probed.status_code == refused.status_code == 400
    assert "expected a policy without a probe, got a batch of chats with one" in probed.text
    assert "expected a policy among" in refused.text
