"""Fresh random weights from an explicit generator: the untrained twin of a model, and the testbed's step zero."""

import torch
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def initialise(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Overwrite every parameter of `model` in place, in state-dict order.

    Matrices and embeddings ~ normal(0, `config.initializer_range`); biases 0; norms the identity
    (weight 1, or 0 where the norm multiplies by 1 + weight, as in Gemma). Tied weights are drawn once.
    Draws are float32 on the generator's device, so the result depends on neither the model's dtype nor its device.
    """
    std: float = getattr(model.config.get_text_config(), "initializer_range", 0.02)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim == 1 and name.endswith(".weight"):
            parameter.fill_(_identity_weight(model.get_submodule(name.removesuffix(".weight")), parameter))
        else:
            draw = torch.randn(
                parameter.shape, generator=generator, device=generator.device, dtype=torch.float32
            )
            parameter.copy_(std * draw)


def _identity_weight(norm: nn.Module, weight: torch.Tensor) -> float:
    """The weight with which `norm` leaves scales alone: one that still hears its input at 0 computes 1 + weight."""
    weight.zero_()
    probe = torch.ones_like(weight)[None]
    return 1.0 if torch.equal(norm(probe), norm(-probe)) else 0.0
