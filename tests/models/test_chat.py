"""Chat modes on three kinds of template, and spans; what families of models do is in test_formats.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.models.thoughts import Spans
from normprobe.problems.testbed.tokenizer import build_tokenizer
from normprobe.thinking_formats import MODES

QWEN3 = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
R1 = (
    "{{ '<|begin|>' }}{% for message in messages %}{{ '<|User|>' + message.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)
PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"


def byte_level(template: str | None, think: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE that merges ' .', '..' and line breaks, as real ones do."""
    merges = [("Ġ", "."), (".", "."), ("Ċ", "Ċ")]
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    marks = ["<|begin|>", "<|im_start|>", "<|im_end|>", "<|User|>", "<|Assistant|>"]
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    if think:  # not special, as in Qwen3
        tokenizer.add_tokens(
            [AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|begin|>")
    fast.chat_template = template
    return fast


@pytest.fixture(scope="module")
def qwen3() -> Chat:
    return Chat(byte_level(QWEN3), [])


@pytest.fixture(scope="module")
def r1() -> Chat:
    return Chat(byte_level(R1), [])


@pytest.fixture(scope="module")
def testbed() -> Chat:
    return Chat(build_tokenizer(), [])


def text_of(chat: Chat, ids: list[int]) -> str:
    return chat._tokenizer.decode(ids)


def test_qwen3_leaves_the_thought_to_the_model(qwen3):
    assert text_of(qwen3, qwen3.prompt_ids("1+1?", "think")).endswith("<|im_start|>assistant\n")
    assert text_of(qwen3, qwen3.prompt_ids("1+1?", "no_think")).endswith("assistant\n<think>\n\n</think>\n\n")


def test_r1_gets_its_open_thought_closed(r1):
    assert text_of(r1, r1.prompt_ids("1+1?", "think")).endswith("<|Assistant|><think>\n")
    assert text_of(r1, r1.prompt_ids("1+1?", "no_think")).endswith("<|Assistant|><think>\n\n</think>\n\n")


def test_both_empty_thoughts_are_the_same_tokens(qwen3, r1):
    """What is appended is tokenized with the prompt: two line breaks are one token, as Qwen3's template has them."""
    suffix = len(qwen3.prompt_ids("?", "no_think")) - len(qwen3.prompt_ids("?", "think"))
    assert r1.prompt_ids("?", "no_think")[-suffix:] == qwen3.prompt_ids("?", "no_think")[-suffix:]


def test_the_testbed_renders_all_modes_itself(testbed):
    prompts = {
        mode: text_of(testbed, testbed.prompt_ids("math ?", mode, 3 * (mode == "filler"))) for mode in MODES
    }
    assert prompts["think"].endswith("assistant <think>")
    assert prompts["no_think"].endswith("assistant <think> </think>")
    assert prompts["filler"].endswith("assistant <think> . . . </think>")


@pytest.mark.parametrize("name", ["qwen3", "r1", "testbed"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_filler_thinks_as_many_tokens_as_asked(name, n, request):
    chat = request.getfixturevalue(name)
    ids = chat.prompt_ids("?", "filler", n)
    start, end = chat.spans(ids, len(ids)).thought
    assert ids[start:end] == [chat.filler_id] * n


@pytest.mark.parametrize("name", ["qwen3", "r1", "testbed"])
def test_no_filler_is_no_thought(name, request):
    chat = request.getfixturevalue(name)
    assert chat.prompt_ids("?", "filler", 0) == chat.prompt_ids("?", "no_think")


@pytest.mark.parametrize("name", ["qwen3", "r1", "testbed"])
def test_prompts_are_not_given_a_second_beginning(name, request):
    chat = request.getfixturevalue(name)
    begin = chat._tokenizer.convert_tokens_to_ids("<|begin|>")
    for mode in MODES:
        assert chat.prompt_ids("?", mode).count(begin) == (1 if name == "r1" else 0)


words = st.lists(st.sampled_from("math of is note plan ; : ?".split()), max_size=8)


@given(thought=words, answer=words, padding=st.integers(0, 3), wrote_open=st.booleans())
def test_spans_of_a_response_are_its_thought_and_answer(thought, answer, padding, wrote_open):
    """Whether the prompt or the model opened the thought, and however much padding follows the end."""
    chat = Chat(build_tokenizer(), [])
    word = chat._tokenizer.convert_tokens_to_ids
    prompt = chat.prompt_ids("math ?", "think")
    prompt = prompt[:-1] if wrote_open else prompt
    opening = word(["<think>"]) if wrote_open else []
    ids = [
        *prompt,
        *opening,
        *word(thought),
        *word(["</think>"]),
        *word(answer),
        chat.eos_ids[0],
        *[chat.pad_id] * padding,
    ]
    start = len(prompt) + len(opening)
    after = start + len(thought) + 1
    assert chat.spans(ids, len(prompt)) == Spans(
        (start, start + len(thought)) if thought else (-1, -1),
        (after, after + len(answer)) if answer else (-1, -1),
        truncated=False,
    )


@given(thought=words, ended=st.booleans())
def test_a_thought_that_is_never_closed_is_truncated(thought, ended):
    chat = Chat(build_tokenizer(), [])
    prompt = chat.prompt_ids("math ?", "think")
    ids = [*prompt, *chat._tokenizer.convert_tokens_to_ids(thought), *([chat.eos_ids[0]] if ended else [])]
    spans = chat.spans(ids, len(prompt))
    assert spans.truncated
    assert spans.answer == (-1, -1)
    assert spans.thought == ((len(prompt), len(prompt) + len(thought)) if thought else (-1, -1))


def test_white_space_around_thought_and_answer_is_format(qwen3):
    prompt = qwen3.prompt_ids("1+1?", "think")
    ids = [*prompt, *qwen3._encode("<think>\nadd them\n</think>\n\nIt is 2.<|im_end|>")]
    spans = qwen3.spans(ids, len(prompt))
    assert text_of(qwen3, ids[slice(*spans.thought)]) == "add them"
    assert qwen3.response_text(ids[slice(*spans.answer)]) == "It is 2."
    assert text_of(qwen3, ids[slice(*spans.answer)]) == "It is 2."


def test_the_answer_without_thought_is_the_whole_response(qwen3):
    for mode in ("think", "no_think"):  # a thinking model may also answer at once
        prompt = qwen3.prompt_ids("1+1?", mode)
        ids = [*prompt, *qwen3._encode("2<|im_end|>")]
        assert qwen3.spans(ids, len(prompt)) == Spans(
            (-1, -1), (len(prompt), len(prompt) + 1), truncated=False
        )


def test_a_thought_that_is_only_closed_began_with_the_response(qwen3):
    prompt = qwen3.prompt_ids("1+1?", "think")
    ids = [*prompt, *qwen3._encode("ab</think>2")]
    assert qwen3.spans(ids, len(prompt)) == Spans(
        (len(prompt), len(prompt) + 2), (len(prompt) + 3, len(prompt) + 4), truncated=False
    )


def test_the_answer_is_what_follows_the_last_close(qwen3):
    prompt = qwen3.prompt_ids("1+1?", "think")
    ids = [*prompt, *qwen3._encode("<think>a</think>b</think>c")]
    spans = qwen3.spans(ids, len(prompt))
    assert text_of(qwen3, ids[slice(*spans.thought)]) == "a"
    assert text_of(qwen3, ids[slice(*spans.answer)]) == "c"


def test_a_thought_after_the_answer_that_never_ends_is_truncated(qwen3):
    prompt = qwen3.prompt_ids("1+1?", "think")
    ids = [*prompt, *qwen3._encode("<think>a</think>2, wait<think>no")]
    spans = qwen3.spans(ids, len(prompt))
    assert text_of(qwen3, ids[slice(*spans.thought)]) == "a"
    assert (spans.answer, spans.truncated) == ((-1, -1), True)


def test_end_ids_come_from_model_and_tokenizer():
    tokenizer = byte_level(QWEN3)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert Chat(tokenizer, [begin]).eos_ids == tuple(sorted((begin, end)))


@pytest.mark.parametrize(
    "tokenizer, told",
    [
        (byte_level(PLAIN), "thinking mode"),
        (byte_level(None), "chat template"),
        (byte_level("{% if %}"), "renders"),
    ],
)
def test_a_tokenizer_that_cannot_think_is_refused(tokenizer, told):
    with pytest.raises(NormprobeError, match=told) as refusal:
        Chat(tokenizer, [])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "question, mode, n, told",
    [
        ("?", "ponder", 0, "mode"),
        ("?", "filler", -1, "n_filler"),
        ("?", "think", 2, "n_filler"),
        ("</think>", "think", 0, "without"),
        ("a<|im_end|>b", "think", 0, "control token"),
    ],
)
def test_impossible_prompts_are_refused(qwen3, question, mode, n, told):
    with pytest.raises(NormprobeError, match=told):
        qwen3.prompt_ids(question, mode, n)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=20))
def test_pieces_are_the_text_token_by_token(qwen3, testbed, text):
    """Also where one character takes several tokens, each of them alone no text."""
    ids = qwen3._encode(f"<think>{text}")
    pieces = qwen3.pieces(ids)
    assert len(pieces) == len(ids)
    assert pieces[0] == "<think>"
    assert "".join(pieces) == qwen3.text(ids)
    question = testbed.prompt_ids("math : a= 4 ; b: a +9 ; ? b", "think")
    assert "".join(testbed.pieces(question)) == testbed.text(question)


def test_a_character_that_is_never_completed_is_left_out(qwen3):
    ids = qwen3._encode("aé")
    assert qwen3.pieces(ids) == ["a", "", "é"]
    assert qwen3.pieces(ids[:2]) == ["a", ""]
