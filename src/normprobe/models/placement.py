"""Where the parts of a model compute: on one device, or spread over GPUs, CPU and disk by accelerate."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

AUTO = "auto"


def device_of(module: nn.Module) -> torch.device:
    """Where a module's inputs have to be. Weights that lie elsewhere (accelerate's hooks fetch them) do not count."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return next(module.parameters()).device


def is_spread(model: nn.Module) -> bool:
    """Whether the model's parts lie on several devices."""
    return len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """Spread a model that is in memory over the GPUs that have room, the rest on the CPU, in place."""
    # accelerate takes long to import, and a model on one device does without it.
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory, get_max_memory

    whole = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    alike = list(model._no_split_modules or [])
    on_cpu = {"cpu": 2 * whole}  # it is in memory already, so nothing has to go to the disk
    room = get_balanced_memory(model, get_max_memory() | on_cpu, no_split_module_classes=alike) or {}
    dispatch_model(model, infer_auto_device_map(model, room | on_cpu, no_split_module_classes=alike))
    return model


def weights_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of every parameter, tied ones once; what is offloaded is fetched one module at a time."""
    if not is_spread(model):
        yield from ((name, parameter.detach()) for name, parameter in model.named_parameters())
        return
    from accelerate.utils import align_module_device

    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    for prefix, module in model.named_modules():
        with align_module_device(module):
            for name, parameter in module.named_parameters(prefix, recurse=False):
                if name not in tied:
                    yield name, parameter.detach()
