"""The trainer of many autoencoders at once: against slow obvious sums and steps, and that it goes on exactly."""

import pytest
import torch

from normprobe.saes import active_rows, active_rows_numba, topk_trainer
from normprobe.saes.topk_trainer import TopKTrainer, Weights

SAES, ROWS, D, WIDTH, K, STEPS = 3, 40, 8, 24, 4, 20


def drawn(seed: int) -> tuple[Weights, torch.Tensor]:
    """Weights of random unit atoms, and batches of states, [step, sae, row, d]."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(SAES, WIDTH, D, generator=generator), dim=-1)
    bias = torch.randn(SAES, D, generator=generator)
    weights = Weights(atoms.clone(), 0.1 * torch.randn(SAES, WIDTH, generator=generator), atoms, bias)
    return weights, 3 * torch.randn(STEPS, SAES, ROWS, D, generator=generator)


def reference(weights: Weights, batches: torch.Tensor, lr: float) -> list[torch.Tensor]:
    """The same training by autograd through codes of full width, an autoencoder at a time; the losses of each."""
    losses = []
    for i in range(SAES):
        encoder, encoder_bias, atoms, bias = (
            t[i].clone().requires_grad_() for t in weights.tensors().values()
        )
        optimizer = torch.optim.Adam([encoder, encoder_bias, atoms, bias], lr=lr)
        silent, of_sae = torch.zeros(WIDTH), []
        for step, x in enumerate(batches[:, i]):
            codes = (x - bias) @ encoder.T + encoder_bias
            top = (codes * atoms.norm(dim=-1)).topk(K).indices
            z = torch.zeros_like(codes).scatter(-1, top, codes.gather(-1, top).relu())
            reconstruction = bias + z @ atoms
            loss = (reconstruction - x).square().sum(dim=-1).mean()
            dead = silent > topk_trainer.DEAD_AFTER
            auxiliary = torch.zeros(())
            if dead.any():
                k_aux, n_dead = D // 2, int(dead.sum())
                parts = (codes * atoms.norm(dim=-1)).masked_fill(~dead, -torch.inf)
                of_dead = parts.topk(min(k_aux, n_dead)).indices
                z_dead = torch.zeros_like(codes).scatter(-1, of_dead, codes.gather(-1, of_dead))
                missing = (x - reconstruction).detach()
                squares = (z_dead @ atoms - missing).square().sum(dim=-1).mean()
                auxiliary = min(n_dead / k_aux, 1.0) * squares
            optimizer.zero_grad()
            (loss + auxiliary).backward()
            torch.nn.utils.clip_grad_norm_([encoder, encoder_bias, atoms, bias], 1.0)
            optimizer.param_groups[0]["lr"] = lr * min(1.0, (STEPS - step) / (STEPS // 5))
            optimizer.step()
            silent += 1
            silent[(z > 0).any(dim=0)] = 0
            of_sae.append(loss.detach())
        losses.append(torch.stack(of_sae))
        for tensor, trained in zip(
            weights.tensors().values(), (encoder, encoder_bias, atoms, bias), strict=True
        ):
            tensor[i] = trained.detach()
    return losses


@pytest.mark.parametrize("kernels", [active_rows, active_rows_numba], ids=["torch", "numba"])
@pytest.mark.parametrize("dead_after", [1000, 2])
def test_a_training_is_that_of_autograd_through_all_codes(monkeypatch, dead_after, kernels):
    monkeypatch.setattr(topk_trainer, "DEAD_AFTER", dead_after)
    (weights, batches), (expected, _) = drawn(0), drawn(0)
    if dead_after == 2:  # some features never fire by themselves
        for tensor in (weights, expected):
            tensor.encoder_bias[:, :9] = -30
    trainer = TopKTrainer(weights, K, STEPS, 0.01, kernels)
    losses = torch.stack([trainer.step(x) for x in batches])
    for i, theirs in enumerate(reference(expected, batches, 0.01)):
        torch.testing.assert_close(losses[:, i], theirs, rtol=1e-4, atol=1e-4)
    for name, tensor in weights.tensors().items():
        torch.testing.assert_close(tensor, expected.tensors()[name], rtol=1e-3, atol=1e-4, msg=name)
    assert bool((trainer.silent > dead_after).any()) == (dead_after == 2)
    assert losses[-1].sum() < losses[0].sum()


@pytest.mark.parametrize("kernels", [active_rows, active_rows_numba], ids=["torch", "numba"])
def test_an_encoder_in_bfloat16_reads_rounded_states_and_weights_and_sums_in_float32(kernels):
    weights, (x, *_) = drawn(0)
    trainer = TopKTrainer(weights, K, STEPS, 0.01, kernels, bf16=True)
    expected = torch.empty(SAES, ROWS, WIDTH, dtype=torch.float64)
    for i in range(SAES):
        rounded = (x[i] - weights.bias[i]).bfloat16().double(), weights.encoder[i].bfloat16().double()
        expected[i] = (rounded[0] @ rounded[1].T + weights.encoder_bias[i]).relu()
    codes, feature = trainer._encode(x - weights.bias[:, None])
    chosen = (feature - WIDTH * torch.arange(SAES).repeat_interleave(ROWS)[:, None]).view(SAES, ROWS, K)
    torch.testing.assert_close(
        codes.view(SAES, ROWS, K).double(), expected.gather(-1, chosen), rtol=1e-5, atol=1e-5
    )
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_training_that_was_stopped_goes_on_bit_for_bit():
    (weights, batches), (whole, _) = drawn(1), drawn(1)
    trainer = TopKTrainer(whole, K, STEPS, 0.01)
    for x in batches:
        trainer.step(x)
    first = TopKTrainer(weights, K, STEPS, 0.01)
    for x in batches[:7]:
        first.step(x)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    second = TopKTrainer(drawn(2)[0], K, STEPS, 0.01)
    second.load(saved)
    for x in batches[7:]:
        second.step(x)
    for name, tensor in trainer.state().items():
        assert torch.equal(second.state()[name], tensor), name


def test_no_autoencoder_knows_of_another():
    (weights, batches), (alone, _) = drawn(3), drawn(3)
    trainer = TopKTrainer(weights, K, STEPS, 0.01)
    for x in batches:
        trainer.step(x)
    single = Weights(**{name: tensor[1:2].clone() for name, tensor in alone.tensors().items()})
    of_one = TopKTrainer(single, K, STEPS, 0.01)
    for x in batches:
        of_one.step(x[1:2])
    torch.testing.assert_close(single.atoms[0], weights.atoms[1], rtol=1e-4, atol=1e-5)


def test_unit_atoms_leave_every_reconstruction():
    weights, batches = drawn(4)
    weights.atoms *= torch.rand(SAES, WIDTH, 1, generator=torch.Generator().manual_seed(0)) + 0.5
    unit = weights.unit()
    unit.bias = unit.bias.clone()  # trained in place
    torch.testing.assert_close(unit.atoms.norm(dim=-1), torch.ones(SAES, WIDTH))
    losses = [TopKTrainer(w, K, STEPS, 0.01).step(batches[0]) for w in (weights, unit)]
    torch.testing.assert_close(*losses)
