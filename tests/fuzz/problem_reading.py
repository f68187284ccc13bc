"""What problems are read from: JSON, CSV and Parquet, packed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.hostile import Files, mutated
from fuzz.reader import as_json


def problem_files() -> list[Files]:
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {"question": f"what is {i}+{i}?", "answer": answer, "domain": "sums", "difficulty": i}
        for i, answer in enumerate(["4", "$\\frac{1}{2}$", "#### 7", "(B)", "Paris", "[1, 2)"] * 4)
    ]
    splits = [{"split": ("sae", "select", "measure")[i % 3]} for i in range(24)]
    shuffled = [
        {"Question": f"{i}?", "Correct Answer": "a", "Incorrect Answer 1": "b", **splits[i]}
        for i in range(24)
    ]
    choices = [{"problem": f"q {i}", "choices": ["x", "y"], "answer": 1, **splits[i]} for i in range(24)]
    solved = [
        {"problem": f"q {i}", "solution": "so \\boxed{3}", "level": "Level 5", "type": "Algebra"}
        for i in range(80)
    ]
    rows = [row | splits[i] | {"problem_id": i} for i, row in enumerate(rows)]
    lines = b"\n".join(map(as_json, rows))
    out = io.BytesIO()
    pd.DataFrame(rows).to_parquet(out)
    packed: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }
    return [
        {"p.jsonl": lines},
        *({"p.json": as_json(given)} for given in ({"data": solved}, shuffled, choices)),
        {"p.csv": pd.DataFrame(rows).to_csv(index=False).encode()},
        {"p.parquet": out.getvalue()},
        *({f"p.jsonl{suffix}": pack(lines)} for suffix, pack in packed.items()),
    ]


def packed_problems(random_: random.Random, files: Files) -> Files:
    """As `mutated`; what is packed is rarely a little text that unpacks to very much."""
    (name,) = files
    packs: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
    }
    if (pack := packs.get(name.rpartition(".")[2])) and random_.random() < 0.001:
        return {name: pack(b'{"question": "' + b"a" * 40_000_000)}
    return mutated(random_, files)


def read_problems(folder: Path) -> None:
    from normprobe.problems import open_source

    for path in sorted(folder.iterdir()):
        source = open_source(str(path))
        problems = source.load({}, 0)
        for answer in problems["answer"].dropna().head(3):
            source.score(f"The answer is {answer}", answer)
