"""Replaced states: against single forward passes, SAELens's own evaluation, and a dictionary that is exact."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from saes_fixture import write_tables
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from normprobe.models.model import OpenModel
from normprobe.models.open import assemble, open_model
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.saes.activations import PAIRED
from normprobe.saes.dictionary import Dictionary, describe, random_dictionary, topk_sae
from normprobe.saes.splicing import LEAST_LOSS, MeasuredResponses, Splicing
from normprobe.saes.training import generator_for

D = 32


@pytest.fixture
def opened(make_tiny_qwen3) -> OpenModel:
    """With larger weights than fresh ones: what a state is has to matter."""
    model = make_tiny_qwen3()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)
    return assemble(model, build_tokenizer(), "random", check=False)


@pytest.fixture
def held_out(opened) -> MeasuredResponses:
    _, responses = write_tables(opened)
    lengths = responses["token_ids"].map(len)
    tokens = pd.DataFrame({"response_id": np.repeat(responses["response_id"], lengths)})
    position = np.concatenate([np.arange(n) for n in lengths])
    return MeasuredResponses.of(
        responses, tokens.assign(sink=(position == 0) | (position == 5)), n_problems=3
    )


def random(opened: OpenModel, layer: int) -> Dictionary:
    metadata = describe(opened.identity, layer, "random", 0)
    return Dictionary.of(random_dictionary(D, 3 * D, 8, metadata, generator_for(layer)))


def exact(opened: OpenModel, layer: int) -> Dictionary:
    """h = Σ max(h_i, 0) e_i + Σ max(−h_i, 0) (−e_i)."""
    atoms = torch.cat([torch.eye(D), -torch.eye(D)])
    metadata = describe(opened.identity, layer, "exact", 0)
    return Dictionary.of(topk_sae(atoms, atoms.clone(), torch.zeros(2 * D), torch.zeros(D), D, metadata))


def measure(opened: OpenModel, held_out: MeasuredResponses, layer: int, dictionary: Dictionary, **settings):
    splicing = Splicing(opened, held_out, "model", **settings)
    mean = splicing.site_means([layer])[layer]
    return splicing.measure(layer, {"own": dictionary}, mean).set_index("mode")


def test_an_exact_dictionary_changes_nothing(opened, held_out):
    found = measure(opened, held_out, 1, exact(opened, 1))
    assert list(found.index) == list(PAIRED)
    np.testing.assert_allclose(found["ce_loss_with_sae"], found["ce_loss_without_sae"], rtol=1e-5)
    np.testing.assert_allclose(found["kl_div_with_sae"], 0, atol=1e-5)
    assert (found["kl_div_with_ablation"] > 0.1).all()
    for column in ("r2", "cossim", "l2_ratio", "relative_reconstruction_bias", "kl_div_score"):
        np.testing.assert_allclose(found[column], 1, atol=1e-5, err_msg=column)
    np.testing.assert_allclose(found["l0"], D)
    np.testing.assert_allclose(found["l2_norm_in"], found["l2_norm_out"], rtol=1e-5)


@torch.no_grad()
def by_hand(opened: OpenModel, held_out: MeasuredResponses, layer: int, dictionary: Dictionary):
    """Losses, and states with their reconstructions, by mode, one response at a time."""
    sinks, start = held_out.sink, 0
    states, losses = ({mode: [] for mode in PAIRED} for _ in range(2))
    for response in held_out.responses.to_dict("records"):
        ids = torch.tensor([response["token_ids"]])
        sink = torch.tensor(sinks[start : start + ids.shape[1]])
        start += ids.shape[1]

        def hook(_module, _inputs, output, sink=sink, response=response):
            h = output[0]
            predicted = dictionary.reconstruct(dictionary.encode(h))
            for span in ("thought", "answer"):
                for i in range(response[f"{span}_start"], response[f"{span}_end"]):
                    if not sink[i]:
                        states[response["mode"]].append((h[i], predicted[i]))
            return torch.where(sink[:, None], h, predicted)[None]

        plain = log_softmax(opened.model(ids).logits[0], -1)
        handle = opened.blocks[layer].register_forward_hook(hook)
        spliced = log_softmax(opened.model(ids).logits[0], -1)
        handle.remove()
        for i in range(response["n_prompt"], ids.shape[1]):
            losses[response["mode"]].append(
                [
                    cross_entropy(plain[i - 1], ids[0, i]),
                    cross_entropy(spliced[i - 1], ids[0, i]),
                    kl_div(spliced[i - 1], plain[i - 1], log_target=True, reduction="sum"),
                ]
            )
    return states, losses


@pytest.mark.parametrize("layer", [1, 3])  # 3: the last
def test_what_is_measured_is_what_single_passes_give(opened, held_out, layer):
    dictionary = random(opened, layer)
    found = measure(opened, held_out, layer, dictionary)
    states, losses = by_hand(opened, held_out, layer, dictionary)
    for mode in PAIRED:
        row, of_mode = found.loc[mode], torch.tensor(losses[mode])
        h, predicted = map(torch.stack, zip(*states[mode], strict=True))
        assert (row["n_read"], row["n_written"]) == (len(h), len(of_mode))
        expected = of_mode.mean(dim=0).tolist()
        columns = ["ce_loss_without_sae", "ce_loss_with_sae", "kl_div_with_sae"]
        np.testing.assert_allclose(row[columns].astype(float), expected, rtol=1e-3, atol=1e-5)
        z = dictionary.encode(h)
        r2 = 1 - (h - predicted).square().sum() / (h - h.mean(dim=0)).square().sum()
        assert row["r2"] == pytest.approx(float(r2), abs=1e-4)
        assert row["l1"] == pytest.approx(float(z.sum(dim=1).mean()), rel=1e-3)
        assert row["frac_alive"] == pytest.approx(float((z > 0).any(dim=0).float().mean()))
        often = (z > 0).float().mean(dim=0) > 0.1
        assert row["freq_over_10_percent"] == pytest.approx(float(often.float().mean()))
        for column, ablated in (
            ("loss_recovered", "ce_loss_with_mean"),
            ("ce_loss_score", "ce_loss_with_ablation"),
        ):
            lost, left = (row[ablated] - row[name] for name in columns[:2])
            expected = left / lost if lost >= LEAST_LOSS else np.nan
            assert row[column] == pytest.approx(expected, nan_ok=True)


def test_blocks_and_memory_change_nothing(opened, held_out, monkeypatch):
    dictionary = random(opened, 2)
    whole = measure(opened, held_out, 2, dictionary)
    monkeypatch.setattr("normprobe.saes.fidelity._CODES_AT_ONCE", 200)
    monkeypatch.setattr("normprobe.saes.splicing._FINAL_BYTES", 8 * D * 60)
    in_parts = measure(opened, held_out, 2, dictionary, memory=40_000_000)
    pd.testing.assert_frame_equal(whole, in_parts, rtol=1e-4)


def test_parts_are_the_whole_one_after_another(held_out):
    parts = list(held_out.parts(60))
    assert 1 < len(parts) < len(held_out.responses)
    assert pd.concat(part.responses for part in parts)["response_id"].tolist() == list(
        held_out.responses["response_id"]
    )
    for name in ("mode_read", "sink", "written_mode", "written_id"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(held_out, name))


def test_the_mean_of_a_site_is_that_of_all_tokens_but_sinks(opened, held_out):
    (mean,) = Splicing(opened, held_out, "model").site_means([2]).values()
    states = []
    for ids in held_out.responses["token_ids"]:
        with torch.no_grad():
            states.append(opened.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0])
    expected = torch.cat(states)[torch.from_numpy(~held_out.sink)].mean(dim=0)
    torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-4)


def test_saelens_gives_the_same_numbers_under_the_same_names(tiny_qwen3_dir: Path):
    """Of a response whose every token counts, the first too: SAELens leaves out nothing."""
    from sae_lens.evals import ExplainedVarianceCalculator, get_recons_loss
    from sae_lens.training.activation_scaler import ActivationScaler
    from transformer_lens.model_bridge import TransformerBridge

    opened = open_model(tiny_qwen3_dir)
    ids = list(range(20, 50))
    spans = {"thought_start": 0, "thought_end": len(ids), "answer_start": -1, "answer_end": -1}
    response = {"response_id": "r", "problem_id": "p", "split": "measure", "mode": "think", "token_ids": ids}
    held_out = MeasuredResponses(
        pd.DataFrame([response | spans | {"n_prompt": 1}]), np.zeros(len(ids), dtype=bool)
    )
    dictionary = random(opened, 1)
    row = measure(opened, held_out, 1, dictionary).loc["think"]
    bridge = TransformerBridge.boot_transformers(str(tiny_qwen3_dir), device="cpu")
    scaler, tokens = ActivationScaler(), torch.tensor([ids])
    theirs = get_recons_loss(dictionary.sae, bridge, scaler, tokens, compute_kl=True, compute_ce_loss=True)
    for name, values in theirs.items():
        per_token = (
            values[..., :-1] if values.shape[-1] == len(ids) else values
        )  # of the last nothing follows
        assert row[name] == pytest.approx(float(per_token.mean()), rel=1e-3, abs=1e-6), name
    _, cache = bridge.run_with_cache(tokens)
    h = cache["resid_post", 1][0]
    explained = ExplainedVarianceCalculator()
    explained.add_batch(dictionary.sae(h).detach(), h)
    assert row["r2"] == pytest.approx(explained.compute(), abs=1e-4)
