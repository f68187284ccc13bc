"""A saved sparse autoencoder as the theorem sees it: codes z ≥ 0 over unit atoms d_i, in activation units.

Dictionaries that somebody else trained are given as a folder that has one a layer (in SAELens's format, sparsify's or
dictionary_learning's), or as RELEASE:ID of one that SAELens knows.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors import safe_open

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.local_files import dictionaries_folder
from normprobe.models.identity import ModelIdentity
from normprobe.runs.untrusted import read_json
from normprobe.saes.hook_names import hook_name, layer_of
from normprobe.saes.other_formats import read_other, trainer_folder
from normprobe.saes.ownership import check

if TYPE_CHECKING:
    from sae_lens import SAE, TopKSAE, TopKTrainingSAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
NON_NEGATIVE = ("topk", "batchtopk", "jumprelu", "standard", "gated")
PER_TOKEN = ("layer_norm", "constant_norm_rescale")
"""What SAELens calls normalisations that give every state the same size: codes no longer follow the norm."""


def layer_folder(folder: Path, layer: int) -> Path:
    """Where the dictionary of one layer lies in a folder of dictionaries."""
    return folder / f"layer_{layer:02d}"


def describe(identity: ModelIdentity, layer: int, subject: str, seed: int) -> dict[str, Any]:
    """What a dictionary of this model and layer says about itself in its cfg.json."""
    return {
        "model_name": identity.name,
        "hook_name": hook_name(layer),
        "layer": layer,
        "subject": subject,
        "seed": seed,
        "model": identity.to_dict(),
    }


@dataclass(frozen=True)
class Dictionary:
    """Wraps a SAELens autoencoder. h = reconstruct(z) + r with reconstruct(z) = bias + Σ_i z_i · atoms_i.

    atoms are unit vectors; where the saved decoder's are not, their lengths move into z, which leaves z_i·d_i as it
    was.
    """

    sae: SAE[Any]
    atoms: Float[torch.Tensor, "feature d"]
    bias: Float[torch.Tensor, " d"]
    _lengths: Float[torch.Tensor, " feature"] | None

    @classmethod
    def of(cls, sae: SAE[Any]) -> Dictionary:
        """Raises NormprobeError if codes can be negative or do not follow the norm, states have to be normalised first
        by statistics that nobody has, weights are not finite or atoms zero."""
        where = str(sae.cfg.metadata.hook_name)
        if sae.cfg.architecture() not in NON_NEGATIVE:
            raise NormprobeError(
                f"expected a dictionary of type {', '.join(NON_NEGATIVE)}, got {sae.cfg.architecture()!r} at {where}; "
                "the theorem needs non-negative codes: use another dictionary"
            )
        k = getattr(sae.cfg, "k", 1)
        if sae.cfg.architecture() == "topk" and not (type(k) is int and 0 < k <= sae.cfg.d_sae):
            raise NormprobeError(
                f"expected k of 1 to {sae.cfg.d_sae} active features at {where}, got {k!r}; train it again"
            )
        for switch in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
            if not isinstance(value := getattr(sae.cfg, switch, False), bool):
                raise NormprobeError(
                    f"expected {switch} true or false in the dictionary's cfg.json at {where}, "
                    f"got {str(value)[:60]!r}; copy it again"
                )
        if (normalised := sae.cfg.normalize_activations) in PER_TOKEN:
            raise NormprobeError(
                f"expected a dictionary whose codes follow the norm, got normalize_activations={normalised!r} at "
                f"{where}, which erases it token by token; use another dictionary"
            )
        if normalised != "none":
            raise NormprobeError(
                f"expected a dictionary that reads raw states, got normalize_activations={normalised!r} at {where}, "
                "whose statistics are not saved with it; fold them into the weights with SAELens and save it again"
            )
        atoms, bias = sae.W_dec.detach().float(), sae.b_dec.detach().float()
        lengths = torch.linalg.vector_norm(atoms, dim=1)
        finite = all(parameter.isfinite().all() for parameter in sae.parameters())
        if not finite or not bool((lengths > 0).all()):
            raise NormprobeError(
                f"expected finite weights and no zero atoms in the dictionary at {where}, got others; train it again"
            )
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            return cls(sae, atoms / lengths[:, None], bias, None)  # the code counts unit atoms already
        if bool(((lengths - 1).abs() < 1e-5).all()):
            return cls(sae, atoms, bias, None)  # as this package saves them: SAELens and we agree to the bit
        return cls(sae, atoms / lengths[:, None], bias, lengths)

    @property
    def width(self) -> int:
        return self.atoms.shape[0]

    @torch.no_grad()
    def encode(self, h: Float[torch.Tensor, "token d"]) -> Float[torch.Tensor, "token feature"]:
        """Codes of raw activations, in float32."""
        z = self.sae.encode(h).float()
        return z if self._lengths is None else z * self._lengths

    def reconstruct(self, z: Float[torch.Tensor, "token feature"]) -> Float[torch.Tensor, "token d"]:
        """bias + Σ_i z_i · atoms_i."""
        return z @ self.atoms + self.bias


def random_dictionary(
    d: int, width: int, k: int, metadata: Mapping[str, Any], generator: torch.Generator
) -> TopKSAE:
    """Random unit atoms (isotropic), the encoder their transpose, TopK, no biases: the null model of a dictionary."""
    atoms = random_atoms(d, width, generator)
    return topk_sae(atoms, atoms, torch.zeros(width), torch.zeros(d), k, metadata)


def random_atoms(d: int, width: int, generator: torch.Generator) -> Float[torch.Tensor, "feature d"]:
    """Isotropic unit vectors, on the generator's device."""
    atoms = torch.randn(width, d, generator=generator, device=generator.device)
    return atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)


def topk_sae(
    encoder: Float[torch.Tensor, "feature d"],
    atoms: Float[torch.Tensor, "feature d"],
    encoder_bias: Float[torch.Tensor, " feature"],
    bias: Float[torch.Tensor, " d"],
    k: int,
    metadata: Mapping[str, Any],
) -> TopKSAE:
    """SAELens's autoencoder of these weights: z = TopK(encoder·(h − bias) + encoder_bias), ĥ = bias + Σ z_i·atoms_i."""
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    config = TopKSAEConfig(
        d_in=atoms.shape[1],
        d_sae=atoms.shape[0],
        k=k,
        normalize_activations="none",
        rescale_acts_by_decoder_norm=False,
        metadata=SAEMetadata(**metadata),
    )
    with torch.random.fork_rng(devices=[]):  # its constructor draws weights, which are replaced at once
        sae = TopKSAE(config)
    sae.W_enc.data, sae.W_dec.data = encoder.T.contiguous(), atoms
    sae.b_enc.data, sae.b_dec.data = encoder_bias, bias
    return sae


def save(sae: SAE[Any] | TopKTrainingSAE, folder: Path) -> None:
    """Write SAELens's format, cfg.json and sae_weights.safetensors; `folder` appears only when it is complete."""
    from sae_lens.saes.sae import TrainingSAE

    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(sae, TrainingSAE):
        sae.save_inference_model(unfinished)
    else:
        sae.save_model(unfinished)
    unfinished.replace(folder)


def load(
    folder: Path, identity: ModelIdentity, layer: int, device: torch.device, of: str | None = None
) -> Dictionary:
    """The dictionary in `folder`, proved to belong to this model's layer, or to the model `of` (see `check`).

    Raises NormprobeError if the folder holds no dictionary or a damaged one, or as `check` and `Dictionary.of` do.
    """
    from sae_lens import SAE

    # JSON, safetensors, SAELens's own checks and torch's: errors with no base class in common.
    with refusing_damage(f"a readable dictionary in {folder}", "train or copy it again", Exception):
        sae = read_other(folder)
    if sae is None:
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise NormprobeError(
                    f"expected a dictionary of SAELens, sparsify or dictionary_learning in {folder}, got no {name}; "
                    "name a folder that has it"
                )
        with refusing_damage(f"a readable dictionary in {folder}", "train or copy it again", Exception):
            _check_size(folder)
            sae = SAE.load_from_disk(folder, device=str(device))
    check(sae, identity, layer, str(folder), of=of)
    return Dictionary.of(sae.to(device))


def _check_size(folder: Path) -> None:
    """Raises ValueError if cfg.json and the weights are of other sizes: SAELens makes room for what the former says."""
    config = read_json(folder / CONFIG)
    with safe_open(folder / WEIGHTS, "pt") as weights:
        shape = weights.get_slice("W_dec").get_shape()
    if shape != [config["d_sae"], config["d_in"]]:
        raise ValueError(f"{config['d_sae']} × {config['d_in']} in {CONFIG}, {shape} in {WEIGHTS}")


def layers_of(given: str, layers: Sequence[int]) -> list[int]:
    """Those of `layers` that `given` has: of a folder those that a folder in it is called after, of a release all.

    Raises NormprobeError if that is none, if two folders are of one layer, and as `dictionaries_folder`.
    """
    folder = dictionaries_folder(given)
    if folder is None:
        return list(layers)
    found = _folders(folder)
    if not (shared := sorted(found.keys() & set(layers))):
        names = ", ".join(found[layer].name for layer in sorted(found)) or "none"
        raise NormprobeError(
            f"expected folders such as layer_NN or layers.N of the layers {min(layers)} to {max(layers)} in "
            f"{folder}, got {names}; name another folder"
        )
    return shared


def _folders(folder: Path) -> dict[int, Path]:
    """Layer → the folder of its dictionary. Raises NormprobeError for two of one layer."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (layer := layer_of(path.name)) is not None:
            if layer in found:
                raise NormprobeError(
                    f"expected one dictionary of layer {layer} in {folder}, got {found[layer].name} and {path.name}; "
                    "move one away"
                )
            found[layer] = path
    return found


def open_given(
    given: str, identity: ModelIdentity, layer: int, device: torch.device, of: str | None = None
) -> Dictionary:
    """The dictionary of one layer out of `given`, checked.

    of: the model that the dictionaries are of, if the user names another than this one.
    Raises NormprobeError as `layers_of` and `load` do, or if a release has no such dictionary or cannot be reached.
    """
    if (folder := dictionaries_folder(given)) is not None:
        place = _folders(folder).get(layer, layer_folder(folder, layer))
        return load(trainer_folder(place), identity, layer, device, of)
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    release, _, pattern = given.partition(":")
    sae_id = pattern.replace("{layer}", str(layer))
    known = get_pretrained_saes_directory().get(release)
    # Unknown release or id, no network, damaged: no base class in common.
    expected = f"the published dictionary {release}:{sae_id}"
    with refusing_damage(expected, "check release, id and connection", Exception):
        sae = SAE.from_pretrained(release, sae_id, device=str(device))
    # The metadata of some releases name the base model their authors started from; SAELens's list knows better.
    check(sae, identity, layer, f"{release}:{sae_id}", model_name=known.model if known else None, of=of)
    return Dictionary.of(sae)
