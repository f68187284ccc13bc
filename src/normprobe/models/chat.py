"""Prompts of a model in each mode, and the spans of thought and answer in its responses, by token id.

Three kinds of chat template are understood:
- Qwen3's: the model writes `<think>` itself; `enable_thinking=False` ends the prompt with an empty thought;
- the testbed's: the template inserts `<think>`, honours `enable_thinking`, and renders filler by `filler_tokens`;
- R1-distill's: the template inserts `<think>` and a line break, and knows no switch.
What a template cannot render is written as Qwen3's would be: `no_think` opens the thought and closes it at once (by
appending `</think>` where the template opened it already), `filler` puts n full stops between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from normprobe.errors import NormprobeError

MODES = ("think", "no_think", "filler")
OPEN, CLOSE = "<think>", "</think>"
ABSENT = (-1, -1)


@dataclass(frozen=True)
class Spans:
    """Half-open ranges of positions in the whole sequence, (-1, -1) where absent, without white space at their ends.

    thought: between the marks, whoever wrote it (so filler's dots are its thought).
    answer: after `</think>`, before the end token.
    truncated: the thought was opened and never closed; then all that follows is thought, and there is no answer.
    """

    thought: tuple[int, int]
    answer: tuple[int, int]
    truncated: bool


class Chat:
    """The chat template of a thinking model, in each mode.

    eos_ids: the ids that end a response. pad_id: an id for padding (under a mask it is never read).
    think_open_id, think_close_id: the ids of `<think>` and `</think>`.
    Raises NormprobeError if the tokenizer has no chat template or no such ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self.think_open_id, self.think_close_id = (_mark_id(tokenizer, mark) for mark in (OPEN, CLOSE))
        if not tokenizer.chat_template:
            raise NormprobeError(
                "expected a tokenizer with a chat template, got none; add chat_template.jinja to the model's directory"
            )
        eos: Any = tokenizer.eos_token_id
        pad: Any = tokenizer.pad_token_id
        self.eos_ids: tuple[int, ...] = tuple(sorted({*eos_ids, *([] if eos is None else [eos])}))
        if not self.eos_ids:
            raise NormprobeError(
                "expected a model that names its end token, got none; set eos_token_id in its configuration"
            )
        self.pad_id: int = self.eos_ids[0] if pad is None else pad
        off, on = (self._render("?", enable_thinking=thinking) for thinking in (False, True))
        self._has_switch = off != on and not off.rstrip().endswith(OPEN)
        self._has_filler = self._render("?", filler_tokens=2) != self._render("?", filler_tokens=3)

    @property
    def filler_id(self) -> int:
        """The token that stands in for thought in the mode `filler`: a full stop, as inside a sentence of dots."""
        token: int = self._encode(" .")[-1]
        if token == self._tokenizer.unk_token_id:
            raise NormprobeError(
                "expected a token for '.' to fill the thought with, got none; use the modes think and no_think"
            )
        return token

    def prompt_ids(self, question: str, mode: str, n_filler: int = 0) -> list[int]:
        """Token ids of the prompt that makes the model answer `question` in `mode`, generation prompt included.

        n_filler: tokens of filler in place of the thought, for mode `filler` only.
        Raises NormprobeError for an unknown mode, a count that does not fit it, or a question that holds think marks.
        """
        if mode not in MODES:
            raise NormprobeError(f"expected a mode of {', '.join(MODES)}, got {mode!r}; choose one of these")
        if n_filler < 0 or (n_filler > 0 and mode != "filler"):
            raise NormprobeError(
                f"expected n_filler ≥ 0, and 0 outside mode filler, got {n_filler} in {mode}; correct it"
            )
        if OPEN in question or CLOSE in question:
            raise NormprobeError(
                f"expected a question without {OPEN} and {CLOSE}, got {question[:60]!r}; remove them"
            )
        if mode == "think":
            return self._encode(self._render(question, enable_thinking=True))
        if n_filler > 0 and self._has_filler:
            return self._encode(self._render(question, enable_thinking=True, filler_tokens=n_filler))
        if n_filler > 0:
            # By id, not by text: a byte-pair tokenizer would merge neighbouring dots.
            opened, closed = self._encode(self._opened(question)), self._encode(f"\n{CLOSE}\n\n")
            return [*opened, *[self.filler_id] * n_filler, *closed]
        if self._has_switch:
            return self._encode(self._render(question, enable_thinking=False))
        return self._encode(self._opened(question) + f"\n{CLOSE}\n\n")

    def spans(self, token_ids: Sequence[int], n_prompt: int) -> Spans:
        """Find thought and answer in `token_ids`, whose first `n_prompt` are the prompt.

        The response ends before the first end token after the prompt. A thought that the prompt opened counts, and so
        does one that the response opens or only closes. Of several `</think>` the first closes.
        """
        ids = list(token_ids)
        end = next((i for i in range(n_prompt, len(ids)) if ids[i] in self.eos_ids), len(ids))
        tail = self._trim(ids, 0, n_prompt)[1] - 1  # the prompt's last token that is not white space
        if tail >= 0 and ids[tail] == self.think_close_id:
            opened = max((i for i in range(tail) if ids[i] == self.think_open_id), default=tail - 1)
            return Spans(self._trim(ids, opened + 1, tail), self._trim(ids, n_prompt, end), truncated=False)
        close = _find(ids, self.think_close_id, n_prompt, end)
        if tail >= 0 and ids[tail] == self.think_open_id:
            start = tail + 1
        else:
            opened = _find(ids, self.think_open_id, n_prompt, end if close is None else close)
            if opened is None and close is None:
                return Spans(ABSENT, self._trim(ids, n_prompt, end), truncated=False)
            start = n_prompt if opened is None else opened + 1
        if close is None:
            return Spans(self._trim(ids, start, end), ABSENT, truncated=True)
        return Spans(self._trim(ids, start, close), self._trim(ids, close + 1, end), truncated=False)

    def response_text(self, ids: Sequence[int]) -> str:
        """The text of some tokens, special tokens and outer white space left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def span_text(self, token_ids: Sequence[int], span: tuple[int, int]) -> str:
        """The text of one of `Spans`, as `response_text`; empty where the span is absent."""
        return "" if span == ABSENT else self.response_text(token_ids[slice(*span)])

    def answer_text(self, token_ids: Sequence[int], n_prompt: int) -> str:
        """The text after the thought; empty if the thought never closed."""
        return self.span_text(token_ids, self.spans(token_ids, n_prompt).answer)

    def _opened(self, question: str) -> str:
        """The think prompt with the thought opened, by the template or here."""
        text = self._render(question, enable_thinking=True)
        return text if text.rstrip().endswith(OPEN) else f"{text}{OPEN}\n"

    def _render(self, question: str, **switches: Any) -> str:
        messages = [{"role": "user", "content": question}]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, **switches
                )
            )
        except TemplateError as cause:
            raise NormprobeError(
                f"expected a chat template that renders a user's question, got {type(cause).__name__} "
                f"({cause}); correct chat_template.jinja in the model's directory"
            ) from cause

    def _encode(self, text: str) -> list[int]:
        # The template has written the special tokens already; a second beginning-of-sequence would be read as text.
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _trim(self, ids: list[int], start: int, end: int) -> tuple[int, int]:
        """The range without white space at its ends; ABSENT if nothing is left."""
        while start < end and self._is_space(ids[start]):
            start += 1
        while start < end and self._is_space(ids[end - 1]):
            end -= 1
        return (start, end) if start < end else ABSENT

    def _is_space(self, token: int) -> bool:
        return str(self._tokenizer.decode([token])).isspace()


def _mark_id(tokenizer: PreTrainedTokenizerBase, mark: str) -> int:
    if mark not in tokenizer.get_vocab():
        raise NormprobeError(
            f"expected a model with a thinking mode ({OPEN} and {CLOSE} as single tokens), "
            f"got a tokenizer without {mark}; use a thinking model such as Qwen3, an R1 distillation or tiny-thinker"
        )
    return int(tokenizer.get_vocab()[mark])


def _find(ids: list[int], token: int, start: int, end: int) -> int | None:
    return next((i for i in range(start, end) if ids[i] == token), None)
