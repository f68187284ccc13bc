"""The parts of the vLLM engine that know no vLLM: configuration, slots, placement, sites."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profile_fixture import profile as some_profile

from normprobe.engines.vllm.configuration import Configuration, canonical
from normprobe.engines.vllm.worker.eligible_rows import Batch, Placed, place
from normprobe.engines.vllm.worker.end_tokens import Stops
from normprobe.engines.vllm.worker.residual_stream import Site, SiteInPlace, blocks_of
from normprobe.engines.vllm.worker.slots import Held, Slots, external
from normprobe.errors import NormprobeError
from normprobe.policies.rows import Change, Rerun, Rows, Stateless
from normprobe.policies.spec import build

CPU = torch.device("cpu")
TAU = '{"21": 1300, "22": 1400}'


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 20), st.integers(1, 6), st.sampled_from(["", "a", "b"])),
        min_size=1,
        max_size=8,
    )
)
def test_every_eligible_row_is_placed_once_in_the_order_of_its_request(
    requests: list[tuple[int, int, int, str]],
) -> None:
    """Against a loop over tokens. (prompt, computed before, scheduled now, policy) by request."""
    prompt, computed, scheduled, policies = (list(part) for part in zip(*requests, strict=True))
    names = [f"r{i}" for i in range(len(requests))]
    held = {
        name: Held(90 - i, policy)
        for i, (name, policy) in enumerate(zip(names, policies, strict=True))
        if policy
    }
    start = np.concatenate([[0], np.cumsum(scheduled)])
    expected: dict[str, list[tuple[int, int, int, int, int]]] = {}
    for i, name in enumerate(names):
        for token in range(scheduled[i]):
            position = computed[i] + token
            if name in held and position >= prompt[i] - 1:
                row = (int(start[i]) + token, held[name].slot, position - prompt[i] + 1, i, position)
                expected.setdefault(policies[i], []).append(row)
    placed = place(Batch(names, start, np.array(computed), np.array(prompt)), held, CPU)
    assert set(placed) == set(expected)
    for policy, ranks in placed.items():
        rows = [
            list(
                zip(
                    *(part.tolist() for part in (p.index, p.slot, p.step, p.request, p.position)), strict=True
                )
            )
            for p in ranks
        ]
        assert sorted(row for rank in rows for row in rank) == sorted(expected[policy])
        for rank in rows:
            assert len({slot for _, slot, *_ in rank}) == len(rank)
            assert rank == sorted(rank)
        for slot in {slot for _, slot, *_ in expected[policy]}:
            steps = [step for rank in rows for _, at, step, *_ in rank if at == slot]
            assert steps == sorted(steps)


class Remembering(Stateless):
    layers = (1,)

    def __init__(self) -> None:
        self.held: dict[int, str] = {}

    def reset(self, slots: Sequence[int], requests: Sequence[str]) -> None:
        self.held |= dict(zip(slots, requests, strict=True))

    def apply(self, rows: Rows, layer: int, rerun: Rerun) -> Change:
        return Change(rows.hidden, torch.zeros_like(rows.eligible))


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["x", "y", "free"])), max_size=60))
def test_slots_are_never_shared_and_never_lost(events: list[tuple[int, str]]) -> None:
    slots = Slots(lambda _: Remembering(), 10, 4, CPU, keep="x")
    for number, what in events:
        name = f"r{number}"
        if what == "free":
            slots.free([name])
            assert name not in slots.held
        else:
            slots.take({name: what})
            held = slots.held[name]
            assert held.policy == what
            acting = slots.acting[what]
            assert isinstance(acting, Remembering)
            assert acting.held[held.slot] == name
        taken = [held.slot for held in slots.held.values()]
        assert sorted([*taken, *slots._free]) == list(range(10))
        assert {held.policy for held in slots.held.values()} <= set(slots.acting) <= {"x", "y"}


def test_a_slot_keeps_while_others_come_and_go() -> None:
    slots = Slots(lambda _: Remembering(), 3, 4, CPU)
    slots.take({"a": "x", "b": "x"})
    mine = slots.held["a"]
    slots.free(["b", "never seen"])
    slots.take({"c": "y", "d": "x"})
    assert slots.held["a"] == mine
    slots.free(["c"])
    slots.take({"e": "x"})
    assert set(slots.acting) == {"x"}
    slots.free(["a", "d", "e"])
    slots.tidy()
    assert slots.acting == slots.layers == {}


def test_a_request_is_known_by_the_name_its_sender_gave_it() -> None:
    assert external("cmpl-17-0-1a2b3c4d") == "cmpl-17-0"
    assert external("2_mine-1a2b3c4d") == "2_mine"
    assert external("mine") == "mine"


@given(st.booleans(), st.booleans(), st.integers(0, 99))
def test_only_triggered_rows_change_and_hold_the_new_state(whole: bool, halved: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    halves = tuple(torch.randn(6, 3, generator=draw) for _ in range(1 + halved))
    index = torch.arange(6) if whole else torch.tensor([1, 4, 5])
    kept = [half.clone() for half in halves]
    site = Site.of(halves if halved else halves[0], 0)
    torch.testing.assert_close(site.at(index), sum(halves)[index], rtol=0, atol=0)
    acts = torch.rand(len(index), generator=draw) < 0.5
    new = torch.randn(len(index), 3, generator=draw)
    changed = site.changed(index, Change(new, acts))
    assert all(torch.equal(half, was) for half, was in zip(halves, kept, strict=True))
    assert torch.equal(changed.at(index)[acts], new[acts])
    others = torch.ones(6, dtype=torch.bool)
    others[index[acts]] = False
    for half, was in zip(changed.halves, halves, strict=True):
        assert torch.equal(half[others], was[others])
    in_place = SiteInPlace.of(halves if halved else halves[0], 0)
    came = in_place.at(index)
    before = came.clone()
    assert in_place.changed(index, Change(new, acts)) is in_place
    assert all(torch.equal(half, other) for half, other in zip(halves, changed.halves, strict=True))
    assert torch.equal(came, before)


def test_what_is_no_site_is_refused() -> None:
    with pytest.raises(NormprobeError, match="layer 3 to return"):
        Site.of((torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)), 3)
    with pytest.raises(NormprobeError, match="one list of 7 decoder blocks"):
        blocks_of(torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Identity()])}), 7)


def test_configuration_from_the_variable_or_from_additional_config() -> None:
    given = {"policy": {"policy": "alrr", "tau": {"3": 2.0}}}
    found = Configuration.find({}, {"NORMPROBE": json.dumps(given)})
    assert found == Configuration.find({"normprobe": given}, {"NORMPROBE": "/nowhere"})
    assert found is not None
    assert found.policy == '{"policy":"alrr","tau":{"3":2.0}}'
    assert Configuration.of({"normprobe": found.to_dict()}) == found
    assert Configuration.find({"other": 1}, {"PATH": "/bin"}) is None


def test_the_profile_travels_as_it_was_when_the_engine_started(tmp_path: Path) -> None:
    path = tmp_path / "layer_profile.json"
    profile = some_profile()
    profile.save(path)
    found = Configuration.find({}, {"NORMPROBE": str(path)})
    path.unlink()
    assert found is not None
    assert Configuration.of(json.loads(json.dumps({"normprobe": found.to_dict()}))) == found
    assert found.layer_profile() == profile


def test_the_layers_that_the_default_policy_runs_once_more() -> None:
    alrr, probe = {"policy": "alrr", "tau": {"3": 2.0, "1": 2.0}}, {"policy": "probe", "tau": {"2": 2.0}}
    for policy, layers in ((None, ()), (probe, ()), (alrr, (1, 3)), ([alrr, probe], (1, 3))):
        text = None if policy is None else canonical(policy)
        assert Configuration(policy=text).recurses(4) == layers


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/nowhere/layer_profile.json", "expected a layer profile at"),
        ('{"profil": "x"}', "the path of a layer profile or"),
        ('{"policy": "nonsense"}', "a policy among"),
        ('{"policy": "alrr"}', "a layer profile"),
        ("{broken", "expected JSON"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(value: str, message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        Configuration.find({}, {"NORMPROBE": value})


def test_the_same_settings_have_one_text() -> None:
    assert canonical("alrr") == canonical({"policy": "alrr"}) == canonical('{"policy": "alrr"}')
    assert canonical(["alrr", "probe"]) == canonical('[{"policy": "alrr"}, {"policy": "probe"}]')
    assert canonical({"policy": "alrr", "k": 1.0}) == canonical('{"k": 1.0, "policy": "alrr"}')


@pytest.mark.parametrize(
    "spec",
    [
        "[" * 100_000,
        ["probe"] * 9,
        [{"policy": "alrr", "layers": [1] * 40_000}],
        [["alrr"]],
        {"policy": {1, 2}},
        7,
    ],
)
def test_what_describes_no_policy_is_refused(spec: object) -> None:
    with pytest.raises(NormprobeError, match="expected"):
        canonical(spec)


@pytest.mark.parametrize(
    ("switch", "meant"),
    {
        "loop": "alrr",
        "rr": "alrr",
        "suppress": "suppress",
        "ttts": "erss",
        "erss": "erss",
        "rerank": "probe",
    }.items(),
)
def test_the_switches_of_the_reference_code(switch: str, meant: str) -> None:
    environment = {"VLLM_PATCH": switch, "PATCHED_LAYERS": "21,22", "PATCHED_TAU_JSON": TAU}
    with pytest.warns(FutureWarning, match="NORMPROBE"):
        found = Configuration.find({}, environment)
    assert found is not None
    assert found.policy is not None
    policy = build(json.loads(found.policy), None)
    assert policy == build({"policy": meant, "tau": json.loads(TAU)}, None)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"VLLM_PATCH": "unknown"}, "VLLM_PATCH among"),
        ({"VLLM_PATCH": "loop", "ADAPTIVE": "1", "PATCHED_TAU_JSON": TAU}, "got both"),
        ({"VLLM_PATCH": "loop", "ADAPTIVE": "perhaps"}, "ADAPTIVE as 1 or 0"),
        ({"VLLM_PATCH": "loop", "PATCHED_LAYERS": "21;22"}, "PATCHED_LAYERS"),
        ({"VLLM_PATCH": "loop", "PATCHED_TAU_JSON": "[]"}, "PATCHED_TAU_JSON"),
        ({"VLLM_PATCH": "loop", "ADAPTIVE": "1"}, "layer profile"),
        ({"VLLM_PATCH": "loop", "NORMPROBE": '{"policy": "probe"}'}, "one policy"),
    ],
)
def test_switches_that_cannot_be_meant_are_refused(more: dict[str, str], message: str) -> None:
    with pytest.raises(NormprobeError, match=message):
        Configuration.find({}, more)


def test_nothing_here_needs_vllm() -> None:
    folder = Path(__file__).parents[3] / "src" / "normprobe" / "engines" / "vllm"
    without = ["configuration", "limits", "frontend/reference_switches", "core/reports", "core/scheduling"]
    without += ["core/settings_queue", "worker/slots", "worker/eligible_rows", "worker/residual_stream"]
    for name in [*without, "worker/end_tokens"]:
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert "from vllm" not in text
        assert "import vllm" not in text


@dataclass
class Parameters:
    eos_token_id: int | None = None
    stop_token_ids: list[int] | None = None


def test_a_pass_after_the_end_of_a_request_does_not_count() -> None:
    stops = Stops(4, 12, CPU)
    stops.set({0: Parameters(3), 1: Parameters(3, [7, 9, 11, 12, 10**9])})  # some not of this vocabulary
    stops.set({2: Parameters()})  # ignore_eos
    tokens = torch.tensor([3, 3, 9, 5, 3, 3, 11])
    slot, step = torch.tensor([0, 1, 1, 1, 2, 0, 1]), torch.tensor([4, 1, 2, 3, 5, 0, 6])
    rows = Placed(torch.arange(7), slot, step, np.zeros(7, int), np.zeros(7, int))
    # The last but one is a prompt that ends in the token, as chat templates do.
    assert stops.masked(rows, tokens).step.tolist() == [-1, -1, -1, 3, 5, 0, -1]
    assert (
        stops.masked(rows, torch.full((7,), 10**6)).step.tolist()[0] == 4
    )  # a placeholder of another modality
    stops.set({0: Parameters(8)})  # the slot's next request
    assert stops.masked(rows, tokens).step.tolist() == [4, -1, -1, 3, 5, 0, -1]
