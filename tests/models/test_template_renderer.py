"""Chat templates are rendered as Transformers does it, and none takes more than a bounded time and memory."""

import os
import signal
import time

import pytest

from normprobe.errors import NormprobeError
from normprobe.models.chat import Chat
from normprobe.models.template_process import SECONDS
from normprobe.models.template_renderer import TemplateRenderer
from normprobe.problems.testbed.tokenizer import build_tokenizer

PLAIN = "{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}{{ 'go' if add_generation_prompt }}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
CALLS = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
FOLDED = "{{ 9 ** (9 ** 9) }}"
GROWS = "{% set n = namespace(x='a') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"


@pytest.fixture(scope="module")
def rendered() -> TemplateRenderer:
    return TemplateRenderer()


def test_it_is_what_transformers_renders():
    tokenizer = build_tokenizer()
    chat, messages = Chat(tokenizer, []), [{"role": "user", "content": "z= 3 ; ? z", "tool_calls": None}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat.prompt_text(messages, "think") == theirs


@pytest.mark.parametrize("template", [LOOPS, CALLS, FOLDED, GROWS], ids=["loops", "calls", "folded", "grows"])
def test_a_template_without_end_is_refused_and_the_next_is_rendered(rendered, template):
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"more than|MemoryError|recursion|characters"):
        rendered.ask(template=template, messages=[], prompt=True, keywords={})
    assert time.monotonic() - start < 20 * SECONDS
    asked = {"messages": [{"role": "user", "content": "ab"}], "prompt": True, "keywords": {"bos_token": "^"}}
    assert rendered.ask(template=PLAIN, **asked) == {"text": "^abgo"}


def test_a_renderer_that_was_killed_is_started_again(rendered):
    rendered.ask(template=PLAIN)
    os.kill(rendered._process.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match="more than"):
        rendered.ask(template=PLAIN)
    assert rendered.ask(template=PLAIN)["variables"] == ["add_generation_prompt", "bos_token", "messages"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_leaves_the_sandbox_or_fails_is_one_line(template):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template + "<think></think>"
    with pytest.raises(NormprobeError, match="expected a chat template that renders") as refused:
        Chat(tokenizer, [])
    assert "\n" not in str(refused.value)
