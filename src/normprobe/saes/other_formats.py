"""Dictionaries as other trainers save them: EleutherAI's sparsify, and dictionary_learning.

Both become autoencoders of SAELens with the same codes (github.com/EleutherAI/sparsify, sparse_coder.py;
github.com/saprmarks/dictionary_learning, dictionary.py and trainers/).
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from normprobe.errors import NormprobeError
from normprobe.runs.untrusted import read_json
from normprobe.saes.hook_names import hook_name, layer_of

if TYPE_CHECKING:
    from sae_lens import SAE

Weights = dict[str, torch.Tensor]
SPARSIFY, DICTIONARY_LEARNING = "sae.safetensors", "ae.pt"
_THRESHOLD = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")


def trainer_folder(folder: Path) -> Path:
    """The folder itself, or the only one of a trainer in it (dictionary_learning's trainer_0).

    Raises NormprobeError if there are several.
    """
    trainers = sorted(path for path in folder.glob("trainer_*") if path.is_dir())
    if len(trainers) > 1:
        raise NormprobeError(
            f"expected one dictionary in {folder}, got {', '.join(path.name for path in trainers)}; "
            "copy the one you mean into a folder of its own"
        )
    return trainers[0] if trainers else folder


def read_other(folder: Path) -> SAE[Any] | None:
    """The dictionary in a folder of one of these formats; None if it is of neither.

    Raises NormprobeError for what has no place here (transcoders, group-max); whatever torch, safetensors, JSON or
    SAELens raise if files are damaged.
    """
    if (folder / SPARSIFY).is_file():
        return _sparsify(folder)
    return _dictionary_learning(folder) if (folder / DICTIONARY_LEARNING).is_file() else None


def _sparsify(folder: Path) -> SAE[Any]:
    settings = read_json(folder / "cfg.json")
    for name, wanted in {
        "transcode": False,
        "skip_connection": False,
        "activation": "topk",
        "signed": False,
    }.items():
        if settings.get(name, wanted) != wanted:
            raise NormprobeError(
                f"expected a sparse autoencoder with {name} {wanted} in {folder}, got {settings[name]}; "
                "name the dictionaries of another run"
            )
    run = folder.parent / "config.json"
    weights = load_file(folder / SPARSIFY)
    parts = {
        "W_enc": weights["encoder.weight"].T,
        "b_enc": weights["encoder.bias"],
        "W_dec": weights["W_dec"],
        "b_dec": weights["b_dec"],
    }
    model = read_json(run).get("model") if run.is_file() else None
    return _made("topk", parts, folder.name, model, k=settings["k"])


def _dictionary_learning(folder: Path) -> SAE[Any]:
    settings = read_json(folder / "config.json")
    trainer = settings["trainer"]
    kind = trainer["dict_class"]
    weights = _unpickled(folder / DICTIONARY_LEARNING)
    parts = {
        "W_enc": weights["W_enc"] if "W_enc" in weights else weights["encoder.weight"].T,
        "W_dec": weights["W_dec"] if "W_dec" in weights else weights["decoder.weight"].T,
    }
    parts["b_dec"] = next(
        weights[name] for name in ("b_dec", "bias", "decoder_bias", "decoder.bias") if name in weights
    )
    if kind == "GatedAutoEncoder":
        parts |= {"b_gate": weights["gate_bias"], "b_mag": weights["mag_bias"], "r_mag": weights["r_mag"]}
    else:
        parts["b_enc"] = weights["b_enc"] if "b_enc" in weights else weights["encoder.bias"]
    if kind in _THRESHOLD:
        parts["threshold"] = weights["threshold"].expand_as(parts["b_enc"])
    architecture = {
        "AutoEncoder": "standard",
        "AutoEncoderNew": "standard",
        "GatedAutoEncoder": "gated",
        "AutoEncoderTopK": "topk",
    } | dict.fromkeys(_THRESHOLD, "jumprelu")
    if kind not in architecture:
        raise NormprobeError(
            f"expected a dictionary of {', '.join(architecture)} in {folder}, got {kind}; use another dictionary"
        )
    # Of a module's input or output; a folder is called after its module where the configuration names none.
    outer = folder.parent if folder.name.startswith("trainer_") else folder
    module = trainer.get("submodule_name") or outer.name
    layer = layer_of(module)
    if layer is not None and settings.get("buffer", {}).get("io", "out") == "in":
        module = f"blocks.{layer}.hook_resid_pre"
    return _made(
        architecture[kind],
        parts,
        module,
        trainer.get("lm_name"),
        apply_b_dec_to_input=kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"),
        **({"k": int(trainer["k"])} if kind == "AutoEncoderTopK" else {}),
    )


def _unpickled(file: Path) -> Weights:
    """The tensors of a file of torch.save. Raises ValueError for what is larger in memory than on the disk."""
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed weights, which torch.save never writes")
    # A pickle of tensors alone: with weights_only nothing in it is run.
    weights: Weights = torch.load(file, map_location="cpu", weights_only=True)
    for name, tensor in weights.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} of {tensor.numel():,} numbers, of which fewer are in the file")
    return weights


def _made(architecture: str, parts: Weights, module: str, model: str | None, **settings: Any) -> SAE[Any]:
    """An autoencoder of SAELens. module: what the site is called there; model: the name of its model, if known."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    kind, configuration = get_sae_class(architecture)
    layer = layer_of(module)
    hook = module if layer is None else hook_name(layer)
    d, width = parts["W_enc"].shape
    metadata = SAEMetadata(model_name=model, hook_name=hook)
    with torch.random.fork_rng(devices=[]):  # its constructor draws weights, which are replaced at once
        sae: Any = kind(configuration(d_in=d, d_sae=width, metadata=metadata, **settings))
    sae.load_state_dict({name: value.float().contiguous() for name, value in parts.items()})
    return sae
