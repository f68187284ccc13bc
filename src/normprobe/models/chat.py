"""Prompts of a model in each mode, and the spans of thought and answer in its responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from normprobe.errors import NormprobeError
from normprobe.models.read_template import resolve
from normprobe.models.thoughts import ABSENT, Spans, ThoughtParser, pieces
from normprobe.thinking_formats import MODES, Ask, ThinkingFormat


class Chat:
    """The chat template of a thinking model, in each mode.

    eos_ids: the ids that end a response. pad_id: an id for padding (under a mask it is never read).
    format: how the model marks its thought and is asked for each mode, also as a mapping (`ThinkingFormat.of`). Modes
    that it leaves open are read from the template; so are the marks (`find_format`) where it gives no more than what
    every mode has (system, kwargs), or is None.
    Raises NormprobeError if the tokenizer has no chat template, or one that marks no thought.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        eos_ids: Iterable[int],
        format: ThinkingFormat | Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template, self.format = resolve(tokenizer, format)
        eos: Any = tokenizer.eos_token_id
        pad: Any = tokenizer.pad_token_id
        self.eos_ids: tuple[int, ...] = tuple(sorted({*eos_ids, *([] if eos is None else [eos])}))
        if not self.eos_ids:
            raise NormprobeError(
                "expected a model that names its end token, got none; set eos_token_id in its configuration"
            )
        self.pad_id: int = self.eos_ids[0] if pad is None else pad
        marks = (self.format.open, self.format.close, self.format.answer_open, self.format.answer_close)
        control = {mark.strip() for mark in marks if "<" in mark or "[" in mark}
        self._control = sorted({*control, *tokenizer.all_special_tokens} - {""})
        self._has_filler = "filler_tokens" in self._template.variables
        dot = self._encode(" .")[-1]
        self._filler = None if dot == tokenizer.unk_token_id else dot
        self._parser = ThoughtParser(tokenizer, self.format, self._filler)

    @property
    def filler_id(self) -> int:
        """The token that stands in for thought in the mode `filler`: a full stop, as inside a sentence of dots."""
        if self._filler is None:
            raise NormprobeError(
                "expected a token for '.' to fill the thought with, got none; use the modes think and no_think"
            )
        return self._filler

    def ask(self, mode: str) -> Ask:
        """How the model is asked for a mode; filler is asked for as no_think is."""
        asked = self.format.think if mode == "think" else self.format.no_think
        assert asked is not None
        return asked

    def prompt_ids(self, question: str, mode: str, n_filler: int = 0) -> list[int]:
        """Token ids of the prompt that makes the model answer `question` in `mode`, generation prompt included.

        n_filler: tokens of filler in place of the thought, for mode `filler` only.
        Raises NormprobeError for an unknown mode, a count that does not fit it, or a question that holds think marks
        or other control tokens.
        """
        if mode not in MODES:
            raise NormprobeError(f"expected a mode of {', '.join(MODES)}, got {mode!r}; choose one of these")
        if n_filler < 0 or (n_filler > 0 and mode != "filler"):
            raise NormprobeError(
                f"expected n_filler ≥ 0, and 0 outside mode filler, got {n_filler} in {mode}; correct it"
            )
        if held := next((token for token in self._control if token in question), None):
            raise NormprobeError(
                f"expected a question without the model's control tokens, got {held!r} in {question[:60]!r}; "
                "remove it"
            )
        if n_filler > 0 and self._has_filler:
            asked = {**self.ask("think").kwargs, "filler_tokens": n_filler}
            return self._encode(self._template.render([{"role": "user", "content": question}], **asked))
        text = self._template.ask(self.ask(mode), question)
        if n_filler == 0:
            return self._encode(text)
        # By id, not by text: a byte-pair tokenizer would merge neighbouring dots.
        before, after = self._around_filler(text, question)
        return [*self._encode(before), *[self.filler_id] * n_filler, *self._encode(after)]

    def prompt_text(self, messages: list[dict[str, Any]], mode: str) -> str:
        """The prompt of a conversation in a mode, as text."""
        return self._template.conversation(self.ask(mode), messages)

    def _around_filler(self, prompt: str, question: str) -> tuple[str, str]:
        """The no_think prompt, divided where its thought is: what comes before the filler, and what comes after it."""
        head, _, generated = prompt.rpartition(question)
        start, end = self.format.open.rstrip(), self.format.close.rstrip()
        body = generated.rstrip().removesuffix(end)
        if (
            body == generated.rstrip() and start and start in body
        ):  # opened, for a short thought of the model's own
            return prompt, self.format.close
        if body == generated.rstrip():  # nothing is closed: the thought stands before the answer
            answer = self.format.answer_open if self.ask("no_think").prefill else ""
            base = prompt.removesuffix(self.ask("no_think").prefill) if answer else prompt
            return f"{base}{self.format.open}", f"{self.format.close}{answer}"
        closing = generated[len(body) :]
        if start not in body:  # the thought is closed and was never opened
            thinking = self._template.ask(self.ask("think"), question).rpartition(question)[2]
            opened = thinking if start and thinking.rstrip().endswith(start) else f"{body}{start}"
            return f"{head}{question}{opened}", closing
        inner = body[len(body.rstrip()) :]
        before = body.rstrip() + inner[: (len(inner) + 1) // 2]
        return f"{head}{question}{before}", f"{inner[(len(inner) + 1) // 2 :]}{closing}"

    def spans(self, token_ids: Sequence[int], n_prompt: int) -> Spans:
        """Find thought and answer in `token_ids`, whose first `n_prompt` are the prompt.

        The response ends before the first end token after the prompt. A thought that the prompt opened counts, and so
        does one that the response opens or only closes. The first closing mark ends the thought, and the answer is
        what follows the last.
        """
        ends = (i for i in range(n_prompt, len(token_ids)) if token_ids[i] in self.eos_ids)
        return self._parser.spans(token_ids, n_prompt, next(ends, len(token_ids)))

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens, control tokens and white space included."""
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text, control tokens and white space included."""
        return pieces(self.text, ids)

    def response_text(self, ids: Sequence[int]) -> str:
        """The text of some tokens, special tokens and outer white space left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def span_text(self, token_ids: Sequence[int], span: tuple[int, int]) -> str:
        """The text of one of `Spans`, as `response_text`; empty where the span is absent."""
        return "" if span == ABSENT else self.response_text(token_ids[slice(*span)])

    def answer_text(self, token_ids: Sequence[int], n_prompt: int) -> str:
        """The text after the thought; empty if the thought never closed."""
        return self.span_text(token_ids, self.spans(token_ids, n_prompt).answer)

    def _encode(self, text: str) -> list[int]:
        # The template has written the special tokens already; a second beginning-of-sequence would be read as text.
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
