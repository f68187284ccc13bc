"""Thinking formats: the small stand-ins of thinking_formats.json, and every family of the table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from normprobe.errors import NormprobeError
from normprobe.models import read_template
from normprobe.models.chat import Chat
from normprobe.models.thoughts import ABSENT
from normprobe.thinking_formats import ELICITED, FORMATS, Ask, ThinkingFormat

CASES = json.loads(Path(__file__).with_name("thinking_formats.json").read_text())["cases"]
MERGES = "Ġ . , . . , Ċ Ċ , > ĊĊ , < / , t h , i n , in k , th ink , > < , >< /"
"""As real vocabularies have them: `</think>` and two line breaks become `</`, `think`, `>` with the line breaks."""


def tokenizer_of(template: str, marks: list[str], eos: str = "<E>") -> PreTrainedTokenizerFast:
    """A byte-level tokenizer in which only `marks` and the end are single tokens."""
    merges = [(a, b) for a, b in (pair.split() for pair in MERGES.split(" , "))]
    tokens = [*sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in [*marks, eos]])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos)
    fast.chat_template = template
    return fast


def chat_of(case: dict[str, Any], given: bool) -> tuple[PreTrainedTokenizerFast, Chat]:
    tokenizer = tokenizer_of(case["template"], case["single_token_marks"], case["eos"])
    return tokenizer, Chat(tokenizer, [], case["format"] if given else None)


def text(chat: Chat, ids: list[int]) -> str:
    return str(chat._tokenizer.decode(ids))


FOUND = [case for case in CASES if case["format"] and not case["format"]["think"].get("elicited")]
ALL = [
    (case, given) for given in (False, True) for case in CASES if case["format"] and (given or case in FOUND)
]
BY_NAME = [f"{case['name']}-{'given' if given else 'found'}" for case, given in ALL]


@pytest.mark.parametrize(("case", "given"), ALL, ids=BY_NAME)
def test_prompts_are_those_of_the_familys_template(case, given):
    tokenizer, chat = chat_of(case, given)
    for mode, expected in case["prompts"].items():
        ids = (
            chat.prompt_ids(case["question"], "filler", 3)
            if mode == "filler_3"
            else chat.prompt_ids(case["question"], mode)
        )
        assert tokenizer.decode(ids) == expected
    for mode in ("think", "no_think"):
        asked = case["format"][mode]
        how = "elicited" if asked.get("elicited") else "forced" if asked.get("forced") else "documented"
        assert chat.ask(mode).how == how


@pytest.mark.parametrize(("case", "given"), ALL, ids=BY_NAME)
def test_spans_are_the_thought_and_the_answer(case, given):
    tokenizer, chat = chat_of(case, given)
    for response in case["responses"]:
        prompt = chat.prompt_ids(case["question"], response["mode"])
        ids = prompt + tokenizer(response["text"], add_special_tokens=False)["input_ids"]
        for end in ([], [tokenizer.eos_token_id] * 2):
            spans = chat.spans([*ids, *end], len(prompt))
            thought, answer = (
                None if span == ABSENT else tokenizer.decode(ids[slice(*span)]).strip()
                for span in (spans.thought, spans.answer)
            )
            assert (thought, answer) == (response["thought"], response["answer"])
            assert (spans.truncated, spans.leaked) == (
                response["truncated"],
                response.get("leaked", False),
            )


@pytest.mark.parametrize("case", [case for case in CASES if case not in FOUND], ids=lambda case: case["name"])
def test_a_template_that_marks_no_thought_is_refused_whatever_the_vocabulary_holds(case):
    with pytest.raises(NormprobeError, match=r"--think-start.*--thinking-format elicited"):
        chat_of(case, given=False)


ROLES = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
HEAD = f"{ROLES}{{% if add_generation_prompt %}}<|im_start|>assistant\n"
EMPTY = "<think>\\n\\n</think>\\n\\n"


def switched(keyword: str, on: str, off: str, default: str = "true") -> str:
    """A template that ends in `on` or `off` as its keyword has it."""
    return (
        f"{{% if {keyword} is not defined %}}{{% set {keyword} = {default} %}}{{% endif %}}{HEAD}"
        f"{{{{ '{on}' if {keyword} else '{off}' }}}}{{% endif %}}"
    )


FAMILIES: dict[str, tuple[str, str, str, str, str]] = {
    # family: template, end of the think prompt, end of the no_think prompt, how, end of the prompt with two fillers
    "Qwen3": (switched("enable_thinking", "", EMPTY), "assistant\n", "assistant\n<think>\n\n</think>\n\n", "documented",
              "assistant\n<think>\n . .\n</think>\n\n"),
    "SmolLM3": (
        "{% set on = enable_thinking | default(true) %}<|im_start|>system\n{{ '/think' if on else '/no_think' }}<|im_end|>\n"  # noqa: E501
        + HEAD + "{{ '' if on else '<think>\\n\\n</think>\\n' }}{% endif %}",
        "assistant\n", "<think>\n\n</think>\n", "documented", "<think>\n . .\n</think>\n"),
    "GLM-4.5": (
        "{% for m in messages %}<|user|>\n{{ m.content }}{{ '/nothink' if enable_thinking is defined and not enable_thinking }}"  # noqa: E501
        "{% endfor %}<|assistant|>{{ '\\n<think></think>' if enable_thinking is defined and not enable_thinking }}",
        "<|assistant|>", "/nothink<|assistant|>\n<think></think>", "documented", "\n<think> . .</think>"),
    "Qwen3.5, Nemotron-3, EXAONE-4, GLM-5.2": (
        switched("enable_thinking", "<think>\\n", EMPTY), "assistant\n<think>\n", "<think>\n\n</think>\n\n", "documented",  # noqa: E501
        "<think>\n . .\n</think>\n\n"),
    "GLM-4.7": (switched("enable_thinking", "<think>", "</think>"), "<think>", "assistant\n</think>", "documented",
                "assistant\n<think> . .</think>"),
    "Kimi-K2.5": (switched("thinking", "<think>", "<think></think>"), "<think>", "<think></think>", "documented",
                  "<think> . .</think>"),
    "Bielik-3": (switched("enable_thinking", "<think>\\n", "", "false"), "<think>\n", "assistant\n", "documented",
                 "assistant\n<think> . .</think>"),
    "QwQ, Qwen3-Thinking, R1-Distill, MiniMax-M2, Step-3.5": (
        HEAD + "<think>\n{% endif %}", "<think>\n", "<think>\n\n</think>\n\n", "forced", "<think>\n . .\n</think>\n\n"),
    "Kimi-K2-Thinking, LFM2.5, Phi-4-reasoning": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"  # noqa: E501
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",  # noqa: E501
        "assistant\n", "<think>\n\n</think>\n\n", "forced", "<think>\n . .\n</think>\n\n"),
    "Nemotron-Nano-v2": (
        "{% set ns = namespace(on=true) %}{% for m in messages %}{% if '/no_think' in m.content %}{% set ns.on = false %}{% endif %}"  # noqa: E501
        "{% endfor %}" + HEAD + "{{ '<think>\\n' if ns.on else '<think></think>' }}{% endif %}",
        "<think>\n", "<think></think>", "documented", "<think> . .</think>"),
    "Nemotron-v1": (
        "{# system text: detailed thinking on, or off #}" + HEAD + "{% endif %}",
        "assistant\n", "assistant\n", "documented", "assistant\n<think> . .</think>"),
    "Hunyuan-A13B": (
        "{# <answer> #}" + switched("enable_thinking", "", "<think>\\n\\n</think>\\n"),
        "assistant\n", "<think>\n\n</think>\n", "documented", "<think>\n . .\n</think>\n"),
    "DeepHermes": (
        "{# You are a deep thinking AI #}" + HEAD + "{% endif %}",
        "assistant\n", "assistant\n", "documented", "assistant\n<think> . .</think>"),
    "Seed-OSS": (
        HEAD + "{% if thinking_budget == 0 %}<seed:think><seed:budget>{% endif %}{% endif %}",
        "assistant\n", "<seed:think><seed:budget>", "documented", "<seed:think><seed:budget> . .</seed:think>"),
    "Gemma-4": (
        "{% for m in messages %}<|turn>{{ m.role }}\n{{ '<|think|>' if enable_thinking }}{{ m.content }}<turn|>\n{% endfor %}"  # noqa: E501
        "<|turn>model\n{{ '<|channel>thought\\n<channel|>' if not enable_thinking }}",
        "<|turn>model\n", "<|channel>thought\n<channel|>", "documented", "<|channel>thought\n . .<channel|>"),
    "Command A": (
        "{% set reasoning = reasoning | default(true) %}"
        + HEAD + "{{ '<|START_THINKING|>' if reasoning else '<|START_THINKING|><|END_THINKING|>' }}{% endif %}",
        "<|START_THINKING|>", "<|START_THINKING|><|END_THINKING|>", "documented", "<|START_THINKING|> . .<|END_THINKING|>"),  # noqa: E501
    "Apertus": (
        "<|developer|>Deliberation: {{ 'enabled' if enable_thinking else 'disabled' }}{# <|inner_prefix|> #}" + HEAD + "{% endif %}",  # noqa: E501
        "assistant\n", "assistant\n", "documented", "assistant\n<|inner_prefix|> . .<|inner_suffix|>"),
    "Apriel": (
        "{# [BEGIN FINAL RESPONSE] #}" + HEAD + "Here are my reasoning steps:\n{% endif %}",
        "steps:\n", "steps:\n\n[BEGIN FINAL RESPONSE]\n\n", "forced", "steps:\n . .\n[BEGIN FINAL RESPONSE]\n\n"),
    "HyperCLOVA": (
        ROLES + "{% if add_generation_prompt %}<|im_start|>{{ 'assistant\\n' if skip_reasoning else 'assistant/think\\n' }}{% endif %}",  # noqa: E501
        "assistant/think\n", "<|im_start|>assistant\n", "documented", "assistant/think\n . .<|im_end|>\n<|im_start|>assistant\n"),  # noqa: E501
    "Mistral Small 4": (
        "{# [THINK][/THINK] #}{% set reasoning_effort = reasoning_effort | default('high') %}"
        "[MODEL_SETTINGS]{{ 'none' if reasoning_effort == 'none' else 'high' }}[/MODEL_SETTINGS]" + HEAD + "{% endif %}",  # noqa: E501
        "assistant\n", "assistant\n", "documented", "assistant\n[THINK] . .[/THINK]"),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_asked_in_its_own_way(family):
    template, think, no_think, how, filler = FAMILIES[family]
    chat = Chat(tokenizer_of(template, ["<|im_start|>", "<|im_end|>"]), [])
    prompts = {mode: text(chat, chat.prompt_ids("1+1?", mode)) for mode in ("think", "no_think")}
    assert prompts["think"].endswith(think)
    assert prompts["no_think"].endswith(no_think)
    assert prompts["think"] != prompts["no_think"]
    assert chat.ask("no_think").how == how
    filled = text(chat, chat.prompt_ids("1+1?", "filler", 2))
    assert filled.endswith(filler)


@pytest.mark.parametrize("family", FAMILIES)
def test_filler_is_the_thought_of_its_prompt_and_no_leak(family):
    chat = Chat(tokenizer_of(FAMILIES[family][0], ["<|im_start|>", "<|im_end|>"]), [])
    prompt = chat.prompt_ids("1+1?", "filler", 3)
    spans = chat.spans([*prompt, *chat._encode("2")], len(prompt))
    assert prompt[slice(*spans.thought)] == [chat.filler_id] * 3
    assert spans.answer == (len(prompt), len(prompt) + 1)
    assert (spans.leaked, spans.truncated) == (False, False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["think", "no_think"])
def test_a_thought_in_a_response_is_found_and_leaks_where_it_was_closed(family, mode):
    chat = Chat(tokenizer_of(FAMILIES[family][0], ["<|im_start|>", "<|im_end|>"]), [])
    marks, prompt = chat.format, chat.prompt_ids("1+1?", mode)
    ids = [*prompt, *chat._encode(f"{marks.open}add{marks.close}2")]
    spans = chat.spans(ids, len(prompt))
    assert [text(chat, ids[slice(*span)]) for span in (spans.thought, spans.answer)] == ["add", "2"]
    closed = text(chat, prompt).rstrip().endswith(marks.close.strip())
    assert spans.leaked == closed


NEW_FORMAT = ThinkingFormat(
    "ponder",
    open="<|ponder|>",
    close="<|decided|>",
    think=Ask(system="Ponder first."),
    no_think=Ask(system="Answer at once."),
    signs=("<|ponder|>",),
)


def test_a_format_is_added_by_one_entry(monkeypatch):
    tokenizer = tokenizer_of("{# <|ponder|> #}" + HEAD + "{% endif %}", ["<|im_start|>", "<|im_end|>"])
    with pytest.raises(NormprobeError, match="marks no thought"):
        Chat(tokenizer, [])
    monkeypatch.setattr(read_template, "FORMATS", (*FORMATS, NEW_FORMAT))
    chat = Chat(tokenizer, [])
    assert chat.format.name == "ponder"
    prompt = chat.prompt_ids("1+1?", "think")
    assert "Ponder first." in text(chat, prompt)
    assert "Answer at once." in text(chat, chat.prompt_ids("1+1?", "no_think"))
    assert chat.ask("no_think").how == "documented"
    ids = [*prompt, *chat._encode("<|ponder|>add<|decided|>2")]
    spans = chat.spans(ids, len(prompt))
    assert [text(chat, ids[slice(*span)]) for span in (spans.thought, spans.answer)] == ["add", "2"]


def test_the_table_has_one_entry_for_a_name_and_a_sign():
    assert len({entry.name for entry in FORMATS}) == len({entry.signs for entry in FORMATS}) == len(FORMATS)
    assert all(entry.signs for entry in FORMATS)


def test_a_format_goes_through_json_and_back():
    for entry in (*FORMATS, ELICITED):
        assert ThinkingFormat.of(json.loads(json.dumps(entry.to_dict()))) == replace(entry, signs=())


@pytest.mark.parametrize(
    "values",
    [
        {"start": "<a>"},
        {"close": ""},
        {"close": 1},
        {"think": {"kwarg": {}}},
        {"no_think": {"forced": "yes"}},
    ],
)
def test_a_format_that_cannot_be_is_refused(values):
    with pytest.raises(NormprobeError, match="expected"):
        ThinkingFormat.of(values)


def test_the_tokenizers_own_declaration_comes_first():
    tokenizer = tokenizer_of(FAMILIES["Qwen3"][0], [])
    tokenizer.response_template = {
        "fields": {"reasoning_content": {"open": "<thinks>", "close": "</thinks>"}}
    }
    chat = Chat(tokenizer, [])
    assert (chat.format.open, chat.format.close) == ("<thinks>", "</thinks>")


def test_a_date_in_the_prompt_does_not_move():
    template = "{{ strftime_now('%Y-%m-%d') }}" + FAMILIES["Qwen3"][0]
    chat = Chat(tokenizer_of(template, []), [])
    assert text(chat, chat.prompt_ids("?", "think")).startswith("2025-01-01")


@given(st.text("ab<>/thinké🙂 \n", max_size=30), st.text("ab<>/thinkéü🙂 \n", max_size=20))
def test_spans_by_text_are_those_of_a_slow_search(thought, answer):
    """Whatever the tokens: no token of a thought holds a part of a mark."""
    chat = Chat(tokenizer_of(FAMILIES["Qwen3"][0], []), [])
    prompt = chat.prompt_ids("1+1?", "think")
    response = f"<think>\n{thought}\n</think>\n\n{answer}"
    ids = [*prompt, *chat._encode(response)]
    spans = chat.spans(ids, len(prompt))
    if "<think>" in f"{thought}{answer}" or "</think>" in response.replace("\n</think>\n\n", "", 1):
        return
    for span, part in ((spans.thought, thought), (spans.answer, answer)):
        got = text(chat, ids[slice(*span)]) if span != ABSENT else ""
        assert got.strip() in part
        assert len(part.strip()) - len(got.strip()) <= 2  # a token that straddles a mark belongs to it
