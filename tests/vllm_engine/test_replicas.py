"""Data-parallel replicas behind one server, as a user starts it: each serves policies as the other does."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.version")

import openai
from vllm_engine.server_process import free_port, serving

from normprobe.problems import bundled

SUPPRESSION = json.dumps({"policy": "suppress", "tau": {"9": 13.0}, "scale": 0.1})


@pytest.fixture(scope="module")
def client(profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    port = free_port()
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "NORMPROBE": str(profile)}
    options = "--dtype float32 --enforce-eager --max-model-len 512 --host 127.0.0.1 --served-model-name tiny"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options.split()]
    command += ["--model", str(bundled.find("tiny-thinker").folder), "--port", str(port)]
    command += ["--data-parallel-size", "2"]
    with serving(command, port, environment, tmp_path_factory.mktemp("server") / "log") as client:
        yield client


def ask(client: openai.OpenAI, policy: str | None, rank: int | None, **more: Any) -> Any:
    return client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "math : z= 3 ; a: z *2 ; b: a +4 ; c: b *3 ; ? c"}],
        max_tokens=60,
        extra_body={} if policy is None else {"vllm_xargs": {"normprobe": policy}},
        extra_headers={} if rank is None else {"X-data-parallel-rank": str(rank)},
        **{"temperature": 0.0} | more,
    )


def test_each_replica_serves_policies(client: openai.OpenAI) -> None:
    results, texts = [], []
    for rank in (0, 1):
        plain, probed, changed = (ask(client, policy, rank) for policy in (None, "probe", SUPPRESSION))
        result = probed.kv_transfer_params["normprobe"]
        assert result["n_tokens"] == probed.usage.completion_tokens
        results.append(result)
        texts.append([one.choices[0].message.content for one in (plain, probed, changed)])
        assert texts[-1][0] == texts[-1][1] != texts[-1][2]
    assert results[0] == results[1]
    assert texts[0] == texts[1]


def test_samples_of_a_probe_stay_on_the_replica_that_the_request_names(client: openai.OpenAI) -> None:
    sampled: dict[str, Any] = {"n": 2, "temperature": 1.0}
    with pytest.raises(openai.BadRequestError, match="n = 1 for a probe under data parallelism"):
        ask(client, "probe", None, **sampled)
    assert set(ask(client, "probe", 1, **sampled).kv_transfer_params["normprobe"]["samples"]) == {"0", "1"}
