"""What the processes of one training send each other."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from normprobe.ranks import ALONE
from normprobe.saes.exchange import connected, least

PROGRAM = Path(__file__).with_name("exchanging.py")


def test_every_process_gets_its_own_layers_and_a_lost_one_is_missed_in_a_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    first, second = (
        subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={**os.environ, **shared, "RANK": number, "LOCAL_RANK": number},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in "01"
    )
    (printed, message), (also_printed, _) = (process.communicate(timeout=120) for process in (first, second))
    for text in (printed, also_printed):  # after what gloo prints in PyTorch 2.9
        assert text.splitlines()[-1] == "exchanged", message
    assert (first.returncode, second.returncode) == (2, 9)
    (line,) = [line for line in message.splitlines() if "expected" in line]
    assert "expected 2 processes of torchrun that train together, got" in line
    assert line.endswith("see what the first of them to end wrote")


@pytest.mark.parametrize("number", [0, 7])
def test_one_process_alone_asks_nobody(number):
    with connected(ALONE):
        assert not torch.distributed.is_initialized()
        assert least(number, ALONE) == number
