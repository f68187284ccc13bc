"""Our trainer against SAELens's: from the same weights and batches, the same autoencoders."""

import math

import pytest
import torch
from sae_lens import LoggingConfig, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig

from normprobe.saes.topk_trainer import TopKTrainer, Weights
from normprobe.saes.training import generator_for, learning_rate, shuffled

D, WIDTH, K, ROWS, STEPS = 32, 96, 4, 64, 400


@pytest.fixture
def states() -> torch.Tensor:
    """Two sites of sparse mixtures, [sae, row, d], at a mean norm of √d."""
    generator = generator_for("states")
    atoms = torch.nn.functional.normalize(torch.randn(2, 64, D, generator=generator), dim=-1)
    codes = torch.rand(2, 3000, 64, generator=generator)
    codes *= torch.rand(2, 3000, 64, generator=generator) < 0.05
    found = codes @ atoms + 0.5
    return math.sqrt(D) * found / found.norm(dim=-1).mean(dim=1)[:, None, None]


def theirs_of(site: torch.Tensor, dead_after: int) -> tuple[TopKTrainingSAE, SAETrainer]:
    """An autoencoder of one site and its trainer; a third of the features begin dead."""
    settings = {
        "d_in": D,
        "d_sae": WIDTH,
        "k": K,
        "rescale_acts_by_decoder_norm": True,
        "decoder_init_norm": 1.0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**settings))
    sae.b_dec.data = site.mean(dim=0)
    sae.b_enc.data[: WIDTH // 3] = -4
    lr = learning_rate(WIDTH)
    config = SAETrainerConfig(
        total_training_samples=STEPS * ROWS,
        train_batch_size_samples=ROWS,
        lr=lr,
        lr_end=lr,
        lr_decay_steps=STEPS // 5,
        dead_feature_window=dead_after,
        device="cpu",
        logger=LoggingConfig(log_to_wandb=False),
    )
    return sae, SAETrainer(cfg=config, sae=sae, data_provider=iter(()))


@pytest.mark.parametrize("dead_after", [1000, 30])
def test_the_same_autoencoders_are_learnt(states, monkeypatch, dead_after):
    monkeypatch.setattr("normprobe.saes.topk_trainer.DEAD_AFTER", dead_after)
    theirs = [theirs_of(site, dead_after) for site in states]
    parts = zip(*((s.W_enc.T, s.b_enc, s.W_dec, s.b_dec) for s, _ in theirs), strict=True)
    weights = Weights(*(torch.stack([t.detach().clone() for t in tensors]).contiguous() for tensors in parts))
    ours, batches = (
        TopKTrainer(weights, K, STEPS, learning_rate(WIDTH)),
        shuffled(3000, ROWS, generator_for(0)),
    )
    for _ in range(STEPS):
        x = states[:, next(batches)]
        losses = ours.step(x)
        for site, (_, trainer) in zip(x, theirs, strict=True):
            loss = trainer.step(site).losses["mse_loss"]
            trainer.n_training_steps += 1
        if ours.done <= 10:
            assert losses[1] == pytest.approx(loss.item(), rel=1e-4)
    test, unit = states[:, :1000], weights.unit()
    for i, (sae, _) in enumerate(theirs):
        with torch.no_grad():
            residual = test[i] - sae(test[i])
            parts = torch.addmm(unit.encoder_bias[i], test[i] - unit.bias[i], unit.encoder[i].T)
            top = parts.topk(K)
            z = torch.zeros_like(parts).scatter(1, top.indices, top.values.relu())
            of_ours = test[i] - (unit.bias[i] + z @ unit.atoms[i])
            expected = sae.encode(test[i])
        total = (test[i] - test[i].mean(dim=0)).square().sum()
        r2, expected_r2 = (1 - float(r.square().sum() / total) for r in (of_ours, residual))
        assert r2 > 0.3
        assert r2 == pytest.approx(expected_r2, abs=0.005)
        # The same features: rounding grows over 400 steps, which ones fire hardly moves.
        torch.testing.assert_close(z.sum(dim=1).mean(), expected.sum(dim=1).mean(), rtol=0.01, atol=0)
        assert ((z > 0) == (expected > 0)).float().mean() > 0.99
        alive = (z > 0).any(dim=0)
        assert (alive == (expected > 0).any(dim=0)).float().mean() > 0.95
        assert bool(alive[: WIDTH // 3].any()) == (dead_after == 30)  # AuxK alone revives the dead
