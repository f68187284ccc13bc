"""The four domains: how a question is drawn, and the thought that solves it."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import and_, or_, xor
from typing import Literal, NamedTuple

from normprobe.problems.testbed.vocabulary import (
    ADDITIONS,
    FACTS,
    GATES,
    HEADINGS,
    MODULUS,
    N_BITS,
    NAMES,
    PEOPLE,
    PLAN_LINKS,
    PRODUCTS,
    RELATIONS,
    RESULT_LINKS,
    STEP_LINKS,
)

Role = Literal["computed", "copied", "plan", "connective", "format", "answer"]
MAX_DISTRACTORS = 3  # in training; their number is drawn
CROWDED = 7  # as many as the alphabet has names for in every domain at every difficulty


class Token(NamedTuple):
    """One token of a thought and its role there: `computed` is new, `copied` restates what stands before."""

    text: str
    role: Role


@dataclass(frozen=True)
class Draft:
    """A drawn question (tokens), its thought, its answer, and the key of what is asked, distractors aside."""

    question: list[str]
    thought: list[Token]
    answer: str
    key: tuple[str, ...]


def _tokens(role: Role, texts: Iterable[str]) -> list[Token]:
    return [Token(text, role) for text in texts]


def _plan(rng: random.Random, targets: list[str]) -> list[Token]:
    """The plan: what is asked, what that needs, and so on back to what is given."""
    tokens = [*_tokens("format", ["plan", ":"]), Token(targets[0], "plan")]
    for target in targets[1:]:
        tokens += [Token(rng.choice(PLAN_LINKS), "connective"), Token(target, "plan")]
    return [*tokens, Token(";", "format")]


def _step(rng: random.Random, copied: list[list[str]], results: list[str]) -> list[Token]:
    """One step forwards: a link, what is restated (groups set apart by commas), and the result with its lead-in."""
    tokens = [Token(rng.choice(STEP_LINKS), "connective")]
    for i, group in enumerate(copied):
        tokens += ([Token(",", "format")] if i else []) + _tokens("copied", group)
    *lead, result = results
    for text in lead:
        tokens.append(Token(text, "connective" if text in RESULT_LINKS else "copied"))
    return [*tokens, Token(result, "computed"), Token(";", "format")]


def _question(rng: random.Random, domain: str, definitions: list[list[str]], asked: list[str]) -> list[str]:
    """Shuffled definitions, each closed by `;`, then what is asked."""
    shuffled = rng.sample(definitions, len(definitions))
    return [
        HEADINGS[domain],
        ":",
        *(text for definition in shuffled for text in [*definition, ";"]),
        "?",
        *asked,
    ]


def _apply(value: int, operation: str) -> int:
    constant = int(operation[1:])
    return (value + constant if operation[0] == "+" else value * constant) % MODULUS


def _arithmetic(rng: random.Random, difficulty: int, distractors: int | None) -> Draft:
    """`a= 7 ; b: a +9 ; c: b *3 ; ? c`, modulo 11. A distractor is a short chain of its own.

    Were a name of the chain the operand of a distractor too, no single earlier token would tell which operation
    follows it: an earlier form of this testbed had that, and retrieval by tiny models failed there.
    """
    names = rng.sample(NAMES, difficulty + 1 + 2 * _room(distractors))
    chain, spare = names[: difficulty + 1], names[difficulty + 1 :]
    values = [rng.randrange(MODULUS)]
    operations = [rng.choice(ADDITIONS + PRODUCTS) for _ in range(difficulty)]
    definitions = [[f"{chain[0]}=", str(values[0])]]
    thought = _plan(rng, chain[::-1])
    for (source, target), operation in zip(pairwise(chain), operations, strict=True):
        definitions.append([f"{target}:", source, operation])
        result = _apply(values[-1], operation)
        thought += _step(
            rng,
            [[f"{target}:", source, operation], [f"{source}=", str(values[-1])]],
            [rng.choice(RESULT_LINKS), f"{target}=", str(result)],
        )
        values.append(result)
    for source, target in _distractor_names(rng, spare, distractors):
        definitions.append([f"{source}=", str(rng.randrange(MODULUS))])
        definitions.append([f"{target}:", source, rng.choice(ADDITIONS + PRODUCTS)])
    question = _question(rng, "arithmetic", definitions, [chain[-1]])
    key = ("arithmetic", str(values[0]), *operations, *chain)
    return Draft(question, thought, str(values[-1]), key)


def _room(distractors: int | None) -> int:
    return MAX_DISTRACTORS if distractors is None else distractors


def _count(rng: random.Random, distractors: int | None) -> int:
    """As many as asked for, or as in training."""
    return rng.randint(0, MAX_DISTRACTORS) if distractors is None else distractors


def _distractor_names(rng: random.Random, spare: list[str], distractors: int | None) -> list[tuple[str, str]]:
    """The names of each distractor: a given value, and what is defined by it."""
    pairs = list(zip(spare[::2], spare[1::2], strict=True))
    return pairs[: _count(rng, distractors)]


def _bits(value: int) -> str:
    return f"{value:0{N_BITS}b}"


def _boolean(rng: random.Random, difficulty: int, distractors: int | None) -> Draft:
    """A circuit on three assignments at once: `p= 101 ; q= 011 ; r: p ^q ; ? r`, gates acting bit by bit.

    Each gate takes the last gate's output and some earlier wire, so that depth is the difficulty. Three bits,
    since with one a guess is right half of the time and the room between modes is too small to see an effect;
    half the gates are `^`, since `&` and `|` alone drive deep circuits to a constant. A distractor is a given
    wire of its own and a gate on it.
    """
    n_inputs = rng.randint(2, 3)
    names = rng.sample(NAMES, n_inputs + difficulty + 2 * _room(distractors))
    inputs, rest = names[:n_inputs], names[n_inputs:]
    gates, spare = rest[:difficulty], rest[difficulty:]
    value = {name: rng.randrange(2**N_BITS) for name in inputs}
    definitions = [[f"{name}=", _bits(value[name])] for name in inputs]
    thought = _plan(rng, [*gates[::-1], inputs[0]])
    previous, key = inputs[0], ["boolean"]
    for name in gates:
        other = rng.choice([wire for wire in value if wire != previous])
        gate = rng.choice([*GATES, "^"])
        definitions.append([f"{name}:", previous, gate + other])
        value[name] = {"&": and_, "|": or_, "^": xor}[gate](value[previous], value[other])
        restated = [
            [f"{name}:", previous, gate + other],
            *([f"{w}=", _bits(value[w])] for w in (previous, other)),
        ]
        thought += _step(rng, restated, [rng.choice(RESULT_LINKS), f"{name}=", _bits(value[name])])
        key += [name, previous, gate + other]
        previous = name
    wires = list(value)
    for source, target in _distractor_names(rng, spare, distractors):
        definitions.append([f"{source}=", _bits(rng.randrange(2**N_BITS))])
        definitions.append([f"{target}:", source, rng.choice(GATES) + rng.choice(wires)])
    question = _question(rng, "boolean", definitions, [gates[-1]])
    return Draft(question, thought, _bits(value[gates[-1]]), (*key, *(_bits(value[name]) for name in inputs)))


def _pointer(rng: random.Random, difficulty: int, distractors: int | None) -> Draft:
    """`a: f ; f: k ; k: m ; ? a 3` asks where three pointers lead from `a`. Distractors are pointers off the path."""
    n_distractors = _count(rng, distractors)
    names = rng.sample(NAMES, difficulty + 2 + n_distractors)
    path, spare = names[: difficulty + 1], names[difficulty + 1 :]
    links = list(pairwise(path))
    # The path always goes on beyond the answer, else the one node without a pointer would give the answer away.
    beyond = [(path[-1], spare[0])]
    off = [(name, rng.choice(path[1:])) for name in spare[1:]]
    thought = _plan(rng, [str(n) for n in range(difficulty, 0, -1)])
    for count, (source, target) in enumerate(links, start=1):
        thought += _step(rng, [[str(count), f"{source}:"]], [target])
    question = _question(
        rng, "pointer", [[f"{a}:", b] for a, b in links + beyond + off], [path[0], str(difficulty)]
    )
    return Draft(question, thought, path[-1], ("pointer", *path))


def _recall(rng: random.Random, difficulty: int, distractors: int | None) -> Draft:
    """`? teacher of mother of Ada` over the fixed table of facts. Distractors are other true facts of the table."""
    person, relations = rng.choice(PEOPLE), [rng.choice(RELATIONS) for _ in range(difficulty)]
    key = ("recall", person, *relations)
    asked = [text for relation in reversed(relations) for text in (relation, "of")] + [person]
    thought = _plan(rng, [*relations[::-1], person])
    for relation in relations:
        target = FACTS[relation][person]
        thought += _step(rng, [[person, relation, "is"]], [target])
        person = target
    notes = []
    for _ in range(_count(rng, distractors)):
        other, relation = rng.choice(PEOPLE), rng.choice(RELATIONS)
        notes.append(["note", other, relation, "is", FACTS[relation][other]])
    return Draft(_question(rng, "recall", notes, asked), thought, person, key)


DRAW: dict[str, Callable[[random.Random, int, int | None], Draft]] = {
    "arithmetic": _arithmetic,
    "boolean": _boolean,
    "pointer": _pointer,
    "recall": _recall,
}
