"""Sentences of a thought: their spans follow one another, in words of the testbed and in byte-level text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from normprobe.experiments.sentences import first_sentence, sentence_spans
from normprobe.models.chat import Chat
from normprobe.problems.testbed.tokenizer import build_tokenizer


def byte_level_chat() -> Chat:
    """A chat of bytes that merges `.` with the line break after it, as real tokenizers do."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, ".Ċ"])}
    tokenizer = Tokenizer(BPE(vocabulary, [(".", "Ċ")]))
    whole = ByteLevel(add_prefix_space=False, use_regex=False)  # else no token would reach across a line
    tokenizer.pre_tokenizer, tokenizer.decoder = whole, ByteLevelDecoder()
    tokenizer.add_special_tokens(
        [AddedToken("<end>", special=True), AddedToken("<think>"), AddedToken("</think>")]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = (
        "{{ messages[-1].content }}{% if enable_thinking is defined and not enable_thinking %}"
        "<think></think>{% endif %}"
    )
    return Chat(fast, [])


CHAT = byte_level_chat()
WORDS = build_tokenizer()


def ids_of(text: str) -> list[int]:
    return list(CHAT._tokenizer(text, add_special_tokens=False)["input_ids"])


def texts(text: str) -> list[str]:
    ids = ids_of(text)
    return [CHAT.text(ids[first:after]) for first, after in sentence_spans(CHAT, ids, 0, len(ids))]


@pytest.mark.parametrize(
    "sentences",
    [
        ["It is 3.5 km.", " So 7!", " Then?", " what is left"],
        ["First line\n", "second line.\n", "third."],
        ["1. Add 2 and 3.\n", "2) Double it."],
        ['He says "yes."', " (Why?)", " Well;", " so."],
        ["答案是三。", "所以是六。"],
        ["no end at all"],
    ],
)
def test_where_a_sentence_ends(sentences):
    assert texts("".join(sentences)) == sentences


@given(st.text(alphabet='ab1.;!?\n "é', max_size=30))
def test_spans_follow_one_another_and_cover_the_thought(text):
    ids = [0, *ids_of(text), 0]
    spans = list(sentence_spans(CHAT, ids, 1, len(ids) - 1))
    assert [position for first, after in spans for position in range(first, after)] == list(
        range(1, len(ids) - 1)
    )
    assert all(first < after for first, after in spans)


def test_a_step_of_the_testbed_is_a_sentence_and_words_are_compared_without_case_and_space():
    chat = Chat(WORDS, [])
    thought = WORDS("plan : a ; next a: b *2 , b= 3 so a= 6 ;", add_special_tokens=False)["input_ids"]
    spans = list(sentence_spans(chat, thought, 0, len(thought)))
    assert [chat.text(thought[first:after]) for first, after in spans] == [
        "plan : a ;",
        "next a: b *2 , b= 3 so a= 6 ;",
    ]
    same = [ids_of(text) for text in ("So  it is 3. And", "\nso it is 3.\n")]
    assert {first_sentence(CHAT, ids, 0, len(ids)) for ids in same} == {"so it is 3."}
    assert first_sentence(CHAT, same[0], 3, 3) == first_sentence(CHAT, same[0], 3, -1) == ""
