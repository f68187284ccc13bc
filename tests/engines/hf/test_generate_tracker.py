"""Ways of decoding under a policy: each against a slow reference without a cache, or against the plain way."""

import threading
from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import (
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    StaticCache,
    TextIteratorStreamer,
)
from transformers.cache_utils import Cache, QuantizedLayer
from transformers.generation.streamers import BaseStreamer

from normprobe.engines.base import Events
from normprobe.engines.hf import intervene
from normprobe.errors import NormprobeError
from normprobe.models.initialise import initialise
from normprobe.policies.alrr import ALRR
from normprobe.policies.controls.gated_recursion import GatedRecursion, RandomGate
from normprobe.policies.erss import ERSS
from normprobe.policies.policy import Policy
from normprobe.policies.suppression import Suppression
from normprobe.policies.threshold import BINS, AdaptiveThreshold, FixedThreshold
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.problems.testbed.vocabulary import PAD, VOCABULARY

Model = Qwen3ForCausalLM | Gemma2ForCausalLM
LAYERS = (1, 2)
ENDS = list(range(10, len(VOCABULARY), 12))
PAD_ID = VOCABULARY.index(PAD)


def build(config_class: Any, model_class: Any, **more: Any) -> Any:
    """A random model that says many different tokens, some of which end a response."""
    config = config_class(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        initializer_range=0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=ENDS,
        pad_token_id=PAD_ID,
        **more,
    )
    model = model_class(config)
    initialise(model, torch.Generator().manual_seed(3))
    return model.eval()


@pytest.fixture(scope="module")
def qwen() -> Model:
    return build(Qwen3Config, Qwen3ForCausalLM)


@pytest.fixture(params=["qwen3", "gemma2"], scope="module")
def model(request: pytest.FixtureRequest, qwen: Model) -> Model:
    """Full attention, and full and sliding by turns."""
    return qwen if request.param == "qwen3" else build(Gemma2Config, Gemma2ForCausalLM, sliding_window=8)


def tokens(n: int, seed: int) -> list[int]:
    """Tokens that end nothing."""
    drawn = torch.randint(20, len(VOCABULARY), (4 * n,), generator=torch.Generator().manual_seed(seed))
    return [token for token in drawn.tolist() if token not in ENDS][:n]


PROMPTS = [tokens(5, 0), tokens(12, 1), tokens(9, 2)]


def batch(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Padded on the left."""
    longest = max(map(len, rows))
    ids = [[PAD_ID] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def written(row: list[int]) -> list[int]:
    """A response up to and with its end."""
    end = next((at for at, token in enumerate(row) if token in ENDS), len(row))
    return row[: end + 1]


def tau_of(model: Model) -> dict[int, float]:
    """The median norm at the last prompt tokens and what follows: half of the states are above."""
    norms: dict[int, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    hooks = [
        model.model.layers[layer].register_forward_hook(
            lambda _m, _i, out, layer=layer: norms[layer].append(states(out)[:, -1].norm(dim=-1))
        )
        for layer in LAYERS
    ]
    model.generate(**batch(PROMPTS), max_new_tokens=8, do_sample=False)
    for hook in hooks:
        hook.remove()
    return {layer: float(torch.cat(seen).median()) * 1.001 for layer, seen in norms.items()}


def states(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def adaptive(model: Model) -> AdaptiveThreshold:
    """A threshold that leaves its prior within a few tokens."""
    tau = tau_of(model)
    prior = (tuple([0.0] * 60 + [1.0] * 4 + [0.0] * (BINS - 64)),) * 2  # just below the median
    ends = tuple(0.2 * tau[layer] for layer in LAYERS), tuple(5 * tau[layer] for layer in LAYERS)
    return AdaptiveThreshold(LAYERS, *ends, prior, k=0.1, prior_tokens=2.0)


def policies(model: Model) -> dict[str, Policy]:
    fixed = FixedThreshold(tau_of(model))
    return {
        "suppress": Suppression(fixed),
        "adaptive": Suppression(adaptive(model)),
        "alrr": ALRR(adaptive(model), blow_up=50.0, growth=-0.9, max_passes=2, damping=0.75),
        "erss": ERSS(fixed, probability=1.0, cooldown=0, min_cosine=-1.0, beta=0.9, bank_size=3),
    }


def slow(model: Model, ids: list[int], touched: list[int], tau: dict[int, float]) -> torch.Tensor:
    """Logits at every position, without a cache: suppression to a tenth at the touched positions alone."""

    def hook(layer: int, output: Any) -> Any:
        hidden = states(output).clone()
        for at in touched:
            if hidden[0, at].norm() > tau[layer]:
                hidden[0, at] *= 0.1
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    hooks = [
        model.model.layers[layer].register_forward_hook(lambda _m, _i, out, layer=layer: hook(layer, out))
        for layer in LAYERS
    ]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    for one in hooks:
        one.remove()
    return logits


def slow_turn(
    model: Model, ids: list[int], touched: list[int], tau: dict[int, float], n: int
) -> tuple[list[int], list[int]]:
    """The response to ids, and all positions touched so far."""
    ids, first = list(ids), len(ids)
    while len(ids) - first < n and (len(ids) == first or ids[-1] not in ENDS):
        touched = [*touched, len(ids) - 1]
        ids.append(int(slow(model, ids, touched, tau)[-1].argmax()))
    return ids[first:], touched


def run(model: Model, policy: Policy, n: int = 8, **how: Any) -> tuple[list[list[int]], Events, Any]:
    """Responses to the prompts, what was done, all tokens."""
    given: dict[str, Any] = {"do_sample": False, "max_new_tokens": n}
    given |= {} if "inputs_embeds" in how else batch(PROMPTS)
    given |= how
    with intervene(model, policy, record=True, quiet=True) as intervention:
        out = model.generate(**given)
    first = 0 if "inputs_embeds" in how else given["input_ids"].shape[1]
    return [written(row) for row in out[:, first:].tolist()], intervention.events(), out


def assert_same_events(one: Events, other: Events) -> None:
    for name in ("request", "step", "layer", "passes"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    torch.testing.assert_close(one.delta, other.delta, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "new tokens"])
@pytest.mark.parametrize("rows", [(0, 1, 2), (1,)], ids=["batch", "one row"])
def test_a_second_turn_is_one_run_over_the_conversation(
    model: Model, whole: bool, rows: tuple[int, ...]
) -> None:
    """Prompts, responses and second questions of several lengths; the first turn's touched states stay touched."""
    tau, n = tau_of(model), 6
    cache = DynamicCache(config=model.config)
    prompts = [PROMPTS[row] for row in rows]
    first = batch(prompts)
    asked = [(tokens(2, 7), tokens(4, 8), tokens(3, 9))[row] for row in rows]
    second = batch(asked)
    with intervene(model, Suppression(FixedThreshold(tau)), record=True) as intervention:
        one = model.generate(**first, past_key_values=cache, max_new_tokens=n, do_sample=False)
        answers = [written(row) for row in one[:, first["input_ids"].shape[1] :].tolist()]
        kept = torch.zeros_like(one[:, first["input_ids"].shape[1] :])
        for row, answer in enumerate(answers):
            kept[row, : len(answer)] = 1
        ids = torch.cat([one, second["input_ids"]], dim=1)
        mask = torch.cat([first["attention_mask"], kept, second["attention_mask"]], dim=1)
        new = ids if whole else ids[:, cache.get_seq_length() :]
        how: dict[str, Any] = {"attention_mask": mask, "past_key_values": cache, "do_sample": False}
        if len(rows) > 1 and isinstance(model, Gemma2ForCausalLM):
            with pytest.raises(
                NormprobeError, match="padding on the left alone, for a model with sliding windows"
            ):
                model.generate(new, max_new_tokens=n, **how)
            return
        two = model.generate(new, max_new_tokens=n, **how)
    steps = 0
    for row, prompt in enumerate(prompts):
        answer, touched = slow_turn(model, prompt, [], tau, n)
        assert answers[row] == answer
        again, more = slow_turn(model, prompt + answer + asked[row], touched, tau, n)
        assert written(two[row, new.shape[1] :].tolist()) == again
        steps += len(more)
    assert len(rows) == 1 or len({len(answer) for answer in answers}) > 1
    events = intervention.events()
    assert set(events.request.tolist()) <= set(
        range(2 * len(rows))
    )  # a turn's rows are requests of their own
    assert 0 < len(events.step) < 2 * steps


def test_a_run_in_two_parts_is_one_run(model: Model) -> None:
    policy, ids = Suppression(FixedThreshold(tau_of(model))), torch.tensor([PROMPTS[1]])
    how = {"do_sample": False, "eos_token_id": -1}
    with intervene(model, policy):
        whole = model.generate(ids, max_new_tokens=9, **how)
        cache = DynamicCache(config=model.config)
        part = model.generate(ids, max_new_tokens=4, past_key_values=cache, **how)
        assert model.generate(part, max_new_tokens=5, past_key_values=cache, **how).tolist() == whole.tolist()


def test_every_turn_has_a_history_of_its_own(qwen: Model) -> None:
    """The second turn after the first and the second turn alone, on copies of one cache, under what adapts."""
    cache = DynamicCache(config=qwen.config)
    for name in ("adaptive", "erss"):
        policy = policies(qwen)[name]
        how = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": -1}
        with intervene(qwen, policy, quiet=True):
            first = qwen.generate(torch.tensor([PROMPTS[0]]), past_key_values=cache, **how)
            copy = deepcopy(cache)
            ids = torch.cat([first, torch.tensor([PROMPTS[2]])], dim=1)
            embeds = qwen.get_input_embeddings()(ids).detach()
            other = deepcopy(cache)
            second = qwen.generate(ids, past_key_values=cache, **how)
        with intervene(qwen, policy, quiet=True):
            assert torch.equal(qwen.generate(ids, past_key_values=copy, **how), second)
            answer = qwen.generate(inputs_embeds=embeds, past_key_values=other, **how)
            assert torch.equal(answer, second[:, ids.shape[1] :])
        cache = DynamicCache(config=qwen.config)


@pytest.mark.parametrize("name", ["suppress", "adaptive", "alrr", "erss"])
def test_a_prompt_in_chunks_is_the_prompt(model: Model, name: str) -> None:
    """Chunks of one token, chunks that end before and after a row begins, one that holds all."""
    policy = policies(model)[name]
    expected, events, _ = run(model, policy)
    assert len(events.step)
    for size in (1, 5, 6, 50):
        got, same, _ = run(model, policy, prefill_chunk_size=size)
        assert got == expected
        assert_same_events(same, events)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"),
    reason="in older ones (seen: 5.12) a second turn over a static cache is refused",
)
@pytest.mark.parametrize("always_on", [False, True])
def test_static_caches_take_chunks_and_turns(qwen: Model, always_on: bool) -> None:
    policy = Suppression(FixedThreshold(tau_of(qwen)))
    how: dict[str, Any] = {"do_sample": False, "max_new_tokens": 5, "eos_token_id": -1}
    outputs = []
    for cache in (DynamicCache(config=qwen.config), StaticCache(config=qwen.config, max_cache_len=40)):
        with intervene(qwen, policy, always_on=always_on):
            ids = qwen.generate(
                torch.tensor([PROMPTS[1]]), past_key_values=cache, prefill_chunk_size=5, **how
            )
            ids = torch.cat([ids, torch.tensor([PROMPTS[0]])], dim=1)
            outputs.append(qwen.generate(ids, past_key_values=cache, prefill_chunk_size=4, **how).tolist())
    assert outputs[0] == outputs[1]


def test_sampled_sequences_of_a_prompt_are_rows_of_their_own(model: Model) -> None:
    """Every distribution that was drawn from is the slow one for the row's own tokens."""
    tau = tau_of(model)
    how: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 5}
    how |= {"return_dict_in_generate": True, "output_logits": True}
    with torch.random.fork_rng(), intervene(model, Suppression(FixedThreshold(tau))):
        torch.manual_seed(0)
        several = model.generate(**batch(PROMPTS), num_return_sequences=3, **how)
        torch.manual_seed(0)
        repeated = {key: value.repeat_interleave(3, dim=0) for key, value in batch(PROMPTS).items()}
        assert torch.equal(model.generate(**repeated, **how).sequences, several.sequences)
    n = several.sequences.shape[1] - len(several.logits)
    for row, ids in enumerate(several.sequences[:, n:].tolist()):
        prompt, answer = PROMPTS[row // 3], written(ids)
        touched = [len(prompt) - 1 + step for step in range(len(answer))]
        expected = slow(model, [*prompt, *answer[:-1]], touched, tau)[len(prompt) - 1 :]
        got = torch.stack([several.logits[step][row] for step in range(len(answer))])
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    with (
        pytest.raises(NormprobeError, match="a name for each of 9 rows, got 3"),
        intervene(model, Suppression(FixedThreshold(tau)), requests=["a", "b", "c"]),
    ):
        model.generate(**batch(PROMPTS), num_return_sequences=3, **how)


def test_embeddings_are_a_prompt(model: Model) -> None:
    given = batch(PROMPTS)
    embeds = model.get_input_embeddings()(given["input_ids"]).detach()
    for policy in policies(model).values():
        expected, events, _ = run(model, policy)
        got, same, _ = run(model, policy, inputs_embeds=embeds, attention_mask=given["attention_mask"])
        assert got == expected
        assert_same_events(same, events)


class Kept(BaseStreamer):
    """Keeps the tokens it is given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None: ...


def test_a_streamer_gets_what_is_written(qwen: Model) -> None:
    streamer, policy = Kept(), policies(qwen)["adaptive"]
    ids = torch.tensor([PROMPTS[0]])
    _, _, expected = run(qwen, policy, input_ids=ids, attention_mask=torch.ones_like(ids))
    _, _, out = run(qwen, policy, input_ids=ids, attention_mask=torch.ones_like(ids), streamer=streamer)
    assert out.tolist() == expected.tolist() == [streamer.tokens]


def test_a_thread_has_to_end_inside_and_alone(qwen: Model) -> None:
    policy, ids = policies(qwen)["suppress"], torch.tensor([PROMPTS[0]])
    how = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": -1}
    streamer = TextIteratorStreamer(build_tokenizer())
    with intervene(qwen, policy):
        expected = qwen.generate(ids, **how)
        thread = threading.Thread(target=qwen.generate, args=(ids,), kwargs=how | {"streamer": streamer})
        thread.start()
        heard = "".join(streamer)
        thread.join()
    assert heard.split() == build_tokenizer().decode(expected[0]).split()

    begun, go_on = threading.Event(), threading.Event()

    def wait(*_: Any, **__: Any) -> bool:
        begun.set()
        return not go_on.wait(60)

    with pytest.raises(NormprobeError, match="still runs; join its thread inside"), intervene(qwen, policy):
        thread = threading.Thread(
            target=qwen.generate, args=(ids,), kwargs=how | {"stopping_criteria": [wait]}
        )
        thread.start()
        assert begun.wait(60)
        with pytest.raises(NormprobeError, match="one generation at a time"):
            qwen.generate(ids, **how)
    go_on.set()
    thread.join()


class Rounded(QuantizedLayer):
    """Keys and values to two decimals, by way of integers."""

    def _quantize(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        return (100 * tensor).round().to(torch.int32)

    def _dequantize(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.float() / 100


def test_extra_passes_leave_a_quantized_cache_as_it_is(qwen: Model) -> None:
    """Extra passes of the last layer change no later input: under them the cache is the plain model's."""
    how: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": -1}
    caches = []
    for policy in (Suppression(FixedThreshold({3: 1e9})), GatedRecursion(RandomGate({3: 1.0}), max_passes=2)):
        cache = Cache(layers=[Rounded(residual_length=3) for _ in range(4)])
        forced = torch.tensor([PROMPTS[0] + PROMPTS[1]])
        with intervene(qwen, policy, quiet=True):
            qwen.generate(forced[:, :5], past_key_values=cache, **(how | {"max_new_tokens": 1}))
            qwen.generate(forced, past_key_values=cache, **(how | {"max_new_tokens": 1}))
        caches.append(cache)
    for one, other in zip(*(cache.layers for cache in caches), strict=True):
        assert torch.equal(one._quantized_keys, other._quantized_keys)
        assert torch.equal(one.keys, other.keys)
    assert run(qwen, Suppression(FixedThreshold(tau_of(qwen)), scale=1.0), past_key_values=cache_of(4))[
        2
    ].equal(qwen.generate(**batch(PROMPTS), past_key_values=cache_of(4), **how | {"eos_token_id": ENDS}))


def cache_of(n_layers: int) -> Cache:
    return Cache(layers=[Rounded(residual_length=3) for _ in range(n_layers)])


def test_blocks_inside_each_other_are_refused(qwen: Model) -> None:
    one, other = policies(qwen)["suppress"], Suppression(FixedThreshold({0: 1.0}))
    for policy in (one, other):
        with (
            pytest.raises(NormprobeError, match="one policy at a time, got one inside `intervene`"),
            intervene(qwen, one),
            intervene(qwen, policy),
        ):
            raise AssertionError
        with intervene(qwen, one, quiet=True):
            qwen.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=2)
    assert "generate" not in vars(qwen)
    assert "get_compiled_call" not in vars(qwen)


def test_a_failed_generation_leaves_no_trace(qwen: Model) -> None:
    policy, ids = policies(qwen)["adaptive"], torch.tensor([PROMPTS[0]])

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with intervene(qwen, policy, record=True) as intervention:
        hook = qwen.model.layers[2].register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            qwen.generate(ids, max_new_tokens=2)
        hook.remove()
        with pytest.raises(NormprobeError, match="num_beams=1"):
            qwen.generate(ids, num_beams=2)
        out = qwen.generate(ids, max_new_tokens=6, do_sample=False)
    assert (
        out.tolist() == run(qwen, policy, 6, input_ids=ids, attention_mask=torch.ones_like(ids))[2].tolist()
    )
    assert intervention.events().request.unique().tolist() == [1]


@torch.no_grad()
def test_a_loop_of_ones_own_is_one_generation_after_another(qwen: Model) -> None:
    policy, ids = policies(qwen)["adaptive"], torch.tensor([PROMPTS[0]])
    with intervene(qwen, policy, quiet=True):
        expected = qwen.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=-1)
        one, other = (DynamicCache(config=qwen.config) for _ in range(2))
        new, mine = ids, ids
        for _ in range(5):
            new = qwen(new, past_key_values=one).logits[:, -1:].argmax(dim=-1)
            mine = torch.cat([mine, new], dim=1)
        if not set(mine[0, len(PROMPTS[0]) :].tolist()) & set(ENDS):
            assert mine.tolist() == expected.tolist()
        with pytest.raises(NormprobeError, match="1 rows of at most 1 tokens in a pass, got 1 rows of 5"):
            qwen(ids, past_key_values=one)
        qwen(ids, past_key_values=other)
        with pytest.raises(NormprobeError, match="a pass on another cache in between"):
            qwen(new, past_key_values=one)

    def score(so_far: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + qwen(so_far, past_key_values=DynamicCache(config=qwen.config)).logits[:, -1]

    with pytest.raises(NormprobeError, match="a pass on another cache in between"), intervene(qwen, policy):
        qwen.generate(ids, max_new_tokens=3, logits_processor=[score])
