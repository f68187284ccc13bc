"""The README and the pages, as their readers meet them: every command and program is run, or named with what covers it.

Only places differ: the environment's folder, and the run. A command that costs minutes, or needs the network, a GPU or
vLLM, stands in COVERED with the file that runs it in its stead.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify

from normprobe.claims.registry import CLAIMS
from normprobe.cli import COMMANDS
from normprobe.cli import main as normprobe

ROOT = Path(__file__).parents[1]
BIN, RUN = ".venv/bin/", "runs/tiny-thinker"
SERVING = ROOT / "docs/serve_with_normprobe.md"  # its blocks are run by tests/vllm_engine/test_docs.py
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").rglob("*.md"),
]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

CHAIN = '"math : z= 3 ; a: z *2 ; b: a +4 ; c: b *3 ; ? c"'
RIGHT = r"</think> answer : 8\n"
PRINTS = {
    ".venv/bin/normprobe --help": "|".join(COMMANDS),
    ".venv/bin/normprobe doctor tiny-thinker": r"think +documented: keywords {'enable_thinking': True}",
    ".venv/bin/normprobe verify --dry-run": r"experiments +to run[\s\S]*In all about",
    ".venv/bin/normprobe train-saes --dry-run": r"Dictionaries: 12 layers .* they fit on one",
    ".venv/bin/normprobe theorem": r"(\d+) of \1 steps hold: the theorem is proved",
    ".venv/bin/normprobe theorem --json": '"holds": true',
    f".venv/bin/normprobe generate {CHAIN}": RIGHT,
    f".venv/bin/normprobe trace {CHAIN} --ask think": r"·answer +answer [\s\S]*·8 +answer ",
    f".venv/bin/normprobe generate {CHAIN} --policy alrr --profile {RUN}/layer_profile.json": RIGHT,
    ".venv/bin/normprobe lm-eval --model normprobe --tasks normprobe_testbed --apply_chat_template --limit 4 "
    f"--model_args pretrained=tiny-thinker,policy=alrr,profile={RUN}/layer_profile.json": r"exact_match",
}
"""Command → what its output must hold, as a regular expression."""

CI, VERIFY = ".ci/run", "tests/cli/test_verify.py"
COVERED = {
    "make setup": CI,
    "make browser": CI,
    "make check": CI,
    "make docs": CI,
    "make test": CI,
    'make test PYTEST_ARGS="tests/runs/test_directory.py"': CI,
    "make test-vllm": CI,
    "make reproduce-figures": CI,  # 12 minutes; there with QUICK=1
    "make reproduce-figures QUICK=1": CI,
    "make reproduce-figures MODEL=smol-thinker": "tests/cli/test_real_model.py",  # an hour and a half; there smaller
    f".venv/bin/python -m normprobe.verify --out {RUN}": VERIFY,  # minutes; there with fewer problems
    ".venv/bin/python -m normprobe.verify --model DIR_OR_ID --problems FILE --out runs/mine": VERIFY,
    ".venv/bin/normprobe profile --model DIR_OR_ID --problems FILE --out runs/mine": "tests/test_readme.py",
    f".venv/bin/normprobe audit {RUN}": VERIFY,  # hours; there smaller
    f".venv/bin/normprobe figures {RUN}": "tests/report/test_draw_figures.py",
    f".venv/bin/normprobe report {RUN} --markdown": "tests/report/test_report.py",
    f".venv/bin/normprobe compare {RUN} runs/smol-thinker": "tests/report/test_compare.py",
    f".venv/bin/normprobe dictionaries {RUN}": VERIFY,
    f".venv/bin/normprobe importance {RUN}": VERIFY,  # minutes; there smaller
    f".venv/bin/normprobe evaluate {RUN}": VERIFY,  # 88 minutes; there smaller
    f".venv/bin/normprobe features {RUN}": VERIFY,  # minutes; there smaller
    ".venv/bin/normprobe paradigm runs/rl --sft runs/sft": VERIFY,
    f".venv/bin/normprobe evaluate {RUN} --tasks gsm8k": "tests/experiments/test_task_treatments.py",  # downloads it
    "NORMPROBE=RUN/layer_profile.json vllm serve MODEL": "tests/vllm_engine/test_docs.py",
}
"""Command → the file that runs it, smaller."""


def commands(page: Path) -> list[str]:
    """The commands of a page, continued lines joined, comments cut off."""
    shells = "".join(block for language, block in FENCE.findall(TEXT[page]) if language == "bash")
    lines = re.sub(r" *\\\n *", " ", shells).splitlines()
    return [command for line in lines if (command := re.sub(r"(^| +)# .*", "", line).strip())]


def programs(page: Path) -> list[str]:
    return [block for language, block in FENCE.findall(TEXT[page]) if language == "python"]


HERE = [page for page in PAGES if page != SERVING]
SHOWN = [command for page in HERE for command in commands(page)]


def test_every_command_is_run_or_covered_and_no_entry_is_stale() -> None:
    assert sorted(set(SHOWN)) == sorted({*PRINTS, *COVERED})
    for command, file in COVERED.items():
        assert (ROOT / file).is_file(), command
        if file == CI and command.startswith("make"):
            steps = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(step|begin \w+) {command.split()[1]}\b", steps, re.MULTILINE), command


MARK = r"([✕○●◐–] [a-z ]+?)"


def test_the_readmes_verdicts_are_those_of_the_page_with_the_numbers() -> None:
    """Two studies: a column each in the README, a section each on the page."""
    shown = re.findall(rf"^\| \[?`(\w+)`[^|]*\| {MARK} \| {MARK} \|", TEXT[ROOT / "README.md"], re.MULTILINE)
    sections = TEXT[ROOT / "docs/results.md"].split("\n## smol-thinker: verdicts\n")
    pages = [re.findall(rf"^\| `(\w+)` \| {MARK} \|", section, re.MULTILINE) for section in sections]
    assert [[(name, marks[i]) for name, *marks in shown] for i in range(2)] == pages
    assert [name for name, *_ in shown] == [claim.name for claim in CLAIMS]


def test_the_figures_are_of_the_studies_with_those_numbers() -> None:
    sections = TEXT[ROOT / "docs/results.md"].split("\n## smol-thinker: verdicts\n")
    number = r"[-0-9.]+ \[[-0-9.]+, [-0-9.]+\]"
    for name, section in zip(("tiny-thinker", "smol-thinker"), sections, strict=True):
        given = set(re.findall(rf"^\| `\w+` \| {MARK} \| ({number})<br>", section, re.MULTILINE))
        captions = re.findall(rf"^\*{name}:\* (.*)", TEXT[ROOT / "docs/figures.md"], re.MULTILINE)
        shown = {
            estimate for caption in captions for estimate in re.findall(rf"Estimate: ({number})", caption)
        }
        assert len(shown) >= 8
        assert shown <= {estimate for _, estimate in given}


def test_the_readme_is_read_in_minutes() -> None:
    assert len(TEXT[ROOT / "README.md"].splitlines()) <= 200


def test_code_stands_in_fences_with_a_language() -> None:
    for page in HERE:
        outside = FENCE.sub("", TEXT[page])
        assert (
            re.findall(r"^ {4}(?:\.venv|make |import |from |python|normprobe )\S*", outside, re.MULTILINE)
            == []
        )
        assert {language for language, _ in FENCE.findall(TEXT[page])} <= {"bash", "python", "json", "text"}


def test_the_page_about_serving_is_run_by_a_test_of_its_own() -> None:
    covering = (ROOT / "tests/vllm_engine/test_docs.py").read_text(encoding="utf-8")
    for section in TEXT[SERVING].split("\n## "):
        if "```bash" in section or "```python" in section:
            assert section.partition("\n")[0] in covering


def anchors(text: str) -> set[str]:
    """What can follow # in a link to a page: its headings as mkdocs and GitHub write them."""
    return {slugify(title, "-") for title in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)}


def test_links_lead_somewhere() -> None:
    made = ROOT / "docs/run_layout.md"  # by docs/hooks.py; mkdocs checks what leads into it
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s:]+)\)", FENCE.sub("", TEXT[page])):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file == made or file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(TEXT[file]), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of tiny-thinker with a few problems, up to its layer profile."""
    path = tmp_path_factory.mktemp("runs") / "tiny-thinker"
    sizes = ["--n-sae", "8", "--n-select", "8", "--n-measure", "8"]
    assert normprobe(["profile", "--out", str(path), *sizes]) == 0
    return path


def output(text: str, run: Path, *interpreter: str) -> str:
    """What a command or program of a page prints, in the places of this test."""
    placed = text.replace(BIN, f"{Path(sys.executable).parent}/").replace(RUN, str(run))
    done = subprocess.run([*interpreter, placed], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("command", PRINTS)
def test_commands_print_what_the_page_says(command: str, run: Path) -> None:
    assert re.search(PRINTS[command], output(command, run, "bash", "-ec"))


def test_the_readmes_program_steers_a_model(run: Path) -> None:
    (program,) = programs(ROOT / "README.md")
    steered, suppressed = output(program, run, sys.executable, "-c").splitlines()
    assert "answer : 8" in steered
    assert "answer : 8" not in suppressed


def test_the_indexs_program_reads_a_run(run: Path) -> None:
    (program,) = programs(ROOT / "docs/index.md")
    printed = output(program, run, sys.executable, "-c")
    assert re.findall(r"^\w+(?= \[ ?\d)", printed, re.MULTILINE) == ["filler", "no_think", "think"]
    assert printed.splitlines()[-1].startswith("tiny-thinker [")


def test_every_program_of_a_page_is_run_by_a_test_of_this_file() -> None:
    assert [page.name for page in HERE if programs(page)] == ["README.md", "index.md"]
