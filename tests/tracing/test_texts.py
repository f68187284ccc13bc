"""`normprobe.trace(model, texts)`: a tidy table of what tracing finds, of any model that is or can be opened."""

import numpy as np
import pandas as pd
import pytest
from tokenizers.processors import TemplateProcessing

import normprobe
from normprobe.errors import NormprobeError
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.tracing.trace import replay

TEXTS = ["a= 4 ; b: a +9", "<think> a= 4 so b= 2 </think> answer : 2"]


def test_the_table_holds_every_signal_of_every_token_and_layer(make_tiny_qwen3):
    """The model is one that the caller holds, with its tokenizer."""
    network, tokenizer = make_tiny_qwen3(), build_tokenizer()
    table = normprobe.trace(network, TEXTS, tokenizer=tokenizer, progress=False)
    opened = normprobe.open_model(network, tokenizer)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    assert len(table) == 4 * sum(map(len, ids))
    values = replay(opened, pd.DataFrame({"token_ids": ids, "split": "measure"}), progress=False)
    for name, value in values.items():
        for layer in range(4):
            expected = value[layer] if value.ndim == 2 else value
            np.testing.assert_array_equal(table.loc[table["layer"] == layer, name], expected)
    one = table[table["layer"] == 2]
    assert list(one["token_id"]) == [*ids[0], *ids[1]]
    assert list(one["text"]) == [0] * len(ids[0]) + [1] * len(ids[1])
    for number, text in enumerate(TEXTS):
        assert "".join(one.loc[one["text"] == number, "token"]) == text
    second = one[one["text"] == 1]
    spans = second.groupby("segment")["token"].agg("".join)
    assert (spans["thought"].strip(), spans["answer"].strip()) == ("a= 4 so b= 2", "answer : 2")
    assert set(one.loc[one["text"] == 0, "segment"]) == {"answer"}


@pytest.mark.parametrize("end", ["", " <|im_end|>"])
def test_the_segments_of_a_conversation_are_those_of_its_last_turn(tiny_qwen3, end):
    """Also where it is the prompt that opens and closes the thought."""
    opened = normprobe.open_model(tiny_qwen3, build_tokenizer(), check=False)
    for mode, response, thought in (
        ("think", "<think> a= 4 </think> answer : 2", "a= 4"),
        ("no_think", "answer : 2", ""),
    ):
        text = opened.chat.text(opened.chat.prompt_ids("a= 4 ; ? a", mode)) + f" {response}{end}"
        table = normprobe.trace(opened, text, progress=False)
        shown = table[table["layer"] == 0].groupby("segment")["token"].agg("".join)
        assert shown.get("thought", "").strip() == thought
        assert shown["answer"].strip() == "answer : 2"


def test_a_text_that_begins_with_the_special_token_gets_no_second_one(tiny_qwen3):
    tokenizer = build_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    for text in ("<|im_start|> user", " user"):
        table = normprobe.trace(tiny_qwen3, text, tokenizer=tokenizer, progress=False)
        assert list(table.loc[table["layer"] == 0, "token_id"]) == tokenizer.convert_tokens_to_ids(
            ["<|im_start|>", "user"]
        )


def test_a_single_text_and_a_name_will_do():
    table = normprobe.trace("tiny-thinker", TEXTS[0], progress=False)
    assert list(table["layer"].unique()) == list(range(12))
    assert table["norm"].gt(0).all()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "expected texts to read, got none"),
        (["a= 4", ""], "expected texts of 1 to 512 tokens, got 0 in text 1; leave it out"),
        (["; " * 600], "got 600 in text 0; shorten it"),
        (pd.DataFrame({"token_ids": [[1]], "split": ["measure"]}), "expected responses with their problems"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(texts, message, tiny_qwen3):
    with pytest.raises(NormprobeError, match=message):
        normprobe.trace(tiny_qwen3, texts, tokenizer=build_tokenizer(), progress=False)


def test_a_tokenizer_belongs_to_a_model_that_is_open(tiny_qwen3):
    with pytest.raises(NormprobeError, match="expected the tokenizer of a model"):
        normprobe.open_model(tiny_qwen3)
    with pytest.raises(NormprobeError, match="expected a tokenizer only with a Transformers model"):
        normprobe.open_model("tiny-thinker", build_tokenizer())
