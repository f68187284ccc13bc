"""Hostile chat templates: a good one with pieces of Jinja put in that loop, grow, escape or fail."""

from __future__ import annotations

import itertools
import random

ENDLESS = (
    # in time
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% for a in cycler(1) %}{% endfor %}",
    "{{ 'a' in ('b' * 99999999) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 10 ** (10 ** 9) }}",
    # in memory
    "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ 'a' | center(9999999999) }}",
    "{{ 'a'.ljust(9999999999) }}",
    "{{ lipsum(n=99999999) }}",
    "{% for a in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
    "{{ range(999999999) | list }}",
    "{{ messages | tojson(indent=999999999) }}",
    "{{ 'a' | indent(9999999999, true) }}",
    "{{ 'a' | replace('', 'b' * 99999) | replace('b', 'c' * 99999) }}",
    "{{ [1] | batch(999999999, 0) | list }}",
)  # fmt: skip
"""Rare: each takes as long as it may."""
PIECES = (
    # ways out of the sandbox
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch outside') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ ''['__cl' ~ 'ass__'] }}",
    "{{ namespace(__class__=1).__class__ }}",
    "{{ lipsum.__globals__['os'] }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '../../outside' %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    # failures of every kind
    "{{ raise_exception('no\nuse') }}",
    "{{ raise_exception(messages) }}",
    "{{ 1 / 0 }}",
    "{{ nothing.at.all }}",
    "{{ messages[99].content }}",
    "{{ messages['x']['y'] }}",
    "{{ 'a' + 1 }}",
    "{{ [] | first.x }}",
    "{{ '9' * 5000 | int }}",
    "{{ (9 ** 9999) }}",
    "{{ strftime_now('%Y') }}",
    "{{ strftime_now('\ud800%') }}",
    "{{ strftime_now(messages) }}",
    "{{ '\ud800' }}",
    "{{ messages | tojson | safe | list | tojson }}",
    "{{ namespace | tojson }}",
    "{{ undefined_function() }}",
    "{{ dict(a=dict) | tojson }}",
    "{% break %}",
    "{% generation %}",
    "{% raw %}",
    "{#",
    "{{",
    "{% for %}",
    "(" * 300,
    "{{ " + "(" * 3000 + ")" * 3000 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "1 ~ " * 5000 + "1 }}",
    "{% if x %}" * 2000,
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
    # marks and switches in odd places
    "<think>", "</think>", "qthoughtq", "<a>qthoughtq<b>" * 2000, "qanswerq", "{{ enable_thinking }}",
    "{{ thinking | length }}", "{{ reasoning_effort.x }}", "{{ think_ }}" , "/no_think", "[THINK][/THINK]",
    "seed:think thinking_budget", "<|start|><|message|>{{ reasoning_effort }}", "<response></response>",
    "detailed thinking", "{{ filler_tokens }}", "\x00", "\u202e",
)  # fmt: skip


def mutated_template(random_: random.Random, template: str) -> str:
    """The template with one to three pieces put in at tags, or in place of a part of it."""
    for _ in range(random_.choice((1, 1, 2, 3))):
        at = random_.choice(
            [
                0,
                len(template),
                *(
                    i
                    for i, pair in enumerate(itertools.pairwise(template))
                    if pair in (("{", "%"), ("{", "{"))
                ),
            ]
        )
        piece = random_.choice(ENDLESS if random_.random() < 0.0005 else PIECES)
        end = at if random_.random() < 0.7 else min(len(template), at + random_.randrange(60))
        template = template[:at] + piece + template[end:]
    return template
