"""Finds the thinking format of a tokenizer by reading its chat template.

In this order: the tokenizer's own `response_template` (new in transformers 5), the table `FORMATS`, a message of the
assistant rendered with its `reasoning_content`, and marks that stand in the template's text. A mark in the vocabulary
proves nothing: Qwen3-Instruct-2507 has `<think>` and never writes it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerBase

from normprobe.errors import NormprobeError
from normprobe.models.template_renderer import renderer
from normprobe.thinking_formats import ELICITED, FORMATS, PAIRS, Ask, ThinkingFormat

_SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "enable_thinking": (True, False),
    "thinking": (True, False),
    "reasoning": (True, False),
    "skip_reasoning": (False, True),
    "reasoning_effort": ("high", "none"),
}
"""Keyword of a chat template → its values for thinking and for not. Others with a like name are true and false."""
_TAG = r"<[^<>\s]+>|\[[^\[\]\s]+\]"


class Template:
    """The chat template of a tokenizer. system, kwargs: what every prompt has. Raises NormprobeError if it has none."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, system: str = "", kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._tokenizer, self._system, self.kwargs = tokenizer, system, dict(kwargs or {})
        if not tokenizer.chat_template:
            raise NormprobeError(
                "expected a tokenizer with a chat template, got none; add chat_template.jinja to the model's directory"
            )
        # Several templates, none of them the default one, are a ValueError of the tokenizer's.
        with self._refusing():
            described = renderer().ask(template=tokenizer.get_chat_template())
        self.source: str = described["source"]
        self.variables = set(described["variables"])

    def render(self, messages: list[dict[str, Any]], *, prompt: bool = True, **keywords: Any) -> str:
        """The messages as text; prompt: and what begins the answer. Raises NormprobeError if that fails.

        As the tokenizer's `apply_chat_template` does it, in a process apart (`template_renderer`).
        """
        given = [
            {name: value for name, value in message.items() if value is not None} for message in messages
        ]
        keywords = {**self._tokenizer.special_tokens_map, **self.kwargs, **keywords}
        with self._refusing():
            return renderer().ask(template=self.source, messages=given, prompt=prompt, keywords=keywords)[
                "text"
            ]

    @staticmethod
    @contextmanager
    def _refusing() -> Iterator[None]:
        try:
            yield
        except ValueError as cause:
            raise NormprobeError(
                f"expected a chat template that renders a user's question, got {cause}; "
                "correct chat_template.jinja in the model's directory"
            ) from cause

    def ask(self, how: Ask, question: str = "?") -> str:
        """The prompt of a question in a mode."""
        return self.conversation(how, [{"role": "user", "content": question}])

    def conversation(self, how: Ask, messages: list[dict[str, Any]]) -> str:
        """The prompt of a conversation in a mode. System text is added where the conversation brings none."""
        if how.instruction:
            text = f"{messages[-1]['content']}\n\n{how.instruction}"
            messages = [*messages[:-1], {**messages[-1], "content": text}]
        system = "\n".join(filter(None, (self._system, how.system)))
        if system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        return self.render(messages, **how.kwargs) + how.prefill


def resolve(
    tokenizer: PreTrainedTokenizerBase, given: ThinkingFormat | Mapping[str, Any] | None
) -> tuple[Template, ThinkingFormat]:
    """The chat template of a tokenizer and its format, as `Chat` takes them. Raises NormprobeError if there is none."""
    values = given.to_dict() if isinstance(given, ThinkingFormat) else dict(given or {})
    marks = ThinkingFormat.of(values)
    template = Template(tokenizer, marks.system, marks.kwargs)
    if values.keys() <= {"system", "kwargs"}:
        found = find_format(template, getattr(tokenizer, "response_template", None))
    else:
        found = with_modes(marks, template)
    return template, dataclasses.replace(found, system=marks.system, kwargs=marks.kwargs)


def find_format(template: Template, response_template: Mapping[str, Any] | None = None) -> ThinkingFormat:
    """The format of a chat template, both modes filled in. Raises NormprobeError if the template marks no thought."""
    marks = _declared(response_template) or _in_table(template) or _rendered(template) or _in_text(template)
    if marks is None:
        raise NormprobeError(
            "expected a model with a thinking mode, got a chat template that marks no thought; use a thinking model "
            "such as Qwen3, an R1 distillation or tiny-thinker, name its marks (--think-start, --think-end), "
            f"or ask by instruction (--thinking-format {ELICITED.name})"
        )
    return with_modes(marks, template)


def with_modes(marks: ThinkingFormat, template: Template) -> ThinkingFormat:
    """The format with its missing modes: by the template's switch if it has one, else the thought is closed at once."""
    think, no_think = marks.think, marks.no_think
    if think is None and no_think is None:
        think, no_think = _switch(template, marks) or (None, None)
    if think and (twice := sorted({*template.kwargs} & {*think.kwargs})):
        raise NormprobeError(
            f"expected keywords of the chat template that serve every mode, got {', '.join(twice)}, "
            "which tells the modes apart; leave it out"
        )
    think = think or Ask()
    return dataclasses.replace(marks, think=think, no_think=no_think or _forced(template, marks, think))


def _declared(response_template: Mapping[str, Any] | None) -> ThinkingFormat | None:
    """The marks that a tokenizer declares for parsing its responses."""
    fields = (response_template or {}).get("fields", {})
    field = next((value for name, value in fields.items() if name in ("reasoning_content", "thinking")), {})
    start, end = field.get("open"), field.get("close")
    if not isinstance(start, str) or not isinstance(end, str):
        return None  # a pattern, or several marks: the template tells
    return ThinkingFormat("response_template", open=start, close=end)


def _in_table(template: Template) -> ThinkingFormat | None:
    return next((entry for entry in FORMATS if all(sign in template.source for sign in entry.signs)), None)


def _rendered(template: Template) -> ThinkingFormat | None:
    """The marks around `reasoning_content`, as the template writes a turn of the assistant."""
    message = {"role": "assistant", "content": "qanswerq", "reasoning_content": "qthoughtq"}
    try:
        text = template.render([{"role": "user", "content": "?"}, message], prompt=False)
    except NormprobeError:
        return None
    around = re.search(rf"({_TAG})\s*qthoughtq\s*({_TAG})", text)
    if around is None or "qanswerq" not in text[around.end() :]:
        return None
    return ThinkingFormat("chat template", open=around[1], close=around[2])


def _in_text(template: Template) -> ThinkingFormat | None:
    """A known pair of marks of which the template writes or reads one."""
    found = (pair for pair in PAIRS if any(mark in template.source for mark in pair))
    return next((ThinkingFormat("chat template", open=start, close=end) for start, end in found), None)


def _switch(template: Template, marks: ThinkingFormat) -> tuple[Ask, Ask] | None:
    """How the template is asked to think and not to: a keyword that it reads, or a word in the system text."""
    others = sorted(name for name in template.variables if re.search("think|reason", name))
    for keyword in [*_SWITCHES, *others]:
        values = _SWITCHES.get(keyword, (True, False))
        if keyword not in template.variables or (values[1] == "none" and "none" not in template.source):
            continue
        on, off = (Ask(kwargs={keyword: value}) for value in values)
        thinking, answering = template.ask(on), template.ask(off)
        if thinking != answering:
            inverted = thinking.rstrip().endswith(marks.close.strip())
            return (off, on) if inverted else (on, off)
    off = Ask(system="/no_think")
    if off.system in template.source and template.ask(off).replace(off.system, "") != template.ask(Ask()):
        return Ask(), off
    return None


def _forced(template: Template, marks: ThinkingFormat, think: Ask) -> Ask:
    """The think prompt with the thought closed at once, in the line breaks that the family uses."""
    text, start = template.ask(think), marks.open.strip()
    opened = text.rstrip()
    if start and opened.endswith(start):
        written = marks.close if opened == text else f"\n{marks.close}\n\n"
    elif marks.open.startswith("<think>"):
        written = f"{marks.open}\n\n{marks.close}\n\n"
    else:
        written = f"{marks.open}{marks.close}"
    return dataclasses.replace(think, prefill=f"{think.prefill}{written}", forced=True)
