"""The header of a GGUF file: the sizes in it, and refusals of what is none."""

import json

import pytest

pytest.importorskip("gguf")

from gguf_fixture import FF, HEADS, KV, MARKS, N_LAYERS, D, write_gguf

from normprobe.errors import NormprobeError
from normprobe.gguf_header import sizes_of
from normprobe.local_files import configuration_of
from normprobe.reading_plan import Shape


def test_sizes_are_those_that_were_written(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    assert sizes_of(tmp_path / "tiny.gguf") == {
        "model_type": "llama",
        "num_hidden_layers": N_LAYERS,
        "hidden_size": D,
        "intermediate_size": FF,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "vocab_size": 257 + len(MARKS),
        "tie_word_embeddings": True,
    }
    assert Shape.of(sizes_of(tmp_path / "tiny.gguf"), 4).head_dim == D // HEADS


@pytest.mark.parametrize("keep", [0, 3, 20, 24, 40, 300])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, keep):
    write_gguf(tmp_path / "tiny.gguf")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes((tmp_path / "tiny.gguf").read_bytes()[:keep])
    with pytest.raises(
        NormprobeError, match=r"expected a GGUF file in .*damaged\.gguf, got .*; download it again"
    ):
        sizes_of(damaged)


def test_another_format_and_absurd_lengths_are_refused(tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGML" + bytes(40))
    with pytest.raises(NormprobeError, match="expected GGUF of version 2 or newer"):
        sizes_of(other)
    other.write_bytes(
        b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little") + b"\xff" * 8
    )
    with pytest.raises(NormprobeError, match="download it again"):
        sizes_of(other)


def test_an_adapter_has_the_sizes_of_its_base(tmp_path):
    base, adapter = tmp_path / "base.gguf", tmp_path / "adapter"
    write_gguf(base)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert configuration_of(str(adapter)) == sizes_of(base)
    assert configuration_of("nobody/nowhere") is None
