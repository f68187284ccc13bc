"""Chat templates, and the spans of responses."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

from fuzz.hostile import Files
from fuzz.reader import as_json


@functools.cache
def _tokenizer() -> Any:
    from normprobe.problems.testbed.tokenizer import build_tokenizer

    return build_tokenizer()


def templates() -> list[Files]:
    cases = json.loads(
        (Path(__file__).parents[1] / "models" / "thinking_formats.json").read_text(encoding="utf-8")
    )["cases"]
    marked = (
        case["template"] for case in cases if case["format"] and not case["format"]["think"].get("elicited")
    )
    texts = dict.fromkeys([_tokenizer().chat_template, *marked])
    return [{"chat_template.jinja": text.encode()} for text in texts]


def read_template(folder: Path) -> None:
    from normprobe.models.chat import Chat

    tokenizer = _tokenizer()
    path = folder / "chat_template.jinja"
    tokenizer.chat_template = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else None
    chat = Chat(tokenizer, [])
    for mode in ("think", "no_think"):
        chat.prompt_ids("math : z= 3 ; ? z", mode)
    chat.prompt_ids("math : z= 3 ; ? z", "filler", 3)


def responses() -> list[Files]:
    marks = [
        {"open": "<think>", "close": "</think>"},
        {"open": "", "close": "answer :", "answer_open": "a =", "answer_close": "; b"},
    ]
    ids = _tokenizer()("<think> z= 3 ; a = 4 ; b </think> answer : 8 <|im_end|>", add_special_tokens=False)[
        "input_ids"
    ]
    return [{"response.json": as_json({"ids": ids, "n_prompt": 2, "marks": one})} for one in marks]


def hostile_response(random_: random.Random, files: Files) -> Files:
    """Ids of the vocabulary, marks among them more often than others; the form is ours, so it is never damaged."""
    response = json.loads(files["response.json"])
    ids, vocabulary = response["ids"], len(_tokenizer())
    for _ in range(random_.choice((1, 3, 10))):
        at, end = sorted(random_.randrange(len(ids) + 1) for _ in range(2))
        part = ids[at:end] * random_.choice((0, 1, 2, 20)) + [random_.randrange(vocabulary)] * random_.choice(
            (0, 1, 30)
        )
        ids = (ids[:at] + part + ids[end:])[:2000]
    response |= {"ids": ids, "n_prompt": random_.randrange(len(ids) + 1)}
    return {"response.json": as_json(response)}


def read_response(folder: Path) -> None:
    from normprobe.models.chat import Chat
    from normprobe.models.thoughts import ABSENT

    given = json.loads((folder / "response.json").read_bytes())
    ids, n_prompt = given["ids"], given["n_prompt"]
    chat = Chat(_tokenizer(), [], given["marks"])
    spans = chat.spans(ids, n_prompt)
    for start, end in (spans.thought, spans.answer):
        assert (start, end) == ABSENT or 0 <= start < end <= len(ids), spans
    assert spans.answer == ABSENT or spans.answer[0] >= n_prompt, spans
    chat.answer_text(ids, n_prompt)
    assert "".join(chat.pieces(ids)) == chat.text(ids).removesuffix("\ufffd")
