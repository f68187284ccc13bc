"""The words of the testbed, and the fixed table of facts.

Every definition has a key token of its own (`c:` defines, `c=` gives a value, `c` refers), and an operator is
one token with what it is applied to (`+9`, `^q`), so that one step of induction retrieves each part of a
definition: retrieval, not computing, limits small models.
"""

import random
from string import ascii_lowercase

MODULUS = 11
MAX_DIFFICULTY = 8
N_BITS = 3

PAD, UNKNOWN, START, END, THINK, END_THINK = (
    "<|endoftext|>",
    "<|unk|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
)
SPECIAL = (PAD, UNKNOWN, START, END, THINK, END_THINK)
FILLER = "."

NAMES = tuple(ascii_lowercase)
NUMBERS = tuple(str(n) for n in range(MODULUS))
WORDS = tuple(f"{n:0{N_BITS}b}" for n in range(2**N_BITS))
ADDITIONS = tuple(f"+{n}" for n in range(1, MODULUS))
PRODUCTS = tuple(f"*{n}" for n in range(2, MODULUS))
GATES = ("&", "|", "^")

PEOPLE = tuple(
    (
        "Ada Alan Amos Anna Beth Bram Cara Carl Cleo Cora Dana Dean Dora Drew Edna Elsa Emil Enid Eric Esme "
        "Evan Faye Finn Gail Glen Greg Hans Hope Hugo Iris Ivan Jack Jane Joan Joel June Karl Kate Kurt Lars "
        "Lena Liam Lola Luke Mark Mary Nell Noel Nora Olga Omar Otto "
    ).split()
)
RELATIONS = ("mother", "father", "teacher", "friend", "doctor", "boss", "rival", "cousin", "tenant", "baker")

DOMAINS = ("arithmetic", "boolean", "pointer", "recall")
HEADINGS = {"arithmetic": "math", "boolean": "bool", "pointer": "graph", "recall": "facts"}
PLAN_LINKS = ("from", "via", "needs")
STEP_LINKS = ("then", "next", "now")
RESULT_LINKS = ("so", "hence", "thus")

VOCABULARY = (
    *SPECIAL,
    *("user", "assistant", "system", FILLER, ":", ";", ",", "?", "of", "is", "note", "plan", "answer"),
    *HEADINGS.values(),
    *PLAN_LINKS,
    *STEP_LINKS,
    *RESULT_LINKS,
    *NUMBERS,
    *WORDS,
    *ADDITIONS,
    *PRODUCTS,
    *(f"{gate}{name}" for gate in GATES for name in NAMES),
    *NAMES,
    *(f"{name}:" for name in NAMES),
    *(f"{name}=" for name in NAMES),
    *PEOPLE,
    *RELATIONS,
)


def _facts() -> dict[str, dict[str, str]]:
    """Relation → person → person. Each relation is a permutation: no person is the likelier answer."""
    rng = random.Random("normprobe facts, version 1")
    table = {}
    for relation in RELATIONS:
        image = list(PEOPLE)
        rng.shuffle(image)
        table[relation] = dict(zip(PEOPLE, image, strict=True))
    return table


FACTS = _facts()
