"""The trainer of autoencoders on a GPU: the same training as on a CPU, and to the bit when it is repeated."""

from contextlib import nullcontext

import torch

from normprobe.saes import topk_trainer
from normprobe.saes.topk_trainer import TopKTrainer, Weights

SAES, ROWS, D, WIDTH, K, STEPS = 2, 64, 16, 64, 4, 40


def losses(device: torch.device) -> torch.Tensor:
    """Of every step, [step, sae]; a few features begin dead, so that AuxK has something to revive."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(SAES, WIDTH, D, generator=generator), dim=-1)
    encoder_bias = torch.zeros(SAES, WIDTH)
    encoder_bias[:, :9] = -30
    weights = Weights(atoms.clone(), encoder_bias, atoms, torch.zeros(SAES, D)).to(device)
    trainer = TopKTrainer(weights, K, STEPS, 0.01)
    found = [
        trainer.step(torch.randn(SAES, ROWS, D, generator=generator).to(device)).cpu() for _ in range(STEPS)
    ]
    return torch.stack(found)


def test_a_training_is_repeated_to_the_bit(device, monkeypatch):
    monkeypatch.setattr(topk_trainer, "DEAD_AFTER", 5)
    assert torch.equal(losses(device), losses(device))


def test_autoencoders_learn_as_on_a_cpu(device, monkeypatch):
    monkeypatch.setattr(topk_trainer, "DEAD_AFTER", 5)
    monkeypatch.setattr(topk_trainer, "_fast_products", lambda *_: nullcontext())
    found = losses(device)
    # Rounding grows from step to step.
    torch.testing.assert_close(found, losses(torch.device("cpu")), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found[:5], losses(torch.device("cpu"))[:5], rtol=1e-4, atol=1e-4)
    assert bool((found[-1] < found[0]).all())
