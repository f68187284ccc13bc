"""Dictionaries as several trainers save them."""

from __future__ import annotations

import io
from pathlib import Path

from fuzz.hostile import Files
from fuzz.reader import as_json


def dictionaries() -> list[Files]:
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
        {"layer_02/cfg.json": as_json(topk), "layer_02/sae_weights.safetensors": save(ours)},
        {
            "layer_02/cfg.json": as_json(jump),
            "layer_02/sae_weights.safetensors": save(ours | {"threshold": torch.ones(width)}),
        },
        {
            "layers.2/cfg.json": as_json(sparsify),
            "layers.2/sae.safetensors": save(theirs),
            "config.json": as_json({"model": "org/Some-Thinker", "hookpoints": ["layers.2"]}),
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
        files.append({f"{place}/ae.pt": out.getvalue(), f"{place}/config.json": as_json(config)})
    return files


def read_dictionaries(folder: Path) -> None:
    import torch
    from saes_fixture import SOME_THINKER

    from normprobe.saes.dictionary import layers_of, open_given

    (layer,) = layers_of(str(folder), range(4))
    dictionary = open_given(str(folder), SOME_THINKER, layer, torch.device("cpu"))
    dictionary.encode(torch.ones(2, 16))
