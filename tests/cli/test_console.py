"""Where stderr is a log no library draws a bar, and a reader who leaves early gets no traceback."""

import os
import pty
import re
import subprocess
import sys
import termios
from importlib import import_module

import nbformat
from nbclient import NotebookClient

from normprobe.console import shows_bars

BARS = """
import subprocess, sys
from huggingface_hub.utils import tqdm as of_the_hub
from tqdm.auto import tqdm
from transformers.utils.logging import tqdm as of_transformers

from normprobe.console import run_main

CHILD = "from tqdm import tqdm; list(tqdm(range(2), desc='child'))"

def main(argv):
    for name, bar in {"hub": of_the_hub, "plain": tqdm, "transformers": of_transformers}.items():
        list(bar(range(2), desc=name, disable=False))
    subprocess.run([sys.executable, "-c", CHILD])

run_main(main)
list(tqdm(range(2), desc="afterwards"))
"""


def test_a_log_has_no_bar_of_any_library_even_if_it_was_imported_before():
    variables = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    done = subprocess.run(
        [sys.executable, "-c", BARS], capture_output=True, text=True, check=True, env=variables
    )
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line]
    assert {line.partition(":")[0] for line in lines} == {"afterwards"}
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    subprocess.run([sys.executable, "-c", BARS], stderr=follower, check=True, env=variables)
    shown = os.read(leader, 10_000).decode()
    assert all(f"{name}: 100%" in shown for name in ("hub", "plain", "transformers", "child", "afterwards"))


def test_a_reader_who_leaves_early_gets_no_traceback():
    command = [sys.executable, "-m", "normprobe", "models", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_bars_are_drawn_in_a_notebook_and_not_where_a_program_knows_of_notebooks(tmp_path):
    """A client of notebooks imports parts of the kernel, and is none."""
    ask = "from normprobe.console import shows_bars; shows_bars()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ask)])
    NotebookClient(notebook, startup_timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert notebook.cells[0].outputs[0]["data"]["text/plain"] == "True"
    assert import_module("ipykernel.kernelapp")
    assert not shows_bars()
