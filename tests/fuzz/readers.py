"""What reads files that somebody else may have written, in one table; and one reader that does everything wrong.

A reader is given a folder with the files of one input. It accepts them, or raises NormprobeError.
"""

from __future__ import annotations

import random
from pathlib import Path

from fuzz import (
    dictionary_reading,
    model_reading,
    problem_reading,
    run_reading,
    setting_reading,
    text_reading,
)
from fuzz.hostile import Files
from fuzz.reader import Reader

READERS = {
    reader.name: reader
    for reader in (
        Reader("layer profile", run_reading.profiles, run_reading.read_profile),
        Reader("run: verdicts, audit, manifest", run_reading.run_files, run_reading.read_run),
        Reader("run: tables and arrays", run_reading.tables, run_reading.read_tables),
        Reader("study", setting_reading.studies, setting_reading.read_study),
        Reader("thinking format", setting_reading.formats, setting_reading.read_format),
        Reader("policy of a request", setting_reading.policies, setting_reading.read_policy),
        Reader(
            "problems",
            problem_reading.problem_files,
            problem_reading.read_problems,
            problem_reading.packed_problems,
        ),
        Reader("dictionaries", dictionary_reading.dictionaries, dictionary_reading.read_dictionaries),
        Reader("adapter, hub's cache", model_reading.adapters, model_reading.read_adapter),
        Reader("config.json", model_reading.configurations, model_reading.read_configuration),
        Reader("weights and their index", model_reading.checkpoints, model_reading.read_checkpoint),
        Reader("chat template", text_reading.templates, text_reading.read_template),
        Reader(
            "spans of a response",
            text_reading.responses,
            text_reading.read_response,
            text_reading.hostile_response,
        ),
    )
}


def _read_wrongly(folder: Path) -> None:
    import os
    import subprocess
    import time

    match (folder / "wrong.txt").read_text():
        case "raises":
            raise KeyError("x")
        case "hangs":
            time.sleep(600)
        case "ends":
            os._exit(3)
        case "grows":
            bytearray(2**31)
        case "writes":
            (folder / "../../outside").write_text("")
        case "starts":
            subprocess.run(["true"])


def _wrong(random_: random.Random, files: Files) -> Files:
    return {
        "wrong.txt": random_.choice(
            (b"raises", b"hangs", b"ends", b"grows", b"writes", b"starts", b"nothing")
        )
    }


WRONG = Reader("one that does everything wrong", lambda: [{"wrong.txt": b"nothing"}], _read_wrongly, _wrong)
