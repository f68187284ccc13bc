"""`normprobe --print-completion SHELL`: what bash completes is what the commands take."""

import subprocess
import sys
from pathlib import Path

import pytest

from normprobe.cli import COMMANDS, SHELLS, main

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_tyro_normprobe
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completions of bash, as a user's start-up file keeps them."""
    path = tmp_path_factory.mktemp("completion") / "normprobe.bash"
    command = [sys.executable, "-m", "normprobe", "--print-completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


def completed(script: Path, *words: str) -> set[str]:
    command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), "normprobe", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_choices_and_paths(script, tmp_path):
    assert completed(script, "") >= set(COMMANDS)
    assert completed(script, "comp") == {"compare"}
    assert completed(script, "generate", "--m") == {"--mode", "--model", "--max-new-tokens"}
    assert completed(script, "verify", "--dtype", "") == {"float32", "bfloat16", "float16"}
    (tmp_path / "a_run").mkdir()
    for command in ("report", "compare", "evaluate"):
        assert completed(script, command, f"{tmp_path}/") == {f"{tmp_path}/a_run"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_that_names_every_command(shell, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", shell])
    assert not stopped.value.code
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", "csh"])
    assert stopped.value.code == 2
    assert "invalid choice: 'csh'" in capsys.readouterr().err
