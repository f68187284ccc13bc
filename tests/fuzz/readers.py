"""What reads files that somebody else may have written: each with good examples, and what is done with what it read.

A reader is given a folder with the files of one input. It accepts them, or raises NormprobeError.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuzz.hostile import Files, mutated

Make = Callable[[random.Random, Files], Files]


@dataclass(frozen=True)
class Reader:
    """examples: folders of good files. read: what is tried on the folder. make: a hostile folder out of a good one."""

    name: str
    examples: Callable[[], Sequence[Files]]
    read: Callable[[Path], object]
    make: Make = mutated

    @functools.cached_property
    def good(self) -> Sequence[Files]:
        return self.examples()

    def input(self, seed: int, number: int) -> Files:
        """Input `number`, the same whenever and wherever it is made. The first ones are the good examples."""
        if number < len(self.good):
            return self.good[number]
        random_ = random.Random(f"{seed}/{self.name}/{number}")
        return self.make(random_, random_.choice(self.good))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# A layer profile, and the policies that take thresholds from it.


def _profiles() -> list[Files]:
    from profile_fixture import profile

    content = asdict(profile()) | {
        "model": {"name": "org/A", "weights": "12", "n_layers": 3, "d_model": 4, "vocab": 9}
    }
    both = content | {
        "quantiles": content["quantiles"] | {"no_think": content["quantiles"]["think"]},
        "spike_onset": 2,
    }
    return [{"layer_profile.json": _json(value)} for value in (content, both)]


def _read_profile(folder: Path) -> None:
    from normprobe.layer_profile import LayerProfile
    from normprobe.policies.spec import build

    profile = LayerProfile.load(folder / "layer_profile.json")
    profile.for_model({"name": "org/A", "weights": "12", "n_layers": 3})
    build([{"policy": "alrr"}, {"policy": "probe"}], profile)
    profile.save(folder / "layer_profile.json")


# A finished run: verdicts, what was not judged, the audit, the manifest.


def _run_files() -> list[Files]:
    from normprobe.claims.evidence import Control, Decision, Evidence
    from normprobe.runs.directory import SCHEMA, StageLabel

    controls = (
        Control("whole", "untrained twin", True, float("nan"), (0.0, float("inf"))),
        Control("", "early checkpoint", True, 0.25, (0.1, 0.5), "share"),
    )
    decision = Decision(0.25, (0.1, 0.4), 0.1, "whole", "untrained twin", (("whole", "random"),), 0.01)
    verdicts = [
        Evidence(
            claim=claim, version=2, statement="s", verdict=verdict, reason="", rule="r", form="whole", estimate=0.5,
            unit="u", interval=(0.1, 0.9), n=7, n_unit="problems", controls=controls, decision=decision, seed=3,
            note="n",
        ).to_dict()
        for claim, verdict in (("late_spike", "supported"), ("assumptions", "vacuous"))
    ]  # fmt: skip
    row = {
        "claim": "late_spike",
        "verdict": "supported",
        "estimate": 0.1,
        "layerwise": None,
        "trained": False,
    }
    covered = {"claim": "late_spike", "covered": 0.95, "constant": False, "power_margin": 0.2, "margin": -0.1}
    audit = {
        "nulls": [row],
        "planted": [row],
        "coverage": [covered],
        "subject-early": [row],
        "subject-untrained": [],
    }
    labels = {name: StageLabel(name, 1, {"seed": 0}, {}) for name in ("evidence", "audit")}
    manifest = {
        "schema": SCHEMA,
        "identities": {"model": {"name": "m"}},
        "stages": {n: one.key for n, one in labels.items()},
    }
    stages = {
        f"{name}/stage.json": _json(
            {"schema": SCHEMA, **asdict(one), "key": one.key, "work": 3.0, "seconds": 2.0}
        )
        for name, one in labels.items()
    }
    return [
        {
            "manifest.json": _json(manifest),
            "evidence/verdicts.json": _json(verdicts),
            "evidence/skipped.json": _json(
                [{"claim": "methods_help", "statement": "s", "reason": "no table"}]
            ),
            "audit/audit.json": _json(audit),
            **stages,
        }
    ]


def _read_run(folder: Path) -> None:
    from normprobe.report.audit_results import Audit
    from normprobe.report.document import run_document
    from normprobe.report.terminal import terminal_text
    from normprobe.runs.directory import Run

    run = Run.load(folder)
    run.rate("evidence")
    terminal_text(folder)
    run_document(folder)
    Audit.load(folder).text()


# Tables of a run, responses with their spans among them.


def _tables() -> list[Files]:
    import numpy as np
    import pandas as pd
    from safetensors.numpy import save

    from normprobe.runs.layout import FILES

    def parquet(name: str, **cells: Any) -> bytes:
        neutral: dict[str, Any] = {
            "text": "a",
            "integer": 1,
            "number": 0.5,
            "flag": True,
            "any": 0,
            "integers": [1, 2, 3],
        }
        schema = FILES[name].columns
        assert schema is not None
        rows = [
            {key: neutral[column.kind] for key, column in schema.by_name.items()} | cells for _ in range(3)
        ]
        out = io.BytesIO()
        pd.DataFrame(rows).to_parquet(out, index=False)
        return out.getvalue()

    norms = {"norm": np.ones((2, 3), np.float32), "surprisal": np.ones(3, np.float32)}
    return [
        {
            FILES["responses"].path: parquet("responses", n_prompt=1, thought_start=1, thought_end=2),
            FILES["tokens"].path: parquet("tokens", role="copied"),
            FILES["signals/model"].path: save(norms),
        }
    ]


def _read_tables(folder: Path) -> None:
    from normprobe.runs.tables import Tables

    tables = Tables(folder)
    _ = tables.responses
    tables.has("roles")
    tables.signals("model")


# The settings of a study, and of a thinking format.


def _studies() -> list[Files]:
    import dataclasses

    import yaml

    from normprobe.config import Study

    whole = yaml.safe_dump(dataclasses.asdict(Study()), sort_keys=False)
    given = "model: {name: org/A, dtype: bfloat16}\nsaes: {layers: 20-23, k: 8}\nthinking: {start: <a>, end: </a>}\n"
    return [{"config.yaml": text.encode()} for text in (whole, given)]


def _read_study(folder: Path) -> None:
    from normprobe.study_file import read_study

    read_study(folder / "config.yaml")


def _formats() -> list[Files]:
    given = 'open: <a>\nclose: </a>\nkwargs: {reasoning_effort: high}\nno_think: {prefill: "</a>", forced: true}\n'
    return [{"format.yaml": given.encode()}]


def _read_format(folder: Path) -> None:
    from normprobe.thinking_formats import ThinkingFormat, read_format

    ThinkingFormat.of(read_format(str(folder / "format.yaml"))).to_dict()


# Problems.


def _problem_files() -> list[Files]:
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {"question": f"what is {i}+{i}?", "answer": answer, "domain": "sums", "difficulty": i}
        for i, answer in enumerate(["4", "$\\frac{1}{2}$", "#### 7", "(B)", "Paris", "[1, 2)"] * 4)
    ]
    splits = [{"split": ("sae", "select", "measure")[i % 3]} for i in range(24)]
    shuffled = [
        {"Question": f"{i}?", "Correct Answer": "a", "Incorrect Answer 1": "b", **splits[i]}
        for i in range(24)
    ]
    choices = [{"problem": f"q {i}", "choices": ["x", "y"], "answer": 1, **splits[i]} for i in range(24)]
    solved = [
        {"problem": f"q {i}", "solution": "so \\boxed{3}", "level": "Level 5", "type": "Algebra"}
        for i in range(80)
    ]
    rows = [row | splits[i] | {"problem_id": i} for i, row in enumerate(rows)]
    lines = b"\n".join(map(_json, rows))
    out = io.BytesIO()
    pd.DataFrame(rows).to_parquet(out)
    packed: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }
    return [
        {"p.jsonl": lines},
        *({"p.json": _json(given)} for given in ({"data": solved}, shuffled, choices)),
        {"p.csv": pd.DataFrame(rows).to_csv(index=False).encode()},
        {"p.parquet": out.getvalue()},
        *({f"p.jsonl{suffix}": pack(lines)} for suffix, pack in packed.items()),
    ]


def _packed_problems(random_: random.Random, files: Files) -> Files:
    """As `mutated`; what is packed is rarely a little text that unpacks to very much."""
    (name,) = files
    packs: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
    }
    if (pack := packs.get(name.rpartition(".")[2])) and random_.random() < 0.001:
        return {name: pack(b'{"question": "' + b"a" * 40_000_000)}
    return mutated(random_, files)


def _read_problems(folder: Path) -> None:
    from normprobe.problems import open_source

    for path in sorted(folder.iterdir()):
        source = open_source(str(path))
        problems = source.load({}, 0)
        for answer in problems["answer"].dropna().head(3):
            source.score(f"The answer is {answer}", answer)


# Dictionaries as several trainers save them.


def _dictionaries() -> list[Files]:
    import torch
    from safetensors.torch import save

    d, width, k = 16, 20, 4
    draw = torch.Generator().manual_seed(1)
    atoms = torch.nn.functional.normalize(torch.randn(width, d, generator=draw), dim=1)
    bias, encoder_bias = torch.zeros(d), torch.zeros(width)
    ours = {"W_enc": atoms.T.contiguous(), "W_dec": atoms, "b_enc": encoder_bias, "b_dec": bias}
    theirs = {"encoder.weight": atoms.clone(), "encoder.bias": encoder_bias, "W_dec": atoms, "b_dec": bias}
    metadata = {
        "model_name": "org/Some-Thinker",
        "hook_name": "blocks.2.hook_resid_post",
        "sae_lens_version": "6.0.0",
    }
    common = {"d_in": d, "d_sae": width, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True}
    common |= {"normalize_activations": "none", "reshape_activations": "none", "metadata": metadata}
    topk = common | {"architecture": "topk", "k": k, "rescale_acts_by_decoder_norm": False}
    jump = common | {"architecture": "jumprelu"}
    sparsify = {
        "activation": "topk",
        "k": k,
        "num_latents": width,
        "expansion_factor": 32,
        "normalize_decoder": True,
    }
    sparsify |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": d}
    files: list[Files] = [
        {"layer_02/cfg.json": _json(topk), "layer_02/sae_weights.safetensors": save(ours)},
        {
            "layer_02/cfg.json": _json(jump),
            "layer_02/sae_weights.safetensors": save(ours | {"threshold": torch.ones(width)}),
        },
        {
            "layers.2/cfg.json": _json(sparsify),
            "layers.2/sae.safetensors": save(theirs),
            "config.json": _json({"model": "org/Some-Thinker", "hookpoints": ["layers.2"]}),
        },
    ]
    for kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        out = io.BytesIO()
        weights = {
            "encoder.weight": atoms,
            "encoder.bias": encoder_bias,
            "decoder.weight": atoms.T.contiguous(),
            "b_dec": bias,
        }
        torch.save(weights | {"k": torch.tensor(k), "threshold": torch.tensor(0.7)}, out)
        trainer = {"dict_class": kind, "activation_dim": d, "dict_size": width, "k": k, "layer": 2}
        trainer |= {"lm_name": "org/Some-Thinker", "submodule_name": "resid_post_layer_2"}
        config = {"trainer": trainer, "buffer": {"io": "out", "ctx_len": 64}}
        place = "resid_post_layer_2/trainer_0"
        files.append({f"{place}/ae.pt": out.getvalue(), f"{place}/config.json": _json(config)})
    return files


def _read_dictionaries(folder: Path) -> None:
    import torch
    from saes_fixture import SOME_THINKER

    from normprobe.saes.dictionary import layers_of, open_given

    (layer,) = layers_of(str(folder), range(4))
    dictionary = open_given(str(folder), SOME_THINKER, layer, torch.device("cpu"))
    dictionary.encode(torch.ones(2, 16))


# A policy that a request asks for, and how an engine is started.


def _policies() -> list[Files]:
    specs = (
        "alrr",
        {"policy": "alrr", "layers": [1, 2], "damping": 0.5, "k": 1.5},
        {"policy": "erss", "trigger": "at_peaks", "tau": "profile"},
        [{"policy": "suppress", "tau": {"1": 13.0}, "scale": 0.1}, "probe"],
    )
    return [
        {"policy.json": _json(spec), "layer_profile.json": _profiles()[0]["layer_profile.json"]}
        for spec in specs
    ]


def _read_policy(folder: Path) -> None:
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


# An adapter, and models in a hub's cache: where files name other files.


def _adapters() -> list[Files]:
    adapter = {
        "base_model_name_or_path": "../models--org--A",
        "revision": "main",
        "peft_type": "LORA",
        "r": 8,
    }
    return [
        {
            "adapter/adapter_config.json": _json(adapter),
            "models--org--A/refs/main": b"1a2b3c",
            "models--org--A/snapshots/1a2b3c/config.json": b"{}",
            "models--org--A/snapshots/1a2b3c/tokenizer.json": b"{}",
        }
    ]


def _read_adapter(folder: Path) -> None:
    from normprobe.local_files import base_of, fingerprint, local_path

    name, revision = base_of(folder / "adapter")
    found = local_path(name, revision) if "models--" in name else None
    assert found is None or found.resolve().is_relative_to(folder.resolve()), f"{found} is outside"
    if found is not None:
        fingerprint(str(folder / "adapter"))


# Chat templates, and the spans of responses.


@functools.cache
def _tokenizer() -> Any:
    from normprobe.problems.testbed.tokenizer import build_tokenizer

    return build_tokenizer()


def _templates() -> list[Files]:
    cases = json.loads(
        (Path(__file__).parents[1] / "models" / "thinking_formats.json").read_text(encoding="utf-8")
    )["cases"]
    marked = (
        case["template"] for case in cases if case["format"] and not case["format"]["think"].get("elicited")
    )
    texts = dict.fromkeys([_tokenizer().chat_template, *marked])
    return [{"chat_template.jinja": text.encode()} for text in texts]


def _read_template(folder: Path) -> None:
    from normprobe.models.chat import Chat

    tokenizer = _tokenizer()
    path = folder / "chat_template.jinja"
    tokenizer.chat_template = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else None
    chat = Chat(tokenizer, [])
    for mode in ("think", "no_think"):
        chat.prompt_ids("math : z= 3 ; ? z", mode)
    chat.prompt_ids("math : z= 3 ; ? z", "filler", 3)


def _responses() -> list[Files]:
    marks = [
        {"open": "<think>", "close": "</think>"},
        {"open": "", "close": "answer :", "answer_open": "a =", "answer_close": "; b"},
    ]
    ids = _tokenizer()("<think> z= 3 ; a = 4 ; b </think> answer : 8 <|im_end|>", add_special_tokens=False)[
        "input_ids"
    ]
    return [{"response.json": _json({"ids": ids, "n_prompt": 2, "marks": one})} for one in marks]


def _hostile_response(random_: random.Random, files: Files) -> Files:
    """Ids of the vocabulary, marks among them more often than others; the form is ours, so it is never damaged."""
    response = json.loads(files["response.json"])
    ids, vocabulary = response["ids"], len(_tokenizer())
    for _ in range(random_.choice((1, 3, 10))):
        at, end = sorted(random_.randrange(len(ids) + 1) for _ in range(2))
        part = ids[at:end] * random_.choice((0, 1, 2, 20)) + [random_.randrange(vocabulary)] * random_.choice(
            (0, 1, 30)
        )
        ids = (ids[:at] + part + ids[end:])[:2000]
    response |= {"ids": ids, "n_prompt": random_.randrange(len(ids) + 1)}
    return {"response.json": _json(response)}


def _read_response(folder: Path) -> None:
    from normprobe.models.chat import Chat
    from normprobe.models.thoughts import ABSENT

    given = json.loads((folder / "response.json").read_bytes())
    ids, n_prompt = given["ids"], given["n_prompt"]
    chat = Chat(_tokenizer(), [], given["marks"])
    spans = chat.spans(ids, n_prompt)
    for start, end in (spans.thought, spans.answer):
        assert (start, end) == ABSENT or 0 <= start < end <= len(ids), spans
    assert spans.answer == ABSENT or spans.answer[0] >= n_prompt, spans
    chat.answer_text(ids, n_prompt)
    assert "".join(chat.pieces(ids)) == chat.text(ids).removesuffix("\ufffd")


READERS = {
    reader.name: reader
    for reader in (
        Reader("layer profile", _profiles, _read_profile),
        Reader("run: verdicts, audit, manifest", _run_files, _read_run),
        Reader("run: tables and arrays", _tables, _read_tables),
        Reader("study", _studies, _read_study),
        Reader("thinking format", _formats, _read_format),
        Reader("problems", _problem_files, _read_problems, _packed_problems),
        Reader("dictionaries", _dictionaries, _read_dictionaries),
        Reader("policy of a request", _policies, _read_policy),
        Reader("adapter, hub's cache", _adapters, _read_adapter),
        Reader("chat template", _templates, _read_template),
        Reader("spans of a response", _responses, _read_response, _hostile_response),
    )
}


# What a campaign has to find.


def _read_wrongly(folder: Path) -> None:
    import os
    import subprocess
    import time

    match (folder / "wrong.txt").read_text():
        case "raises":
            raise KeyError("x")
        case "hangs":
            time.sleep(600)
        case "ends":
            os._exit(3)
        case "grows":
            bytearray(2**31)
        case "writes":
            (folder / "../../outside").write_text("")
        case "starts":
            subprocess.run(["true"])


def _wrong(random_: random.Random, files: Files) -> Files:
    return {
        "wrong.txt": random_.choice(
            (b"raises", b"hangs", b"ends", b"grows", b"writes", b"starts", b"nothing")
        )
    }


WRONG = Reader("one that does everything wrong", lambda: [{"wrong.txt": b"nothing"}], _read_wrongly, _wrong)
