"""The file that `normprobe paradigm` adds to a run; the others are in `layout`."""

from __future__ import annotations

from normprobe.runs.run_file import RunFile, columns

OF_PARADIGM: dict[str, RunFile] = {
    "paradigm": RunFile(
        "paradigm/curves.parquet",
        "a row per run that is compared (`normprobe paradigm`), measured problem, network, layer and scope: means over "
        "tokens",
        columns("""
            paradigm       text      RL (this run), SFT, RL again or SFT again (another seed)
            problem_id     text      the same in every run
            correct        number?   share of right responses of the run's model in think
            subject        text      model, untrained or early (the common base), reading the run's responses
            scope          text      response (thought and answer) or answer (its tokens that both modes wrote)
            layer          integer
            norm_think     number?   mean ‖h‖ over the tokens in think; missing where there are none, like all below
            norm_no_think  number?   the same in no_think
            z_think        number?   mean Σ of the codes of I in think; missing also without as many as the model's
            z_no_think     number?   the same in no_think
        """),
    ),
}
