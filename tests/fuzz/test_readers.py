"""No reader ends in a traceback, a hang or unbounded memory: hostile inputs, and those that once did.

NORMPROBE_FUZZ=N tries N inputs, as in `make nightly`: `python tests/fuzz/campaign.py`.
"""

import bz2
import gzip
import io
import json
import lzma

import pandas as pd
import pyarrow
import pytest
from fuzz.campaign import HEAD, campaign, put
from fuzz.readers import READERS, WRONG

from normprobe.errors import NormprobeError

INPUTS = {"chat template": 60, "dictionaries": 150, "config.json": 150, "weights and their index": 60}
"""Of each reader; 250 of the others. A fresh process per reader takes most of the time."""


@pytest.mark.parametrize("name", READERS)
def test_hostile_inputs_are_accepted_or_refused_in_one_line(name):
    results = campaign(name, range(INPUTS.get(name, 250)))
    assert results.faults == {}, f"{HEAD}\n{results.row()}"
    assert results.accepted >= len(READERS[name].good), "the good inputs are accepted"
    assert results.refused > 20 or name == "spans of a response"


def run_files(**changed: str) -> dict[str, bytes]:
    (good,) = READERS["run: verdicts, audit, manifest"].good
    return good | {name.replace("__", "/") + ".json": text.encode() for name, text in changed.items()}


DEEP = "[" * 60_000
BILLION = "a: &a [1]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + of] * 9)}]\n"
    for of, name in zip("abcdefghi", "bcdefghij", strict=True)
)
ONCE = [
    ("layer profile", {"layer_profile.json": DEEP.encode()}),
    ("layer profile", {"layer_profile.json": b'{"schema": 1, "model": "\\ud800"}'}),
    ("study", {"config.yaml": b'seed: "\\ud800"'}),
    ("study", {"config.yaml": DEEP.encode()}),
    ("study", {"config.yaml": BILLION.encode()}),
    ("study", {"config.yaml": b"seed: &a [*a]"}),
    ("study", {"config.yaml": b"seed: 2001-99-99"}),
    ("study", {"config.yaml": b"seed: !!int x"}),
    ("study", {"config.yaml": b"seed: " + b"9" * 5000}),
    ("study", {"config.yaml": b"? \"a\\nb\\e[2J\"\n: 1"}),
    ("study", {"config.yaml": b"model: {name: " + b"a" * 300 + b", dtype: 1}"}),
    ("thinking format", {"format.yaml": b"open: {a: &x {b: 1}, <<: *x}"}),
    ("run: verdicts, audit, manifest", run_files(evidence__skipped="[{}]")),
    ("run: verdicts, audit, manifest", run_files(evidence__verdicts="[3]")),
    ("run: verdicts, audit, manifest", run_files(audit__audit='[["planted", 1]]')),
    ("run: verdicts, audit, manifest", run_files(audit__stage='{"schema": 2, "name": 1, "version": NaN}')),
    ("adapter, hub's cache", {"adapter/adapter_config.json": b'{"base_model_name_or_path": "' + b"a" * 9999 + b'"}'}),
    ("policy of a request", {"policy.json": b'{"policy": "alrr", "k": ' + b"9" * 400 + b"}"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files"), ONCE, ids=[f"{name}-{i}" for i, (name, _) in enumerate(ONCE)])
def test_what_once_was_no_refusal(tmp_path, name, files):
    put(tmp_path / "input", files)
    with pytest.raises(NormprobeError) as refused:
        READERS[name].read(tmp_path / "input")
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("outside", ["../../../outside", "/outside", "..", "x/../../../../outside"])
def test_a_revision_stays_in_its_folder(tmp_path, outside):
    from normprobe.local_files import local_path

    model = tmp_path / "models--org--A"
    put(
        tmp_path,
        {
            "outside/config.json": b"{}",
            "models--org--A/refs/main": b"1a",
            "models--org--A/snapshots/1a/x": b"",
        },
    )
    with pytest.raises(NormprobeError, match="a branch, tag or commit"):
        local_path(str(model), outside)
    (model / "refs" / "main").write_text(outside)
    with pytest.raises(NormprobeError, match="expected a commit"):
        local_path(str(model))


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.jsonl.bz2", "p.jsonl.xz", "p.jsonl.zst", "p.parquet"])
def test_what_unpacks_to_very_much_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr("normprobe.problems.file_rows.MOST_UNPACKED", 2**20)
    text = "a" * 2**20
    packs = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "parquet": lambda _: parquet(text),
    }
    packs["zst"] = lambda content: pyarrow.compress(content, codec="zstd", asbytes=True)
    packed = packs[name.rpartition(".")[2]](json.dumps({"question": text}).encode())
    put(tmp_path / "input", {name: packed})
    assert len(packed) < 2**16
    with pytest.raises(NormprobeError, match="more than 1 MiB"):
        READERS["problems"].read(tmp_path / "input")


def parquet(text: str) -> bytes:
    out = io.BytesIO()
    pd.DataFrame({"question": [text] * 9}).to_parquet(out)
    return out.getvalue()


def test_weights_that_a_file_does_not_hold_are_not_made_room_for(tmp_path):
    import torch

    *_, good = READERS["dictionaries"].good
    put(tmp_path, good)
    (path,) = tmp_path.rglob("ae.pt")
    torch.save({"b_dec": torch.zeros(1).expand(10**12)}, path)
    with pytest.raises(NormprobeError, match="of which fewer are in the file"):
        READERS["dictionaries"].read(tmp_path)
    ours = READERS["dictionaries"].good[0]
    folder = tmp_path / "ours"
    config = json.loads(ours["layer_02/cfg.json"])
    for k in ({}, 0, 21, 1.5, True):
        put(folder, ours | {"layer_02/cfg.json": json.dumps(config | {"k": k}).encode()})
        with pytest.raises(NormprobeError):
            READERS["dictionaries"].read(folder)
    config["d_sae"] = 10**11
    put(folder, ours | {"layer_02/cfg.json": json.dumps(config).encode()})
    with pytest.raises(NormprobeError, match=r"100000000000 × 16 in cfg\.json"):
        READERS["dictionaries"].read(folder)


def test_a_campaign_finds_every_wrong():
    results = campaign(WRONG.name, range(7, 21), deadline=10)
    assert results.accepted + len(results.faults) == 14
    found = " ".join(results.faults.values())
    for wrong in (
        "KeyError",
        "took more than 10 s",
        "ended the process (3)",
        "MemoryError",
        "did open",
        "did subprocess.Popen",
    ):
        assert wrong in found
