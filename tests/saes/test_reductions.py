"""The reductions against a slow float64 reference that keeps every state and code, and the algebra they must obey."""

import numpy as np
import pandas as pd
import pytest
import torch
from saes_fixture import write_tables

import normprobe.saes.codes as codes
from normprobe.config import SaeSettings
from normprobe.errors import NormprobeError
from normprobe.models.model import OpenModel
from normprobe.models.open import assemble
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.saes.dictionary import Dictionary, random_dictionary
from normprobe.saes.reductions import Reduced, n_selected, reduce_subject, work
from normprobe.saes.training import generator_for, train_sae
from normprobe.theory.bound import Constants, Lengths, signed_bound, slack
from normprobe.theory.constants import delta, drift, epsilon, ratio
from normprobe.theory.orthogonality import c_star

LAYERS, WIDTH, D = (1, 3), 48, 32
SCOPES = {"response": ("thought", "answer"), "answer": ("answer",)}


@pytest.fixture(scope="module")
def tables() -> tuple[OpenModel, pd.DataFrame]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from normprobe.problems.testbed.vocabulary import END, VOCABULARY

    config = Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=D,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=VOCABULARY.index(END),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).eval()
    opened = assemble(model, build_tokenizer(), "random", check=False)
    return opened, write_tables(opened, 36)[1]


@pytest.fixture(scope="module")
def states(tables) -> list[np.ndarray]:
    """States [layer, position, d] of each response, read alone."""
    opened, responses = tables
    found = []
    for ids in responses["token_ids"]:
        kept: list[torch.Tensor] = []
        handles = [
            block.register_forward_hook(lambda _m, _i, output, kept=kept: kept.append(output))
            for block in opened.blocks
        ]
        with torch.no_grad():
            opened.model(torch.tensor([ids]))
        for handle in handles:
            handle.remove()
        found.append(torch.cat([kept[layer] for layer in LAYERS]).numpy())
    return found


@pytest.fixture(scope="module")
def readers(states) -> dict[str, dict[int, Dictionary]]:
    found: dict[str, dict[int, Dictionary]] = {"model": {}, "random": {}}
    for row, layer in enumerate(LAYERS):
        sample = torch.from_numpy(np.concatenate([response[row, 1:] for response in states]))
        settings = SaeSettings(width=WIDTH, k=5, n_samples=6400, batch_size=64)
        sae = train_sae(sample, settings, {}, generator_for(layer), torch.device("cpu"))
        found["model"][layer] = Dictionary.of(sae)
        found["random"][layer] = Dictionary.of(random_dictionary(D, WIDTH, 5, {}, generator_for(layer)))
    return found


@pytest.fixture(scope="module")
def reduced(tables, readers) -> dict[str, Reduced]:
    return reduce_subject(*tables, readers, "model")


def spans(response: pd.Series, scope: str) -> np.ndarray:
    return np.concatenate(
        [np.arange(response[f"{segment}_start"], response[f"{segment}_end"]) for segment in SCOPES[scope]]
    ).astype(int)


def parts(dictionary: Dictionary, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, reconstruction and residual of states, in float64."""
    z = dictionary.encode(torch.from_numpy(h)).double().numpy()
    x = z @ dictionary.atoms.double().numpy() + dictionary.bias.double().numpy()
    return z, x, h.astype(np.float64) - x


def means_of(tables, states, dictionary, row, problem, mode, scope):
    """(z̄, h̄, scalars) of one cell, or None without tokens."""
    responses = tables[1]
    chosen = responses[(responses["problem_id"] == problem) & (responses["mode"] == mode)]
    h = np.concatenate([states[i][row][spans(responses.loc[i], scope)] for i in chosen.index])
    if not len(h):
        return None
    z, _, r = parts(dictionary, h)
    norms = np.linalg.norm(h.astype(np.float64), axis=1)
    scalars = {
        "n_tokens": len(h),
        "h_sq_mean": (norms**2).mean(),
        "norm_mean": norms.mean(),
        "r_sq_mean": (r**2).sum(axis=1).mean(),
    }
    return z.mean(axis=0), h.astype(np.float64).mean(axis=0), scalars


def test_features_are_selected_from_the_select_split_alone(tables, states, readers, reduced):
    responses = tables[1]
    problems = responses.loc[responses["split"] == "select", "problem_id"].unique()
    for reader, dictionaries in readers.items():
        for row, layer in enumerate(LAYERS):
            z = {
                mode: np.stack(
                    [
                        means_of(tables, states, dictionaries[layer], row, problem, mode, "response")[0]
                        for problem in problems
                    ]
                )
                for mode in ("think", "no_think")
            }
            table = reduced[reader].features.query("layer == @layer")
            assert table["feature"].tolist() == list(range(WIDTH))
            np.testing.assert_allclose(table["mean_think"], z["think"].mean(axis=0), rtol=1e-4, atol=1e-6)
            delta = (z["think"] - z["no_think"]).mean(axis=0)
            np.testing.assert_allclose(table["delta"], delta, rtol=1e-3, atol=1e-5)
    assert reduced["model"].features["selected"].any()


def test_controls_read_as_many_features_as_the_model_or_as_they_are_asked_for(tables, readers, reduced):
    n_model, n_random = (n_selected(reduced[reader].features) for reader in ("model", "random"))
    assert n_random == n_model
    assert n_model != [7, 0]
    other = reduce_subject(
        *tables, {"untrained": readers["random"]}, "untrained", sizes={"untrained": [7, 0]}
    )
    assert n_selected(other["untrained"].features) == [7, 0]
    assert other["untrained"].dictionary["n_selected"].tolist() == [7, 0]
    assert (other["untrained"].tokens["z_reasoning"] > 0).any(axis=1).tolist() == [True, False]


def test_every_row_of_the_sums_equals_the_reference(tables, states, readers, reduced):
    """All of I, the matched, I⁺ and the sets of fixed size: recomputed from tokens, with B and R formed as vectors."""
    rng = np.random.default_rng(0)
    for reader, dictionaries in readers.items():
        features, sums = reduced[reader].features, reduced[reader].sums
        for index in rng.choice(len(sums), 150, replace=False):
            found = sums.loc[index]
            row, dictionary = LAYERS.index(found["layer"]), dictionaries[found["layer"]]
            key = (found["problem_id"], found["mode"], found["scope"])
            z, h, scalars = means_of(tables, states, dictionary, row, *key)
            layer = features[features["layer"] == found["layer"]]
            columns = {"reasoning": "selected", "plus": "selected", "matched": "matched"}
            if found["feature_set"] in columns:
                members = layer[columns[found["feature_set"]]].to_numpy()
            else:
                order = layer[layer["delta"] > 0].sort_values(["p", "delta"], ascending=[True, False])
                members = layer["feature"].isin(order["feature"][: int(found["feature_set"][3:])]).to_numpy()
            if found["feature_set"] == "plus":
                pair = [
                    means_of(tables, states, dictionary, row, found["problem_id"], mode, found["scope"])[0]
                    for mode in ("think", "no_think")
                ]
                members = members & (pair[0] >= pair[1] - 1e-6)
            atoms, bias = dictionary.atoms.double().numpy(), dictionary.bias.double().numpy()
            R, B = (z * members) @ atoms, bias + (z * ~members) @ atoms
            expected = scalars | {"z_sum": z[members].sum()}
            if not found["feature_set"].startswith("top"):
                r = h - B - R
                expected |= {"z_l1_active": (z[members] > 0).sum(), "h_sq": h @ h, "b_sq": B @ B}
                expected |= {"rpart_sq": R @ R, "br": B @ R, "r_sq": r @ r}
            else:
                assert found[["h_sq", "b_sq", "rpart_sq", "br", "r_sq", "h_sq_mean"]].isna().all()
                expected = {name: expected[name] for name in ("n_tokens", "z_sum", "norm_mean")}
            for name, value in expected.items():
                assert found[name] == pytest.approx(value, rel=2e-4, abs=1e-4 * np.sqrt(h @ h)), (name, *key)


def test_every_cell_is_there_once(tables, reduced):
    responses, sums = tables[1], reduced["model"].sums
    keys = ["problem_id", "layer", "scope", "mode", "feature_set"]
    assert not sums.duplicated(keys).any()
    whole = sums.query("scope == 'response' and feature_set == 'reasoning'")
    traced = responses[responses["split"] != "sae"]
    assert len(whole) == len(LAYERS) * len(traced)
    assert dict(zip(whole["problem_id"], whole["split"], strict=True)) == dict(
        zip(traced["problem_id"], traced["split"], strict=True)
    )
    # The last think response was cut off before its answer: no row for it, and no pair.
    cut_off = responses["problem_id"].iloc[-1]
    answers = sums[(sums["scope"] == "answer") & (sums["problem_id"] == cut_off)]
    assert set(answers["mode"]) == {"no_think", "filler"}
    assert "plus" not in set(answers["feature_set"])
    pairs = reduced["model"].pairs
    scopes = pairs.loc[pairs["problem_id"] == cut_off, "scope"]
    assert scopes.tolist() == ["response"] * 4


def test_pairs_equal_the_reference(tables, states, readers, reduced):
    pairs = reduced["model"].pairs
    assert set(pairs["feature_set"]) == {"reasoning", "plus"}
    for index in np.random.default_rng(1).choice(len(pairs), 60, replace=False):
        found = pairs.loc[index]
        layer = reduced["model"].features.query("layer == @found.layer")
        row, members = LAYERS.index(found["layer"]), layer["selected"].to_numpy()
        a, b = (
            means_of(
                tables,
                states,
                readers["model"][found["layer"]],
                row,
                found["problem_id"],
                mode,
                found["scope"],
            )[0][members]
            for mode in ("think", "no_think")
        )
        if found["feature_set"] == "plus":
            a, b = a[a >= b - 1e-6], b[a >= b - 1e-6]
        assert found["s"] == pytest.approx((a - b).sum(), rel=1e-3, abs=1e-4)
        assert found["k_think"] == (a > 0).sum()
        assert found["k_delta"] == (a != b).sum()
        leak = b.sum() / a.sum() if a.any() else np.inf if b.any() else 0.0
        assert found["leak"] == pytest.approx(leak, rel=1e-3)
        both, either = ((a > 0) & (b > 0)).sum(), ((a > 0) | (b > 0)).sum()
        assert found["overlap"] == pytest.approx(both / either if either else 0)
        assert found["negative_share"] == pytest.approx((a < b).mean() if len(a) else 0)


def test_tokens_stand_in_the_order_of_the_traces(tables, states, readers, reduced):
    responses = tables[1]
    traced = responses.index[responses["split"].isin(["select", "measure"])]
    for reader, dictionaries in readers.items():
        for row, layer in enumerate(LAYERS):
            z = np.concatenate([parts(dictionaries[layer], states[i][row])[0] for i in traced])
            features = reduced[reader].features.query("layer == @layer")
            for name, members in (
                ("z_reasoning", features["selected"].to_numpy()),
                ("z_matched", features["matched"].to_numpy()),
                ("z_total", np.ones(WIDTH, dtype=bool)),
            ):
                found = reduced[reader].tokens[name][row]
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, z[:, members].sum(axis=1), rtol=1e-3, atol=1e-3 * z.max())


def test_the_dictionarys_own_row(tables, states, readers, reduced):
    responses = tables[1]
    fitted = (responses["split"] == "measure") & responses["mode"].isin(["think", "no_think"])
    for reader, dictionaries in readers.items():
        for row, layer in enumerate(LAYERS):
            found = reduced[reader].dictionary.query("layer == @layer").iloc[0]
            tokens = [states[i][row][spans(responses.loc[i], "response")] for i in responses.index[fitted]]
            h = np.concatenate(tokens)
            _, _, r = parts(dictionaries[layer], h)
            total = ((h - h.astype(np.float64).mean(axis=0)) ** 2).sum()
            assert found["r2"] == pytest.approx(1 - (r**2).sum() / total, abs=1e-4)
            eps = (np.linalg.norm(r, axis=1) / np.linalg.norm(h, axis=1)).mean()
            assert found["eps_mean"] == pytest.approx(eps, rel=1e-3)
            selected = reduced[reader].features.query("layer == @layer")["selected"].to_numpy()
            assert (found["d"], found["width"], found["n_selected"]) == (D, WIDTH, selected.sum())
            if selected.sum() > 1:
                gram = np.einsum("id,jd->ij", *(dictionaries[layer].atoms.double().numpy()[selected],) * 2)
                off = gram[~np.eye(len(gram), dtype=bool)]
                assert found["mu_selected"] == pytest.approx(np.abs(off).max(), abs=1e-6)
                assert found["mu_minus_selected"] == pytest.approx(max(-off.min(), 0), abs=1e-6)
                assert found["c_star_selected"] == pytest.approx(c_star(gram), abs=1e-6)


def test_the_theorem_holds_with_constants_measured_on_the_same_cells(reduced):
    """With its own ε, δ, ρ, κ in every cell the bound is algebra: a violation would be a bug here."""
    checked = 0
    for reader in reduced:
        of_set = reduced[reader].sums.query("feature_set == 'reasoning' and scope == 'response'")
        keys = ["problem_id", "layer"]
        think, no_think = (
            of_set[of_set["mode"] == mode].set_index(keys).sort_index() for mode in ("think", "no_think")
        )
        think = think.loc[no_think.index]
        lengths = Lengths(
            *(
                side[column].to_numpy()
                for column in ("h_sq", "b_sq", "rpart_sq")
                for side in (think, no_think)
            )
        )
        constants = Constants(
            epsilon=np.maximum(
                *(epsilon(s["r_sq"].to_numpy(), s["h_sq"].to_numpy()) for s in (think, no_think))
            ),
            delta=np.maximum(
                *(
                    delta(*(s[column].to_numpy() for column in ("br", "b_sq", "rpart_sq")))
                    for s in (think, no_think)
                )
            ),
            rho=ratio(no_think["z_sum"].to_numpy(), think["z_sum"].to_numpy()),
            kappa=drift(lengths.b_think, lengths.b_no_think),
        )
        c = reduced[reader].dictionary.set_index("layer")["c_star_selected"].fillna(0.0)
        of_cells = c.loc[think.index.get_level_values("layer")].to_numpy()
        bound = signed_bound(lengths.gap, slack(constants, lengths), constants.rho, of_cells)
        s = (think["z_sum"] - no_think["z_sum"]).to_numpy()
        known = (constants.rho < 1) & (of_cells > 0)
        assert (bound.lower[known] <= s[known] * (1 + 1e-6) + 1e-6).all()
        assert (bound.upper[known] >= s[known] * (1 - 1e-6) - 1e-6).all()
        checked += known.sum()
    assert checked > 10


def test_blocks_and_parts_change_nothing(tables, readers, reduced, monkeypatch):
    monkeypatch.setattr(codes, "_CODES_PER_BLOCK", 5 * 2 * len(LAYERS) * 6 * WIDTH)
    monkeypatch.setattr(codes, "_CODES_AT_ONCE", 333 * WIDTH)
    seen = []
    other = reduce_subject(*tables, readers, "model", on_tokens=seen.append)
    assert sum(seen) == work(tables[1], len(LAYERS))
    for reader in readers:
        for name in ("z_reasoning", "z_total"):
            np.testing.assert_allclose(
                other[reader].tokens[name], reduced[reader].tokens[name], rtol=1e-3, atol=1e-3
            )
        keys = ["problem_id", "layer", "scope", "mode", "feature_set"]
        mine, theirs = (found[reader].sums.set_index(keys).sort_index() for found in (other, reduced))
        assert mine.index.equals(theirs.index)
        numbers = mine.select_dtypes("number")
        np.testing.assert_allclose(numbers, theirs[numbers.columns], rtol=1e-3, atol=1e-3)


def test_one_pair_is_too_few_to_select_on(tables, readers):
    opened, responses = tables
    single = responses.loc[responses["split"] == "select", "problem_id"].iloc[0]
    few = responses[(responses["split"] == "measure") | (responses["problem_id"] == single)]
    with pytest.raises(NormprobeError, match="expected at least 2 problems answered in think and no_think"):
        reduce_subject(opened, few, readers, "model")
