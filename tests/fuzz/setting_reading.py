"""What settings are read: a study's, a thinking format, the policy that a request asks for."""

from __future__ import annotations

from pathlib import Path

from fuzz.hostile import Files
from fuzz.reader import as_json
from fuzz.run_reading import profiles


def studies() -> list[Files]:
    import dataclasses

    import yaml

    from normprobe.config import Study

    whole = yaml.safe_dump(dataclasses.asdict(Study()), sort_keys=False)
    given = "model: {name: org/A, dtype: bfloat16}\nsaes: {layers: 20-23, k: 8}\nthinking: {start: <a>, end: </a>}\n"
    return [{"config.yaml": text.encode()} for text in (whole, given)]


def read_study(folder: Path) -> None:
    from normprobe.study_file import read_study

    read_study(folder / "config.yaml")


def formats() -> list[Files]:
    given = 'open: <a>\nclose: </a>\nkwargs: {reasoning_effort: high}\nno_think: {prefill: "</a>", forced: true}\n'
    return [{"format.yaml": given.encode()}]


def read_format(folder: Path) -> None:
    from normprobe.thinking_formats import ThinkingFormat, read_format

    ThinkingFormat.of(read_format(str(folder / "format.yaml"))).to_dict()


def policies() -> list[Files]:
    specs = (
        "alrr",
        {"policy": "alrr", "layers": [1, 2], "damping": 0.5, "k": 1.5},
        {"policy": "erss", "trigger": "at_peaks", "tau": "profile"},
        [{"policy": "suppress", "tau": {"1": 13.0}, "scale": 0.1}, "probe"],
    )
    return [
        {"policy.json": as_json(spec), "layer_profile.json": profiles()[0]["layer_profile.json"]}
        for spec in specs
    ]


def read_policy(folder: Path) -> None:
    from profile_fixture import profile

    from normprobe.engines.vllm.configuration import FIELD, canonical, has_probe, parse_json, policy_of
    from normprobe.engines.vllm.frontend.variables import find_configuration
    from normprobe.engines.vllm.limits import Limits
    from normprobe.errors import NormprobeError

    path = folder / "policy.json"
    content = path.read_bytes().decode("utf-8", "replace") if path.exists() else "null"
    asked = parse_json(content)
    started = find_configuration(
        {FIELD: {"profile": str(folder / "layer_profile.json"), "policy": asked}}, {}
    )
    assert started is not None
    try:  # as the front end does with a request's own
        text = canonical(asked)
        policy = policy_of(text, profile(), 3)
        limits = Limits(length=4096, lockstep=False, n_slots=256, state_bytes=8192)
        limits.check(policy)
        limits.check_memory(policy)
    except (NormprobeError, ValueError, OverflowError, RecursionError) as error:
        raise NormprobeError(" ".join(str(error).split())) from error
    has_probe({FIELD: text})
