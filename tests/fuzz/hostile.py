"""Hostile inputs out of good ones: values and bytes that nobody meant, each the function of a random number alone.

Not by Hypothesis, whose examples live in the process that they are tried in: an input that hangs or ends the process
must be known from outside, here by reader, seed and number.
"""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import yaml

Files = dict[str, bytes]
"""What a reader is given: the files of a folder by their paths in it."""

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 10**9, 10**12),
    *(float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, "", " ", "\n", "a\nb\r\u2028c", "\x00", "\ud800"),
    *("\u202e", "e\u0301", "𝕬", "ﬁ", "\ufeff", "../../outside", "/dev/zero", "~", "~nobody/x", "{}", "[", "null", "%s"),
    *("NaN", "1e999", "9" * 5000, "a" * 300, "a" * 70_000, "<script>alert(1)</script>", "{{ 7 * 7 }}", "</think>"),
    *("-1", "0", "1e3", "\\boxed{1}", "*a", "hf:a", "lm-eval:x", "http://127.0.0.1:9/x", "file:///etc/passwd"),
    *([], {}, [[]], [None], [0] * 1000, {"": None}, {"a": {"a": {}}}),
)  # fmt: skip
NAMES = ("", "schema", "name", "layer", "tau", "k", "policy", "\n", "__class__", "a.b", "../x", "0", "9" * 50)


def mutated(random_: random.Random, files: Files) -> Files:
    """The files with one of them, sometimes two, changed in its own format or as bytes; rarely one is missing."""
    changed = dict(files)
    for _ in range(random_.choice((1, 1, 1, 2))):
        name = random_.choice([*files])
        if random_.random() < 0.01:
            changed.pop(name, None)
        elif name in changed:
            changed[name] = _mutated_file(random_, name, changed[name])
    return changed


def _mutated_file(random_: random.Random, name: str, content: bytes) -> bytes:
    suffix = next((suffix for suffix in _FORMATS if name.endswith(suffix)), None)
    if suffix is not None and random_.random() < 0.75:
        with suppress(Exception):  # the first of two changes left nothing of its format
            content = _FORMATS[suffix](random_, content)
        if random_.random() < 0.8:
            return content
    return mutated_bytes(random_, content)


def mutated_value(random_: random.Random, value: Any) -> Any:
    """A value as JSON holds it, changed in one to three places."""
    box = [value]
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        owner, key = random_.choice(list(_places(box)))
        _change(random_, owner, key)
    return box[0]


def _places(tree: Any, depth: int = 0) -> Any:
    """All (container, key) pairs of a tree, down to some depth and breadth."""
    for key in list(tree) if isinstance(tree, dict) else range(min(len(tree), 50)):
        yield tree, key
        if isinstance(tree[key], dict | list) and depth < 12:
            yield from _places(tree[key], depth + 1)


def _change(random_: random.Random, owner: Any, key: Any) -> None:
    value, act = owner[key], random_.randrange(12)
    if act < 4:
        owner[key] = random_.choice(ODD)
    elif act == 4:
        _, other = random_.choice(list(_places([owner]))), owner
        owner[key] = json.loads(json.dumps(other)) if random_.random() < 0.5 else [value, value]
    elif act == 5:
        del owner[key]
        if isinstance(owner, list) and not owner:
            owner.append(random_.choice(ODD))
    elif act == 6:
        owner[key] = random_.choice((str(value), [value], {"": value}, {random_.choice(NAMES): value}))
    elif act == 7 and isinstance(value, int | float):
        owner[key] = random_.choice((-value, value + 1, value * 1e6, str(value), bool(value)))
    elif act == 8 and isinstance(value, str):
        at = random_.randrange(len(value) + 1)
        owner[key] = value[:at] + random_.choice([str(odd) for odd in ODD]) + value[at:]
    elif act == 9 and isinstance(owner, dict):
        owner[random_.choice(NAMES)] = owner.pop(key)
    elif act == 10 and isinstance(value, list):
        owner[key] = random_.choice((value[: len(value) // 2], value * random_.choice((2, 200)), value[::-1]))
    else:
        for _ in range(random_.choice((3, 40, 900))):
            value = [value] if random_.random() < 0.5 else {"a": value}
        owner[key] = value


def _json(random_: random.Random, content: bytes) -> bytes:
    text = json.dumps(mutated_value(random_, json.loads(content)), ensure_ascii=random_.random() < 0.7)
    if random_.random() < 0.1 and "{" in text:  # a key that comes twice
        at = random_.choice([i for i, character in enumerate(text) if character == "{"])
        text = (
            f'{text[: at + 1]}"{random_.choice(NAMES)}": {json.dumps(random_.choice(ODD))}, {text[at + 1 :]}'
        )
    return text.encode("utf-8", "surrogatepass")


def _json_lines(random_: random.Random, content: bytes) -> bytes:
    lines = content.splitlines()
    for _ in range(random_.choice((1, 1, 3))):
        at = random_.randrange(len(lines))
        lines[at] = _json(random_, lines[at]).replace(b"\n", b" ")
    return b"\n".join(lines)


_TAGS = (
    "!!python/object/apply:os.system",
    "!!binary",
    "!!timestamp",
    "!!int",
    "!!float",
    "!!set",
    "!!omap",
    "!x",
)


def _chain(whole: str, each: str) -> str:
    """Nine lines, each nine times the one before; each: what stands in a line around the aliases."""
    lines = (
        f"{name}: &{name} {each.format(', '.join([f'*{of}'] * 9))}"
        for of, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    return "\n".join([whole, *lines])


_YAML = (
    *("a: &a [*a]", "? [1]\n: 2", "a: 2001-99-99", "a: !!int x", "- " * 3000, "a: " + "9" * 5000, "%YAML 9.9\n--- x"),
    *("a: 0o9", "<<: 1", "=: 1", "a: &a {<<: *a}", "\t", "--- a\n--- b", "a: 1\na: 2", "a: !!bool x", "a: .inf"),
    *(_chain("a: &a [1]", "[{}]"), _chain("a: &a {x: 1}", "{{<<: [{}]}}")),
)  # fmt: skip


def _yaml(random_: random.Random, content: bytes) -> bytes:
    if random_.random() < 0.15:
        whole = random_.choice(_YAML)
        return (whole if random_.random() < 0.5 else f"{content.decode()}\n{whole}").encode()
    if b"&" in content:  # made before by `_chain`: reading it would take all memory here
        return content
    text = yaml.safe_dump(mutated_value(random_, yaml.safe_load(content)), allow_unicode=True)
    if random_.random() < 0.2:
        at = random_.choice([i for i, character in enumerate(text) if character == " "] or [0])
        text = f"{text[:at]} {random_.choice(_TAGS)} {text[at:]}"
    return text.encode("utf-8", "surrogatepass")


def _safetensors(random_: random.Random, content: bytes) -> bytes:
    """The header changed, its length made right or wrong."""
    (length,) = struct.unpack("<Q", content[:8])
    header = _json(random_, content[8 : 8 + length])
    said = random_.choice((len(header),) * 8 + (0, 2**40, 2**64 - 1, len(header) + 1))
    return struct.pack("<Q", said) + header + content[8 + length :]


def _torch(random_: random.Random, content: bytes) -> bytes:
    """The weights by name changed, and saved again: tensors of another shape or kind, and what is no tensor."""
    import torch

    weights = torch.load(io.BytesIO(content), weights_only=True)
    name = random_.choice([*weights])
    tensor = weights[name]
    weights[name] = random_.choice(
        (
            *(tensor.double(), tensor.half(), tensor.long(), tensor[:1], tensor.flatten(), tensor * float("nan")),
            *(tensor.T, torch.zeros(0), torch.zeros(()), torch.zeros(3, 3, 3), torch.zeros(1).expand(10**12)),
            tensor.to_sparse(),
            random_.choice(ODD),
        )
    )  # fmt: skip
    if random_.random() < 0.3:
        weights[random_.choice(NAMES)] = weights.pop(name)
    out = io.BytesIO()
    torch.save(random_.choice((weights,) * 9 + ([*weights.values()],)), out)
    return out.getvalue()


def _jinja(random_: random.Random, content: bytes) -> bytes:
    from fuzz.templates import mutated_template

    return mutated_template(random_, content.decode("utf-8", "replace")).encode("utf-8", "surrogatepass")


_FORMATS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".yaml": _yaml,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".jinja": _jinja,
}


def mutated_bytes(random_: random.Random, content: bytes) -> bytes:
    """Bytes with flipped bits, a cut, a part of them twice or gone, or others among them."""
    body = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 5))):
        at, end = sorted(random_.randrange(len(body) + 1) for _ in range(2))
        act = random_.randrange(7)
        if act == 0:
            for _ in range(random_.choice((1, 4, 50))):
                if body:
                    body[random_.randrange(len(body))] ^= 1 << random_.randrange(8)
        elif act == 1:
            del body[at:]
        elif act == 2:
            del body[at : min(end, at + 64)]
        elif act == 3:
            body[at:at] = body[at : min(end, at + 200)]
        elif act == 4:
            body[at:at] = random_.randbytes(random_.choice((1, 8, 100)))
        elif act == 5:
            body[at:at] = random_.choice(
                (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"\r", b"[" * 60_000, b"{", b"\xed\xa0\x80")
            )
        else:
            body = bytearray(
                random_.choice(
                    (b"", b"null", b"[]", b"{}", b"PK\x03\x04", body.decode("latin-1").encode("utf-16"))
                )
            )
    return bytes(body)
