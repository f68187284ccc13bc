"""The page about serving, as its reader meets it: each block is pasted, and does what the page says of it.

Only places differ: the port, the layer profile, the environment's folder, and where the reader saves programs.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("vllm.version")

from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.input_processor import InputProcessor
from vllm_engine.server_process import free_port, serving

from normprobe.engines.vllm.configuration import MOST_PARTS, MOST_TEXT
from normprobe.engines.vllm.core.scheduling import MOST_SETTINGS
from normprobe.engines.vllm.frontend.variables import find_configuration
from normprobe.engines.vllm.limits import MOST_BYTES, MOST_PASSES, MOST_STATES
from normprobe.engines.vllm.plugin import register
from normprobe.engines.vllm.symbols import READ, TESTED
from normprobe.errors import NormprobeError
from normprobe.layer_profile import LayerProfile
from normprobe.policies.spec import build
from normprobe.problems import bundled

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/serve_with_normprobe.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
BIN, PROFILE, PORT = ".venv-vllm/bin/", "runs/tiny-thinker/layer_profile.json", "8000"
# Of the tests' own variables none that the page would have to name.
READERS = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "NORMPROBE"))}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)


def placed(block: str, places: dict[str, object]) -> str:
    """The block with the places of this test in place of the page's."""
    for name, place in places.items():
        assert name in block, f"expected {name} in the block:\n{block}"
        block = block.replace(name, str(place))
    return block


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=READERS, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def here() -> str:
    """The folder of this environment's programs."""
    return f"{Path(sys.executable).parent}/"


@pytest.fixture(scope="module")
def done(
    profile: Path, here: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """What the blocks that start engines of their own did. Side by side: it is mostly imports."""
    _, program = blocks("Best of n, in one call", "python")
    (offline,) = blocks("Best of n, in one call", "bash")
    (lm_eval,) = blocks("Evaluate: `lm_eval --model vllm`", "bash")
    (generate,) = blocks("A study through vLLM: `--engine vllm`", "bash")
    saved = tmp_path_factory.mktemp("saved") / "offline.py"
    saved.write_text(program, encoding="utf-8")
    scripts = {
        "offline": placed(offline, {BIN: here, PROFILE: profile, saved.name: saved}),
        "lm_eval": placed(lm_eval, {BIN: here, "--limit 16": "--limit 4"}),
        "vllm": placed(generate, {BIN: here}),
        "hf": placed(generate, {BIN: here, "--engine vllm": "--engine hf"}),
    }
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda script: run("bash", "-ec", script), scripts.values())
        return dict(zip(scripts, found, strict=True))


def test_best_of_n_offline(done: dict[str, subprocess.CompletedProcess[str]]) -> None:
    offline = done["offline"]
    assert offline.returncode == 0, offline.stderr[-3000:]
    responses = offline.stdout.splitlines()
    assert len(responses) == 8
    assert all("answer :" in response for response in responses)


def test_lm_eval(done: dict[str, subprocess.CompletedProcess[str]]) -> None:
    lm_eval = done["lm_eval"]
    assert lm_eval.returncode == 0, lm_eval.stderr[-3000:]
    (row,) = (line for line in lm_eval.stdout.splitlines() if line.startswith("|normprobe_pointer"))
    assert "|exact_match|" in row
    assert "FutureWarning: VLLM_PATCH" in lm_eval.stderr
    assert 'give NORMPROBE the policy {"policy": "alrr"' in lm_eval.stderr


def test_a_question_is_answered_as_by_transformers(done: dict[str, subprocess.CompletedProcess[str]]) -> None:
    assert done["vllm"].returncode == 0, done["vllm"].stderr[-3000:]
    assert done["vllm"].stdout == done["hf"].stdout
    assert "policy: acted on" in done["vllm"].stdout


@pytest.fixture(scope="module")
def port(profile: Path, here: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server started by the page's block."""
    (block,) = blocks("Start the server", "bash")
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    block = placed(block, {BIN: here, PROFILE: profile, f"--port {PORT}": f"--port {port}"})
    with serving(["bash", "-ec", block], port, READERS, log):
        yield port
    assert "Application startup complete" in log.read_text()


def asked(block: str, port: int) -> list[str]:
    """The lines that a client's program prints."""
    block = placed(block, {f":{PORT}/": f":{port}/"})
    done = run(sys.executable, "-c", block)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_asking_for_policies(port: int) -> None:
    (block,) = blocks("Ask for a policy", "python")
    plain, alrr, suppressed, numbers = asked(block, port)
    assert plain.endswith("</think> answer : 8")
    assert alrr == plain
    assert suppressed != plain
    assert not suppressed.endswith("answer : 8")
    n_tokens, last_third, largest = map(float, numbers.split())
    assert n_tokens == len(plain.split()) + 1  # and the one that ends it
    assert 0 < largest < last_third


def test_best_of_n_over_http(port: int) -> None:
    over_http, _ = blocks("Best of n, in one call", "python")
    (best,) = asked(over_http, port)
    assert "</think> answer :" in best


def test_the_keys_of_a_probes_results(port: int) -> None:
    """The table names every key, and no other."""
    (block,) = blocks("Ask for a policy", "python")
    policy = json.dumps({"policy": "probe", "max_tokens": 4})
    program = f"{block}\nprint(json.dumps(ask({policy!r}).kv_transfer_params['normprobe']))"
    result = json.loads(asked(program, port)[-1])
    keys, layers, scores = (
        set(re.findall(r"`(\w+)`", text))
        for text in (
            "".join(re.findall(r"^\| (`\w+`) \|", SECTIONS["Ask for a policy"], re.MULTILINE)),
            *re.findall(r"^\| `(?:layers|scores)` \| (.*)", SECTIONS["Ask for a policy"], re.MULTILINE),
        )
    )
    assert keys == result.keys()
    assert layers - {"max_tokens"} == result["layers"]["9"].keys()
    forms = {form for form in result["scores"] if not form.endswith("_per_token")}
    assert scores - layers | {"last_third"} == forms | {"_per_token"}


def test_policies_of_the_table_can_be_built(profile: Path) -> None:
    policies = re.findall(r"^\| `([\[{].*?)` \|", SECTIONS["Ask for a policy"], re.MULTILINE)
    assert len(policies) == 6
    for policy in policies:
        assert build(json.loads(policy), LayerProfile.load(profile)).layers


def test_the_variable_may_be_json(profile: Path) -> None:
    (text,) = re.findall(r"NORMPROBE='(.*?)'", SECTIONS["Start the server"])
    found = find_configuration({}, {"NORMPROBE": placed(text, {"layer_profile.json": profile})})
    assert found is not None
    assert found.policy == '{"policy":"alrr"}'
    assert found.layer_profile() == LayerProfile.load(profile)


def test_limits_are_those_of_the_engine() -> None:
    text = " ".join(SECTIONS["Ask for a policy"].split())
    assert (
        f"`bank_size` {MOST_STATES}, `max_passes` times layers {MOST_PASSES}, eight policies in a list"
        in text
    )
    assert (MOST_PARTS, MOST_TEXT, MOST_BYTES) == (8, 2**16, 2**30)
    assert f"At most {MOST_SETTINGS} settings besides" in text


def test_the_messages_of_the_last_table(profile: Path) -> None:
    other_engine, other_model, other_version = re.findall(
        r"^\| `(expected .*?) ?…?` \|", SECTIONS["When it does not work"], re.MULTILINE
    )
    assert other_version == f"expected vLLM {TESTED} or {READ}"
    with pytest.raises(NormprobeError, match=other_model):
        LayerProfile.load(profile).for_model({"name": "another", "d_model": 64})
    register()
    config = EngineArgs(str(bundled.find("tiny-thinker").folder), enforce_eager=True).create_engine_config()
    asking = SamplingParams(extra_args={"normprobe": "probe"})
    with pytest.raises(VLLMValidationError, match=other_engine):
        InputProcessor(config).process_inputs("1", {"prompt_token_ids": [5]}, asking, ("generate",))
