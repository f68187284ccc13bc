"""The command line: fast help, exit codes, one line for every error."""

import json
import subprocess
import sys

import pytest

from normprobe.cli import COMMANDS, main
from normprobe.console import run_main
from normprobe.errors import NormprobeError

HEAVY = [
    "torch",
    "transformers",
    "tokenizers",
    "sae_lens",
    "transformer_lens",
    "matplotlib",
    "pandas",
    "scipy",
]


def modules_after(statement: str) -> list[str]:
    """The heavy modules loaded in a fresh interpreter after `statement`."""
    program = (
        "import sys, json\n"
        f"try:\n    {statement}\nexcept SystemExit:\n    pass\n"
        f"print('\\n' + json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_help_imports_nothing_heavy():
    assert modules_after("import normprobe.cli; normprobe.cli.main(['--help'])") == []
    assert modules_after("import torch") == ["torch"]  # the measurement can fail


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_its_own_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: " in shown
    # What holds without an option is told in words, never by the programmer's name for nothing.
    assert "default: None" not in " ".join(shown.replace("│", " ").split())


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("normprobe: expected ")
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argv",
    [
        ["verify", "--dry-run", "--model", ""],
        ["verify", "--dry-run", "--problems", ""],
        ["verify", "--dry-run", "--saes", ""],
        ["verify", "--dry-run", "--thinking-format", ""],
        ["verify", "--dry-run", "--config", ""],
        ["generate", "why?", "--model", ""],
        ["report", ""],
    ],
    ids=lambda argv: " ".join(argv[:1] + argv[-2:-1]),
)
def test_a_text_in_the_place_of_a_name_is_one_short_line(argv, capsys):
    """Longer than any file system takes for a name."""
    assert main([*argv[:-1], "a question, not a name " * 200]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("normprobe: expected ")
    assert shown.count("\n") == 1
    assert len(shown) < 2100


@pytest.mark.parametrize("argv", [[], ["verfy"], ["--out", "x"]])
def test_wrong_commands_exit_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: normprobe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("verfy", "verify"), ("--verison", "--version"), ("help", "--help"), ("nonsense", "")],
)
def test_a_misspelt_command_names_the_meant_one(typed, meant, capsys):
    with pytest.raises(SystemExit):
        main([typed])
    *_, last = capsys.readouterr().err.splitlines()
    hint = f"; perhaps you meant {meant}" if meant else ""
    assert last == f"normprobe: error: expected a command, got {typed!r}{hint}"


def test_a_misspelt_option_names_the_meant_one(capsys):
    assert main(["verify", "--quik"]) == 2
    assert "perhaps you meant --quick; normprobe verify --help" in capsys.readouterr().err


def test_the_exit_code_is_what_main_returns():
    assert run_main(lambda argv: None) == 0
    assert run_main(lambda argv: 1) == 1
    assert run_main(lambda argv: len(argv or []), ["a", "b", "c"]) == 3


def failing(error: BaseException):
    def main(argv: list[str] | None) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    "error, code, line",
    [
        (
            NormprobeError("expected a, got b;\ndo c"),
            2,
            "normprobe: expected a, got b; do c\n",
        ),
        (
            PermissionError(13, "Permission denied", "runs/x"),
            2,
            "normprobe: expected to read and write runs/x, got: Permission denied; "
            "choose a writable directory with free space, then run again\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "normprobe: interrupted; the same command goes on after the parts that were finished\n",
        ),
    ],
)
def test_errors_are_one_line(error, code, line, capsys):
    assert run_main(failing(error)) == code
    shown = capsys.readouterr()
    assert shown.err == line
    assert shown.out == ""


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_main(failing(ZeroDivisionError()))


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "normprobe", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("normprobe ")
