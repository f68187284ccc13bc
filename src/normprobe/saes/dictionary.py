"""Dictionaries on disk: SAELens's format in and out, published ones, and the random one that serves as a control."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from normprobe.errors import NormprobeError

if TYPE_CHECKING:
    from sae_lens import SAE


@dataclass(frozen=True)
class Dictionary:
    """A sparse autoencoder that reads raw activations of one layer. Codes are in activation units: atoms have length one.

    `sae` is SAELens's own object; `length` holds the lengths its decoder's atoms have there (all one for ours).
    """

    sae: SAE[Any]
    length: Float[torch.Tensor, " width"]

    @property
    def width(self) -> int:
        return len(self.length)

    @property
    def atoms(self) -> Float[torch.Tensor, "width d"]:
        """Decoder directions of length one."""
        return self.sae.W_dec.detach() / self.length[:, None]

    @property
    def bias(self) -> Float[torch.Tensor, " d"]:
        """What the decoder adds to every reconstruction."""
        return self.sae.b_dec.detach()

    @torch.no_grad()
    def encode(self, states: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n width"]:
        """z ≥ 0 with states ≈ z @ atoms + bias."""
        return self.sae.encode(states) * self.length

    @torch.no_grad()
    def decode(self, z: Float[torch.Tensor, "n width"]) -> Float[torch.Tensor, "n d"]:
        return z @ self.atoms + self.bias


def hook_name(layer: int) -> str:
    """The site's name in TransformerLens, by which SAELens's metadata tells layers apart."""
    return f"blocks.{layer}.hook_resid_post"


def save_topk(
    folder: Path,
    *,
    w_enc: Float[torch.Tensor, "d width"],
    b_enc: Float[torch.Tensor, " width"],
    w_dec: Float[torch.Tensor, "width d"],
    b_dec: Float[torch.Tensor, " d"],
    k: int,
    metadata: dict[str, Any],
) -> None:
    """Write cfg.json and sae_weights.safetensors; `sae_lens.SAE.load_from_disk(folder)` gives the same weights bit by bit."""
    from sae_lens import TopKSAE, TopKSAEConfig, __version__
    from sae_lens.saes.sae import SAEMetadata

    d, width = w_enc.shape
    config = TopKSAEConfig(
        d_in=d,
        d_sae=width,
        k=k,
        apply_b_dec_to_input=True,
        normalize_activations="none",
        rescale_acts_by_decoder_norm=False,
        # Without its version SAELens drops all metadata silently.
        metadata=SAEMetadata(sae_lens_version=__version__, **metadata),
    )
    with torch.random.fork_rng(devices=[]):  # its constructor draws weights, which are replaced at once
        sae = TopKSAE(config)
    weights = {"W_enc": w_enc, "b_enc": b_enc, "W_dec": w_dec, "b_dec": b_dec}
    sae.load_state_dict({name: weight.cpu() for name, weight in weights.items()})
    sae.save_model(str(folder))


def save_random(
    folder: Path, d: int, width: int, k: int, generator: torch.Generator, metadata: dict[str, Any]
) -> None:
    """A control of the same shape that learned nothing: random unit atoms, the encoder their transpose, TopK."""
    atoms = torch.randn(width, d, generator=generator)
    atoms /= atoms.norm(dim=-1, keepdim=True)
    save_topk(
        folder,
        w_enc=atoms.T.contiguous(),
        b_enc=torch.zeros(width),
        w_dec=atoms,
        b_dec=torch.zeros(d),
        k=k,
        metadata=metadata,
    )


def load_dictionary(folder: Path, device: str | torch.device = "cpu") -> Dictionary:
    """A dictionary in SAELens's format. Raises NormprobeError if it is missing or damaged."""
    from sae_lens import SAE

    try:
        sae = SAE.load_from_disk(str(folder), device=str(device))
    except Exception as error:  # SAELens lets KeyError, OSError, SafetensorError … through
        raise NormprobeError(
            f"expected a dictionary in SAELens's format (cfg.json, sae_weights.safetensors) in {folder}, "
            f"got an unreadable one ({' '.join(str(error).split())[:120]}); train or copy it again"
        ) from error
    return _checked(sae, str(folder))


def load_published(release: str, sae_id: str, device: str | torch.device = "cpu") -> Dictionary:
    """A published dictionary through `SAE.from_pretrained` (asks a hub). Raises NormprobeError if it cannot be had."""
    from sae_lens import SAE

    try:
        sae = SAE.from_pretrained(release, sae_id, device=str(device))
    except Exception as error:
        raise NormprobeError(
            f"expected a published dictionary {release}/{sae_id}, got none ({' '.join(str(error).split())[:120]}); "
            "check release, id and network, or train your own"
        ) from error
    return _checked(sae, f"{release}/{sae_id}")


def require_fit(dictionary: Dictionary, *, layer: int, d: int, model: str | None, where: str) -> None:
    """Raise NormprobeError unless the dictionary was made for this layer, width and (where it says so) model."""
    config = dictionary.sae.cfg
    if config.d_in != d:
        raise NormprobeError(
            f"expected a dictionary of width {d} for {where}, got one of width {config.d_in}; choose another"
        )
    hook = str(config.metadata.hook_name or "")
    sites = {hook_name(layer), f"model.layers.{layer}", f"blocks.{layer}.hook_out"}
    if hook and hook not in sites:
        raise NormprobeError(
            f"expected a dictionary of {hook_name(layer)} for {where}, got one of {hook}; choose another"
        )
    made_for = str(config.metadata.model_name or "")
    if (
        model is not None
        and made_for
        and made_for.rpartition("/")[2].lower() != model.rpartition("/")[2].lower()
    ):
        raise NormprobeError(
            f"expected a dictionary of the model {model} for {where}, got one of {made_for}; choose another"
        )


def _checked(sae: SAE[Any], where: str) -> Dictionary:
    if sae.cfg.normalize_activations in ("constant_norm_rescale", "layer_norm"):
        raise NormprobeError(
            f"expected a dictionary that reads norms, got normalize_activations={sae.cfg.normalize_activations!r} in {where}, "
            "which rescales every token; choose one with 'none' or 'expected_average_only_in'"
        )
    if not all(bool(torch.isfinite(p).all()) for p in sae.parameters()):
        raise NormprobeError(
            f"expected finite weights in the dictionary {where}, got NaN or infinity; train it again"
        )
    length = sae.W_dec.detach().norm(dim=-1)
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        length = torch.ones_like(length)  # such codes are in units of length-one atoms already
    return Dictionary(sae.eval(), length)
