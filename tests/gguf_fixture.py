"""A tiny GGUF file of a Llama over bytes, with a chat template that thinks; what it holds, to compare with."""

from pathlib import Path

import gguf
import numpy as np

N_LAYERS, D, HEADS, KV, FF = 2, 32, 4, 2, 64
MARKS = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def byte_tokens() -> list[str]:
    """The 256 bytes as byte-level BPE writes them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(shifted)) for byte in range(256)]


def write_gguf(path: Path, quantized: bool = False) -> dict[str, np.ndarray]:
    """Write the file; returns its matrices as written (dequantized). The unembedding is tied to the embedding."""
    tokens = [*byte_tokens(), "ab", *MARKS]
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(D)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * len(MARKS))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|im_end|>"))
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd.weight": (len(tokens), D), "output_norm.weight": (D,)}
    for layer in range(N_LAYERS):
        for name, shape in {
            "attn_norm": (D,),
            "ffn_norm": (D,),
            "attn_q": (D, D),
            "attn_k": (D * KV // HEADS, D),
            "attn_v": (D * KV // HEADS, D),
            "attn_output": (D, D),
            "ffn_gate": (FF, D),
            "ffn_up": (FF, D),
            "ffn_down": (D, FF),
        }.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
    written = {}
    for name, shape in shapes.items():
        value = (draw.normal(size=shape) * 0.2 if len(shape) > 1 else np.ones(shape)).astype(np.float32)
        if quantized and len(shape) > 1:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(value, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            value = gguf.quants.dequantize(packed, kind)
        else:
            writer.add_tensor(name, value)
        written[name] = value
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written
