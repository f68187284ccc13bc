"""Plans of trainings from shapes alone, and that the memory they state is what a training holds."""

import json

import pytest
import torch
from test_reading_plan import QWEN3_8B

from normprobe.config import SaeSettings, Study
from normprobe.estimates import StudySizes
from normprobe.model_settings import ModelSettings
from normprobe.saes.dictionary import random_atoms
from normprobe.saes.topk_trainer import TopKTrainer, Weights
from normprobe.saes.training import generator_for
from normprobe.training_plan import TrainingPlan


def test_qwen3_8b_at_8_times_its_width_takes_several_gpus(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B))
    saes = SaeSettings(
        width=32_768, k=64, n_samples=50_000_000, batch_size=4096, memory_gb=64, trainer="normprobe"
    )
    study = Study(model=ModelSettings(str(tmp_path), dtype="bfloat16", device="cuda"), saes=saes)
    sizes = StudySizes.of(study, {"sae": 1, "select": 1, "measure": 1}, longest=1000)
    note, memory = sizes.training_note, sizes.gigabytes("saes")
    assert memory is not None
    assert memory > 64 + 174 + 2 * 16  # states, autoencoders, and two networks
    assert "36 layers of 32,768 features, k 64, 50,000,000 tokens: 4.9e+17 FLOP" in note
    assert (
        "4.8 GB a layer, 174 GB in all; with 80 GB 13 fit on one, so 3 GPUs or as many runs with --layers"
        in note
    )
    assert "at least 1.0 h" in note  # 4.9e17 / 495e12 + 9.2e15 / 3.35e12 seconds
    assert "215 chunks of 233,016 tokens" in note
    assert "at most about 215 times as often" in note
    assert "--cache would write up to 1.47e+04 GB a network" in note  # 5e7 × 36 × 4096 × 2 bytes


def test_a_plan_counts_what_a_training_holds():
    """Bytes of every tensor that is alive in a step, but the codes of one autoencoder, against the plan's."""
    layers, d, width, k, batch = 3, 32, 512, 4, 16
    plan = TrainingPlan(layers, d, width, k, 10**6, batch, 0, 10**6, 4)
    atoms = torch.stack([random_atoms(d, width, generator_for(i)) for i in range(layers)])
    weights = Weights(atoms.clone(), torch.zeros(layers, width), atoms.clone(), torch.zeros(layers, d))
    trainer = TopKTrainer(weights, k, 10, 0.01)
    x = torch.randn(layers, batch, d, generator=generator_for(0))
    trainer.step(x)
    with torch.profiler.profile(profile_memory=True) as profile:
        trainer.step(x)
    grown = highest = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            grown += event.nbytes()
            highest = max(highest, grown)
    held = sum(tensor.nbytes for tensor in trainer.state().values())  # weights and moments
    assert held + highest <= 1.1 * layers * plan.layer_bytes + 4 * batch * width
    assert held + highest > 0.7 * layers * plan.layer_bytes


@pytest.mark.parametrize("given", ["dictionaries", None])
def test_only_what_ours_trains_is_planned(tmp_path, given):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B))
    trainer = "normprobe" if given else "sae_lens"
    study = Study(model=ModelSettings(str(tmp_path)), saes=SaeSettings(given=given, trainer=trainer))
    assert StudySizes.of(study, {"sae": 1, "select": 1, "measure": 1}).training_note == ""
