"""Hook names of one site are one site, and those of other points of a network are none."""

import pytest

from normprobe.saes.hook_names import hook_name, layer_of


@pytest.mark.parametrize(
    "name",
    [
        "blocks.9.hook_resid_post",
        "blocks.9.hook_out",
        "blocks.10.hook_resid_pre",
        "model.layers.9",
        "model.layers.9.output",
        "model.layers.10.input",
        "layers.9",
        "layers_9",
        "layers.9.output.0",
        "model.language_model.layers.9",
        "base_model.model.model.layers.9",
        "transformer.h.9",
        "gpt_neox.layers.9",
        "resid_post_layer_9",
        "resid_post_9",
        "layer_09",
        "layer_9",
    ],
)
def test_a_name_of_the_site_after_block_9(name):
    assert layer_of(name) == 9


@pytest.mark.parametrize(
    "name",
    [
        "blocks.9.hook_mlp_out",
        "blocks.9.attn.hook_z",
        "blocks.9.hook_resid_mid",
        "blocks.0.hook_resid_pre",
        "layers.9.mlp",
        "model.layers.9.self_attn",
        "mlp_out_layer_9",
        "attn_out_layer_9",
        "embed_tokens",
        "layer_final",
        "config.json",
        "None",
        "",
    ],
)
def test_no_such_site(name):
    assert layer_of(name) is None


def test_our_own_name_is_read():
    assert [layer_of(hook_name(layer)) for layer in range(12)] == list(range(12))
