"""Plain words for names: every name that a reader could meet has them, and nothing else of a text is touched."""

import re

import pytest

from normprobe.claims.methods_help import CLAIM
from normprobe.experiments.selectors import SELECTORS
from normprobe.experiments.suppression_treatments import TREATMENTS
from normprobe.labels import LABELS, in_words
from normprobe.policies.lrs import FORMS

MILDER = re.compile(r"_0\.\d+$")  # points of the curve of doses, whose label is that of the whole curve


@pytest.mark.parametrize("name", [*(name for name in TREATMENTS if not MILDER.search(name)), *SELECTORS])
def test_what_is_compared_reads_as_words(name):
    assert not re.search(r"_|[a-z]\d", in_words(name))


def test_every_label_is_of_a_name_or_a_part_of_one_that_is_there():
    settings = {"at_peaks", "low_streak", "blow_up", "max_passes"}
    forms = {f"lrs_{form}{per}" for form in FORMS for per in ("", "_per_token")}
    names = {*TREATMENTS, *SELECTORS, *forms, *settings, *CLAIM.rules_out}
    assert [label for label in LABELS if not any(label in name for name in names)] == []


def test_names_are_put_in_words_wherever_they_stand_and_the_rest_stays():
    assert in_words("vote by lrs_A_per_token, top 10%") == "vote by LRS A per token, top 10%"
    assert in_words("random_matched") == "random states moved as far"
    for text in ("high_norm_is_causal", "my_high_norm", "the mean norm"):
        assert in_words(text) == text
