"""Dictionaries that somebody else trained: a folder of `layer_NN`, or a release that SAELens knows, as RELEASE:ID."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from normprobe.errors import NormprobeError
from normprobe.models.identity import ModelIdentity
from normprobe.saes.dictionary import Dictionary, check, layer_folder, load

_LAYER = re.compile(r"layer_(\d+)")


def layers_of(given: str, layers: Sequence[int]) -> list[int]:
    """Those of `layers` that `given` has: of a folder the `layer_NN` in it, of a release all.

    Raises NormprobeError if that is none, or if `given` is neither a folder nor RELEASE:ID with {layer}.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        found = {int(m[1]) for path in folder.iterdir() if (m := _LAYER.fullmatch(path.name))}
        if not (shared := sorted(found & set(layers))):
            raise NormprobeError(
                f"expected folders layer_NN of the layers {min(layers)} to {max(layers)} in {folder}, "
                f"got {', '.join(f'layer_{layer:02d}' for layer in sorted(found)) or 'none'}; name another folder"
            )
        return shared
    if "{layer}" not in given.partition(":")[2]:
        raise NormprobeError(
            f"expected a folder of dictionaries, or RELEASE:ID with {{layer}} in it, got {given!r}; "
            "correct it (such as llama_scope_r1_distill:l{layer}r_800m_slimpajama)"
        )
    return list(layers)


def open_given(given: str, identity: ModelIdentity, layer: int, device: torch.device) -> Dictionary:
    """The dictionary of one layer out of `given`, checked.

    Raises NormprobeError as `normprobe.saes.dictionary.load` does, or if a release has no such dictionary or cannot
    be reached.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        return load(layer_folder(folder, layer), identity, layer, device)
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    release, _, pattern = given.partition(":")
    sae_id = pattern.replace("{layer}", str(layer))
    known = get_pretrained_saes_directory().get(release)
    try:
        sae = SAE.from_pretrained(release, sae_id, device=str(device))
    except (
        Exception
    ) as error:  # unknown release or id, no network, a damaged download: no base class in common
        raise NormprobeError(
            f"expected the published dictionary {release}:{sae_id}, got {type(error).__name__} "
            f"({' '.join(str(error).split())}); check release, id and connection"
        ) from error
    # The metadata of some releases name the base model their authors started from; SAELens's list knows better.
    check(sae, identity, layer, f"{release}:{sae_id}", model_name=known.model if known else None)
    return Dictionary.of(sae)
