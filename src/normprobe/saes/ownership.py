"""Whether a dictionary belongs to a model and a layer: by the model's weights, else by its whole name."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from normprobe.errors import NormprobeError
from normprobe.models.identity import ModelIdentity
from normprobe.saes.hook_names import hook_name, layer_of

if TYPE_CHECKING:
    from sae_lens import SAE


def check(
    sae: SAE[Any],
    identity: ModelIdentity,
    layer: int,
    place: str,
    *,
    model_name: str | None = None,
    of: str | None = None,
) -> None:
    """Raises NormprobeError if the dictionary is of another width, site or model, naming expected and got.

    Ours carry the model's fingerprint. Those of others carry a name (`model_name`, else what the metadata say), which
    has to be the model's hub id; TransformerLens's short names are known. of: the user's word that the dictionaries
    are of the model of this name, from which this one was trained (or that it is this one, in a folder).
    """
    metadata = sae.cfg.metadata
    model = metadata.model if isinstance(metadata.model, dict) else {}
    hook, name = str(metadata.hook_name), str(model.get("name") or model_name or metadata.model_name)
    _equal("width", identity.d_model, sae.cfg.d_in, place, "name the dictionaries of this model")
    at = layer_of(hook)
    _equal("site", hook_name(layer), hook if at is None else hook_name(at), place, "name those of this layer")
    if model.get("weights") == identity.weights:
        return
    if of is not None:
        if not same_model(of, name):
            _equal("model", of, name, place, "correct --saes-of or name others")
        return
    advice = (
        "name the dictionaries of this model, or if this model was trained from that one, or is that one in a folder, "
        f"say so: --saes-of {name}"
    )
    if "weights" in model:
        _equal("the model's fingerprint", identity.weights[:12], str(model["weights"])[:12], place, advice)
    elif not same_model(identity.name, name):
        _equal("model", identity.name, name, place, advice)


def same_model(one: str, other: str) -> bool:
    """Whether two names are of one model of the hub; TransformerLens's short names are known."""
    return _full(one) == _full(other)


def _full(name: str) -> str:
    if "/" not in name:
        from transformer_lens.loading_from_pretrained import get_official_model_name

        with suppress(ValueError):  # unknown there
            name = get_official_model_name(name)
    return name.lower()


def _equal(what: str, expected: object, got: object, place: str, advice: str) -> None:
    if expected != got:
        raise NormprobeError(f"expected a dictionary with {what} {expected}, got {got} in {place}; {advice}")
