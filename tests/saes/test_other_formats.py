"""Folders of sparsify and dictionary_learning give the codes that these trainers compute."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saes_fixture import SOME_THINKER as IDENTITY
from safetensors.torch import save_file

from normprobe.errors import NormprobeError
from normprobe.saes.dictionary import layers_of, open_given
from normprobe.saes.ownership import same_model

D, WIDTH, K, LAYER = 16, 40, 4, 2
H = torch.randn(50, D, generator=torch.Generator().manual_seed(9))


CPU = torch.device("cpu")


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(NormprobeError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def parts() -> dict[str, torch.Tensor]:
    """Random weights: encoder [width, d] and its bias, atoms of unit length [width, d], bias [d]."""
    draw = torch.Generator().manual_seed(1)
    atoms = torch.nn.functional.normalize(torch.randn(WIDTH, D, generator=draw), dim=1)
    return {
        "encoder": torch.randn(WIDTH, D, generator=draw),
        "encoder_bias": torch.randn(WIDTH, generator=draw) * 0.1,
        "atoms": atoms,
        "bias": torch.randn(D, generator=draw) * 0.1,
    }


def top(pre: torch.Tensor) -> torch.Tensor:
    values, at = torch.relu(pre).topk(K, dim=-1)
    return torch.zeros_like(pre).scatter(-1, at, values)


def write_sparsify(
    run: Path, name: str = f"layers.{LAYER}", model: str = "org/Some-Thinker", **changes: Any
) -> Path:
    p, folder = parts(), run / name
    folder.mkdir(parents=True)
    settings = {
        "activation": "topk",
        "k": K,
        "num_latents": WIDTH,
        "expansion_factor": 32,
        "normalize_decoder": True,
    }
    settings |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D}
    (folder / "cfg.json").write_text(json.dumps(settings | changes))
    (run / "config.json").write_text(json.dumps({"model": model, "dataset": "d", "hookpoints": [name]}))
    weights = {
        "encoder.weight": p["encoder"],
        "encoder.bias": p["encoder_bias"],
        "W_dec": p["atoms"],
        "b_dec": p["bias"],
    }
    save_file(weights, folder / "sae.safetensors")
    return run


def test_sparsify(tmp_path):
    given, p = str(write_sparsify(tmp_path)), parts()
    write_sparsify(tmp_path, f"layers.{LAYER}.mlp")  # another point of the network, which is left alone
    assert layers_of(given, range(4)) == [LAYER]
    dictionary = open_given(given, IDENTITY, LAYER, CPU)
    z = dictionary.encode(H)
    torch.testing.assert_close(z, top((H - p["bias"]) @ p["encoder"].T + p["encoder_bias"]))
    torch.testing.assert_close(dictionary.reconstruct(z), z @ p["atoms"] + p["bias"])


@pytest.mark.parametrize(
    "change", [{"transcode": True}, {"skip_connection": True}, {"activation": "groupmax"}]
)
def test_what_is_no_autoencoder_of_top_k(tmp_path, change):
    given = str(write_sparsify(tmp_path, **change))
    assert next(iter(change)) in refused(lambda: open_given(given, IDENTITY, LAYER, CPU))


def write_dictionary_learning(
    run: Path, kind: str, trainers: int = 1, io: str = "out", **changes: Any
) -> Path:
    p = parts()
    weights = {
        "encoder.weight": p["encoder"],
        "encoder.bias": p["encoder_bias"],
        "decoder.weight": p["atoms"].T.contiguous(),
        "b_dec": p["bias"],
        "k": torch.tensor(K),
        "threshold": torch.tensor(0.7),
    }
    if kind == "AutoEncoder":
        weights = {name: weights[name] for name in ("encoder.weight", "encoder.bias", "decoder.weight")} | {
            "bias": p["bias"]
        }
    if kind == "JumpReluAutoEncoder":
        weights = {
            "W_enc": p["encoder"].T,
            "b_enc": p["encoder_bias"],
            "W_dec": p["atoms"],
            "b_dec": p["bias"],
        }
        weights["threshold"] = torch.full((WIDTH,), 0.7)
    if kind == "GatedAutoEncoder":
        weights = {name: weights[name] for name in ("encoder.weight", "decoder.weight")} | {
            "decoder_bias": p["bias"]
        }
        weights |= {
            "gate_bias": p["encoder_bias"],
            "mag_bias": -p["encoder_bias"],
            "r_mag": p["encoder_bias"],
        }
    for number in range(trainers):
        folder = run / f"resid_post_layer_{LAYER}" / f"trainer_{number}"
        folder.mkdir(parents=True)
        torch.save(weights, folder / "ae.pt")
        trainer = {"dict_class": kind, "activation_dim": D, "dict_size": WIDTH, "k": K, "layer": LAYER}
        trainer |= {"lm_name": "org/Some-Thinker", "submodule_name": f"resid_post_layer_{LAYER}"} | changes
        (folder / "config.json").write_text(
            json.dumps({"trainer": trainer, "buffer": {"io": io, "ctx_len": 64}})
        )
    return run


def expected(kind: str) -> torch.Tensor:
    p = parts()
    shifted = H if kind == "JumpReluAutoEncoder" else H - p["bias"]
    pre = shifted @ p["encoder"].T
    if kind == "GatedAutoEncoder":
        gate = pre + p["encoder_bias"] > 0
        return gate * torch.relu(p["encoder_bias"].exp() * pre - p["encoder_bias"])
    pre = pre + p["encoder_bias"]
    if kind == "AutoEncoderTopK":
        return top(pre)
    return torch.relu(pre) if kind == "AutoEncoder" else torch.relu(pre) * (pre > 0.7)


@pytest.mark.parametrize(
    "kind", ["AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "JumpReluAutoEncoder"]
)
def test_dictionary_learning(tmp_path, kind):
    given = str(write_dictionary_learning(tmp_path, kind))
    assert layers_of(given, range(4)) == [LAYER]
    dictionary = open_given(given, IDENTITY, LAYER, CPU)
    z = dictionary.encode(H)
    torch.testing.assert_close(z, expected(kind))
    torch.testing.assert_close(dictionary.reconstruct(z), z @ parts()["atoms"] + parts()["bias"])


def test_what_stands_for_another_site_or_is_not_one(tmp_path):
    given = str(write_dictionary_learning(tmp_path / "in", "AutoEncoder", io="in"))
    assert f"got blocks.{LAYER - 1}.hook_resid_post" in refused(
        lambda: open_given(given, IDENTITY, LAYER, CPU)
    )
    mlp = str(write_dictionary_learning(tmp_path / "mlp", "AutoEncoder", submodule_name="mlp_out_layer_2"))
    assert "got mlp_out_layer_2" in refused(lambda: open_given(mlp, IDENTITY, LAYER, CPU))
    several = str(write_dictionary_learning(tmp_path / "several", "AutoEncoder", trainers=2))
    assert "got trainer_0, trainer_1" in refused(lambda: open_given(several, IDENTITY, LAYER, CPU))
    odd = str(write_dictionary_learning(tmp_path / "odd", "CrossCoder"))
    assert "got CrossCoder" in refused(lambda: open_given(odd, IDENTITY, LAYER, CPU))


def test_nothing_in_a_pickle_is_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    run = write_dictionary_learning(tmp_path, "AutoEncoder")
    torch.save({"encoder.weight": Bomb()}, run / f"resid_post_layer_{LAYER}" / "trainer_0" / "ae.pt")
    assert "a readable dictionary" in refused(lambda: open_given(str(run), IDENTITY, LAYER, CPU))
    assert not (tmp_path / "ran").exists()


def test_two_folders_of_one_layer_are_refused(tmp_path):
    write_sparsify(tmp_path)
    write_sparsify(tmp_path, f"model.layers.{LAYER}.output")
    assert "one dictionary of layer 2" in refused(lambda: layers_of(str(tmp_path), range(4)))


def test_a_base_models_dictionaries_need_the_users_word(tmp_path):
    given = str(write_sparsify(tmp_path, model="Org/Some-Base"))
    told = refused(lambda: open_given(given, IDENTITY, LAYER, CPU))
    assert "model org/Some-Thinker, got Org/Some-Base" in told
    assert "--saes-of Org/Some-Base" in told
    assert open_given(given, IDENTITY, LAYER, CPU, of="org/some-base").width == WIDTH
    told = refused(lambda: open_given(given, IDENTITY, LAYER, CPU, of="org/other"))
    assert "model org/other, got Org/Some-Base" in told


def test_names_are_whole_names():
    assert same_model("Qwen/Qwen3-8B", "qwen/qwen3-8b")
    assert not same_model("someone/Qwen3-8B", "Qwen/Qwen3-8B")
    assert not same_model("/data/Qwen3-8B", "Qwen/Qwen3-8B")
    assert same_model("gemma-2-2b", "google/gemma-2-2b")
    assert not same_model("no-such-model", "org/no-such-model")
