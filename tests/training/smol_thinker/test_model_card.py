"""The model card of smol-thinker: what its tables and its summary say of answers that are known."""

import re

import pandas as pd
import pytest

from normprobe.errors import NormprobeError
from normprobe.problems.smol_thinker.families import FAMILIES
from normprobe.training.smol_thinker.dialogue import response
from normprobe.training.smol_thinker.model_card import accuracy_table, learning_curve, summary, write_card
from normprobe.training.smol_thinker.role_reading import read


def answers(think: float, no_think: float, *, levels=(1, 2), family="chain_sum", n=20) -> pd.DataFrame:
    """n problems a level, of which so many are right in each mode; every thought is closed."""
    rows = [
        {"family": family, "level": level, "mode": mode, "right": i < share * n, "closed": True}
        for level in levels
        for mode, share in (("think", think), ("no_think", no_think))
        for i in range(n)
    ]
    return pd.DataFrame(rows)


def test_the_table_has_a_row_per_level_with_intervals_and_the_difference():
    rows = accuracy_table(answers(0.9, 0.4)).splitlines()
    assert rows[0] == "| family | level | think | no_think | think − no_think | thoughts closed |"
    assert rows[2] == "| chain_sum | 1 | 90 [68, 99] | 40 [19, 64] | 50 | 100 [83, 100] |"
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("think", "no_think", "said"),
    [
        (0.9, 0.4, None),
        (1.0, 0.4, "the hardest level outside"),
        (0.9, 0.7, "thinking gains less than 30 points"),
        (0.5, 0.1, "think below 85 %"),
    ],
)
def test_the_summary_names_what_a_family_lacks(think, no_think, said):
    (line,) = summary(answers(think, no_think)).splitlines()
    assert line.startswith("- chain_sum: think ")
    assert ("Not as asked" in line) == (said is not None)
    assert said is None or said in line


def test_the_learning_curve_reads_every_check(tmp_path):
    for step, share in ((5, 0.1), (10, 0.5)):
        families = [
            answers(share, 0.0, family=name) for name in ("chain_sum", "spell_backward", "knights_knaves")
        ]
        families += [answers(share, 0.0, family=name) for name in ("leg_counting", "letter_counting")]
        pd.concat(families).assign(step=step).to_csv(tmp_path / f"accuracy_{step:05d}.csv", index=False)
    head, _, first, second = learning_curve(tmp_path).splitlines()
    assert head.startswith("| step | chain_sum |")
    assert first.startswith("| 5 | 10 [")
    assert second.startswith("| 10 | 50 [")


def test_a_folder_without_adapters_is_refused(tmp_path):
    with pytest.raises(NormprobeError, match=r"expected trained adapters in .*, got none; train them first"):
        write_card(tmp_path, per_level=1, device="cpu")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_solvers_own_text_is_read_whole_and_other_lines_are_not_compared(name):
    (problem,) = FAMILIES[name].problems(1, 1, seed=3)
    text = response(FAMILIES[name].demonstrate(problem), "think")
    tokens = re.findall(r"<\W*\w+\W*>|\w+|\W", text)
    assert "".join(tokens) == text
    whole = read(problem, tokens)
    assert whole.read == whole.tokens == len(tokens)
    assert whole.shared == whole.agreeing > 0.5 * len(tokens)
    odd = read(problem, ["<think>", "\n", "what ", "now", "\n", *tokens[2:]])
    assert odd.tokens - odd.read == 2
    assert odd.shared == odd.agreeing == whole.shared
