"""Thinking formats: how families of models mark their thought, and how they are asked to think or not. Data, not code.

`FORMATS` is the table; a new family is one entry. `normprobe.models.read_template` finds the format of a tokenizer.
What a family marks with `<think>` and switches by a keyword needs no entry: its chat template tells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from normprobe.errors import NormprobeError, refusing_damage
from normprobe.runs.untrusted import read_yaml

MODES = ("think", "no_think", "filler")
How = Literal["documented", "forced", "elicited"]


@dataclass(frozen=True)
class Ask:
    """How a model is asked for a mode.

    kwargs: keywords of the chat template. system: system text. instruction: text after the question. prefill: text
    after the generation prompt. forced: the family never documented it (NoThinking, arXiv 2504.09858, forces so, too).
    elicited: by an instruction only.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    instruction: str = ""
    prefill: str = ""
    forced: bool = False
    elicited: bool = False

    @property
    def how(self) -> How:
        """What a report says of it."""
        return "elicited" if self.elicited else "forced" if self.forced else "documented"


@dataclass(frozen=True)
class ThinkingFormat:
    """The marks around a thought and an answer, and how each mode is asked for.

    open: empty where the thought begins with the response. answer_open, answer_close: a wrapper around the answer, if
    the family has one. A mark is found without the white space at its ends.
    think, no_think: None in the table where the chat template's own keyword tells.
    system, kwargs: system text and keywords of the chat template, in every mode.
    signs: texts that stand in the chat template of this family and of no other; for the table only.
    """

    name: str = "given"
    open: str = "<think>"
    close: str = "</think>"
    answer_open: str = ""
    answer_close: str = ""
    think: Ask | None = None
    no_think: Ask | None = None
    system: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    signs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.close.strip():
            raise NormprobeError(
                "expected a thinking format with a closing mark, got none; give the text that ends a thought"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ThinkingFormat:
        """A format from a mapping, as YAML gives it: `{"open": …, "no_think": {"prefill": …, "forced": True}}`.

        Raises NormprobeError for a key that no format has, and for a value of another type.
        """
        given = dict(_typed(cls, values, "a thinking format"))
        for mode in ("think", "no_think"):
            if isinstance(given.get(mode), Mapping):
                given[mode] = Ask(**_typed(Ask, given[mode], f"the mode {mode}"))
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """The format for JSON; `of` reads it."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "signs"}


def _typed(kind: type, values: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    kinds = {"kwargs": Mapping, "forced": bool, "elicited": bool, "think": Mapping, "no_think": Mapping}
    names = [f.name for f in dataclasses.fields(kind) if f.name != "signs"]
    for name, value in values.items():
        expected = kinds.get(name, str)
        if name not in names or not isinstance(
            value, expected | None if name in ("think", "no_think") else expected
        ):
            raise NormprobeError(f"expected {what} of {', '.join(names)}, got {name}: {value!r}; correct it")
    return values


REASON = 'Reason step by step. Give your answer at the end on its own line as "ANSWER: $ANSWER".'
ANSWER = 'Do not reason. Reply with one line only: "ANSWER: $ANSWER".'

ELICITED = ThinkingFormat(
    "elicited",
    open="",
    close="ANSWER:",
    think=Ask(instruction=REASON, elicited=True),
    no_think=Ask(instruction=ANSWER, prefill="ANSWER:", elicited=True),
)
"""For models without marks (Gemma 3, Llama 3 Instruct, SmolLM2, Phi-4). Never found by itself: the user asks for it."""

FORMATS: tuple[ThinkingFormat, ...] = (
    ThinkingFormat(
        "harmony",  # gpt-oss
        open="<|channel|>analysis<|message|>",
        close="<|end|>",
        answer_open="<|start|>assistant<|channel|>final<|message|>",
        think=Ask(kwargs={"reasoning_effort": "medium"}),
        no_think=Ask(
            kwargs={"reasoning_effort": "medium"}, prefill="<|channel|>final<|message|>", forced=True
        ),
        signs=("<|start|>", "<|message|>", "reasoning_effort"),
    ),
    ThinkingFormat(
        "mistral",  # Magistral, Ministral 3; Mistral Small 4 has a switch
        open="[THINK]",
        close="[/THINK]",
        signs=("[THINK]", "[/THINK]"),
    ),
    ThinkingFormat(
        "seed-oss",  # it writes a short thought of its own when its budget is 0
        open="<seed:think>",
        close="</seed:think>",
        think=Ask(),
        no_think=Ask(kwargs={"thinking_budget": 0}),
        signs=("seed:think", "thinking_budget"),
    ),
    ThinkingFormat(
        "gemma-4",
        open="<|channel>thought\n",
        close="<channel|>",
        signs=("<|channel>",),
    ),
    ThinkingFormat(
        "command-a",
        open="<|START_THINKING|>",
        close="<|END_THINKING|>",
        answer_open="<|START_TEXT|>",
        answer_close="<|END_TEXT|>",
        signs=("<|START_THINKING|>",),
    ),
    ThinkingFormat("apertus", open="<|inner_prefix|>", close="<|inner_suffix|>", signs=("<|inner_prefix|>",)),
    ThinkingFormat(
        "apriel",
        open="Here are my reasoning steps:",
        close="[BEGIN FINAL RESPONSE]",
        answer_close="[END FINAL RESPONSE]",
        signs=("Here are my reasoning steps", "[BEGIN FINAL RESPONSE]"),
    ),
    ThinkingFormat(
        "hyperclova",
        open="/think\n",
        close="<|im_end|>\n<|im_start|>assistant\n",
        signs=("assistant/think",),
    ),
    ThinkingFormat(
        "granite",
        answer_open="<response>",
        answer_close="</response>",
        signs=("<response></response>",),
    ),
    ThinkingFormat(
        "hunyuan",
        answer_open="<answer>",
        answer_close="</answer>",
        signs=("<think>", "<answer>"),
    ),
    ThinkingFormat(
        "deep-hermes",
        think=Ask(
            system="You are a deep thinking AI, you may use extremely long chains of thought to deeply consider the "
            "problem and deliberate with yourself via systematic reasoning processes to help come to a correct "
            "solution prior to answering. You should enclose your thoughts and internal monologue inside <think> "
            "</think> tags, and then provide your solution or response to the problem."
        ),
        no_think=Ask(),
        signs=("deep thinking AI",),
    ),
    ThinkingFormat(
        "nemotron-v1",
        think=Ask(system="detailed thinking on"),
        no_think=Ask(system="detailed thinking off"),
        signs=("detailed thinking",),
    ),
)
"""Families whose chat template does not tell everything; the first whose signs all stand in it is taken."""

PAIRS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("◁think▷", "◁/think▷"),
)
"""Marks that a chat template is searched for where no entry's signs are in it."""


def read_format(name: str) -> Mapping[str, Any]:
    """The format of a name in the table, or of a YAML file, as `ThinkingFormat.of` takes it.

    Raises NormprobeError for an unknown name, and for a file that holds no format.
    """
    table = {entry.name: entry for entry in (*FORMATS, ELICITED)}
    if name in table:
        return table[name].to_dict()
    with refusing_damage(f"a thinking format in {name}", "correct it", OSError, ValueError):
        if not Path(name).is_file():
            raise NormprobeError(
                f"expected a thinking format of {', '.join(table)}, or a YAML file, got {name!r}; "
                "choose one, or check the path"
            )
        values = read_yaml(Path(name))
    if not isinstance(values, Mapping):
        raise NormprobeError(
            f"expected a thinking format as lines 'key: value' in {name}, got {values!r}; correct it"
        )
    ThinkingFormat.of(values)
    return values
