"""A claim is one file: put into the folder of the claims it is judged, tabled, captioned, drawn and reported."""

import shutil
import subprocess
import sys
from pathlib import Path

from normprobe import claims

ROOT = Path(__file__).parents[2]
TOY = '''
"""Claim 0: a response has tokens."""

import numpy as np

from normprobe.claims.claim import Claim, Measurement
from normprobe.claims.margin import Form
from normprobe.claims.measure.resampling import row

RULE = "Tokens. Margin = tokens − 0. Supported if its 95 % interval lies above 1."


def measure(tables, resample):
    tokens = tables.tokens.groupby("problem_id").size().to_numpy(dtype=float)
    weights = resample(len(tokens))
    draws = weights @ tokens / weights.sum(axis=1)
    return Measurement(
        estimate=draws,
        forms={"": Form(draws, {"silence": np.zeros_like(draws)})},
        n=len(tokens),
        note="Toys have tokens.",
        series=row("tokens", "this model", draws),
    )


def panel(axes, series, evidence):
    axes.plot(series["estimate"], [0], "o")
    axes.set_xlabel("tokens")


CLAIM = Claim(
    order=99, name="toys_have_tokens", version=1, title="Have toys tokens?", statement="Toys have tokens.",
    caption="Tokens of toys.", rule=RULE, needs=frozenset({"tokens"}), unit="tokens", smallest_effect=1.0,
    why_smallest="One token is none.", rules_out={"silence": "a toy that is silent"},
    measure=measure, panel=panel, figure="fig_99_toy",
)
'''
PROGRAM = """
import sys
from pathlib import Path

import normprobe.claims

normprobe.claims.__path__.append(sys.argv[1])
run = Path(sys.argv[2])
from normprobe.claims.registry import BY_NAME, write_claim, write_verdicts
from normprobe.report.html import write_report
from normprobe.report.table import verdict_table
from normprobe.runs.tables import Tables

write_claim(BY_NAME["toys_have_tokens"], Tables(run), 0, run / "evidence")
print(verdict_table(write_verdicts(run / "evidence")))
write_report(run)
sys.path.insert(0, sys.argv[3])
import make_all

make_all.main(["--run", str(run), "--only", "toys_have_tokens"])
"""


def test_a_claim_in_one_file_is_judged_tabled_captioned_drawn_and_reported(bare_run, tmp_path):
    run = Path(shutil.copytree(bare_run, tmp_path / "run"))
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "toys_have_tokens.py").write_text(TOY)
    before = (run / "evidence" / "late_spike.json").read_bytes()
    arguments = [tmp_path / "claims", run, ROOT / "figures"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("toys_have_tokens")]
    assert "● supported" in row
    report = (run / "report.html").read_text(encoding="utf-8")
    assert 'id="toys_have_tokens"' in report
    assert "Have toys tokens?" in report
    caption = (run / "figures" / "fig_99_toy.txt").read_text(encoding="utf-8")
    assert caption.startswith("Tokens of toys. Estimate: ")
    assert (run / "figures" / "fig_99_toy.pdf").is_file()
    assert (run / "evidence" / "late_spike.json").read_bytes() == before  # no other claim was judged again


def test_no_claim_shares_its_name_its_order_or_its_file():
    from normprobe.claims.registry import CLAIMS

    for field in ("name", "order", "measure"):
        assert len({getattr(claim, field) for claim in CLAIMS}) == len(CLAIMS)
    files = {claim.measure.__module__.rsplit(".", 1)[-1] for claim in CLAIMS}
    assert files == {claim.name for claim in CLAIMS}
    assert files <= {path.stem for path in Path(claims.__path__[0]).glob("*.py")}
