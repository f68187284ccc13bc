"""The files that `normprobe importance` adds to a run; the others are in `layout`."""

from __future__ import annotations

from normprobe.runs.run_file import RunFile, columns

OF_IMPORTANCE: dict[str, RunFile] = {
    "importance": RunFile(
        "importance/sentences.parquet",
        "a row per sentence of a thought (`normprobe importance`): how far the answers of draws that replace it lie "
        "from those of draws that keep it",
        columns("""
            response_id      text
            problem_id       text
            sentence         integer  from 0
            start            integer  span in the response's token_ids
            end              integer
            text             text
            n_replaced       integer  draws from before it that go on with other words
            n_kept           integer  the other draws from before it, and those from behind it
            total_variation  number?  of the answers of the two: ½ Σ |p − q|; missing for fewer than 5 draws in either
            chance           number?  its mean if the draws were divided at random
            right_replaced   number?  share of right answers
            right_kept       number?
        """),
    ),
    "importance_draws": RunFile(
        "importance/draws.parquet",
        "a row per draw: a thought written anew from before a sentence, or from behind the last",
        columns("""
            response_id  text
            problem_id   text
            sentence     integer  that it starts before
            draw         integer  0, 1, … for each sentence
            replaced     flag     whether its first sentence has other words than the thought's
            answer       text     final answer, plain; empty if there is none
            correct      flag?
            n_tokens     integer  generated
        """),
    ),
}
