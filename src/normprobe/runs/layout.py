"""Every file of a run directory: where it lies, what it holds, and the columns of every table."""

from __future__ import annotations

from normprobe.runs.dictionary_files import OF_DICTIONARIES
from normprobe.runs.importance_files import OF_IMPORTANCE
from normprobe.runs.paradigm_files import OF_PARADIGM
from normprobe.runs.run_file import RunFile, arrays, columns

SUBJECTS = ("model", "untrained", "early")
READERS = ("model", "random", "untrained", "early")

_SETTING = """
    regime         text      sampling regime of the problems
    method         text      ALRR, ERSS or CAA
    name           text      the setting in words
    setting        text      the setting as JSON
    n              integer   problems answered
    accuracy       number    share of right answers
    plain          number    the same of the plain model on the same problems
    gained         integer   problems that only the setting gets right
    lost           integer   problems that only the plain model gets right
    rates          text      share of tokens acted on by layer, as JSON
    trigger_rate   number    the same, mean over its layers
    extra_passes   number    extra passes of a layer, as a share of those of the generated tokens
    extra_flops    number    multiplications of these passes, as a share of those of the generated tokens
    tokens         number    tokens generated, as a multiple of the plain model's
"""
_SIGNALS = """
    norm                layer token   ‖h‖₂ of the residual stream after the layer
    entropy_softmax?    layer token   entropy of the state's softmax, nats
    entropy_rms?        layer token   entropy of the normalised state's softmax, nats
    entropy_energy?     layer token   entropy of the shares of ‖h‖², nats
    output_entropy?     layer token   next token's entropy read off the layer (logit lens), nats; NaN where not read
    attention_entropy?  layer token   entropy of the attention weights, mean over heads, nats; NaN in layers without
    surprisal           token         −ln p of the token given those before it, nats; NaN at position 0
"""

FILES: dict[str, RunFile] = {
    "manifest": RunFile("manifest.json", "arguments, identities of the models, packages, hardware, commit"),
    "config": RunFile("config.yaml", "the arguments; `--config` replays them"),
    "report": RunFile("report.html", "everything that was found, in one page"),
    "profile": RunFile(
        "profile/layer_profile.json", "the layer profile; the interventions read a copy beside it"
    ),
    "published_profile": RunFile("layer_profile.json", "the copy, there as long as it is the study's own"),
    "problems": RunFile(
        "problems/problems.parquet",
        "a row per problem",
        columns("""
            problem_id   text       unique
            domain       text?      kind of problem
            difficulty   any?       a number, higher is harder; or a text
            question     text       what the model is asked
            answer       text?      gold answer
            split        text       sae (dictionaries), select (features, thresholds) or measure
        """),
    ),
    "responses": RunFile(
        "responses/responses.parquet",
        "a row per problem, mode and sample: what the model wrote",
        columns("""
            response_id    text       problem_id/mode/sample
            problem_id     text
            split          text
            mode           text       think, no_think or filler
            sample         integer    0, 1, … for each problem and mode
            token_ids      integers   prompt and response
            n_prompt       integer    tokens of the prompt
            thought_start  integer    span of the thought in token_ids
            thought_end    integer
            answer_start   integer    span of the answer; −1 if the thought never ended
            answer_end     integer
            finish         text       stop, or length (cut off at the limit)
            truncated      flag       whether the thought never ended
            leaked         flag       whether it thinks although the prompt had closed the thought
            asked          text       documented, forced or elicited: how the family is asked for the mode
            answer_text    text       the answer as text
            correct        flag?      missing where nobody can tell
        """),
    ),
    "tokens": RunFile(
        "traces/tokens.parquet",
        "a row per token of each traced response (splits select and measure); all arrays per token have this order",
        columns("""
            response_id  text
            problem_id   text
            split        text
            domain       text?
            difficulty   any?
            mode         text
            sample       integer
            position     integer    in the sequence, from 0
            token_id     integer
            token        text       the token as text
            segment      text       prompt, thought, answer or format
            role         text?      computed, copied, plan, connective, format or answer, where the source knows it
            sink         flag       whether it is a massive activation in half of the layers, or the first token
        """),
    ),
    **{
        f"signals/{subject}": RunFile(
            f"traces/{subject}.safetensors",
            f"signals per token of the subject {subject}",
            arrays=arrays(_SIGNALS),
        )
        for subject in SUBJECTS
    },
    "conditions": RunFile(
        "evidence/conditions.parquet",
        "a row per mode: whether the responses are what the claims take them for; shares of responses",
        columns("""
            mode       text
            asked      text      documented, forced or elicited
            n          integer   responses
            thought    number    whose thought holds a token
            leaked     number    that think although the prompt had closed the thought
            truncated  number    cut off at the limit, or in their thought
            answered   number    that hold an answer
            correct    number?   right, of those that can be judged
        """),
    ),
    "training": RunFile(
        "saes/training.parquet",
        "a row per trained dictionary",
        columns("""
            subject                 text      whose states it was trained on
            layer                   integer
            training_tokens         integer   states of the split sae that it was trained on
            held_out_tokens         integer   states of the split select that it is judged on, think and no_think
            r2_held_out             number?   share of their variance that it explains
            l0_held_out             number?   active features per token of theirs
            dead_fraction_held_out  number?   share of features that fire at none of them
        """),
    ),
    "features": RunFile(
        "reductions/features.parquet",
        "a row per reader, layer and feature: which are reasoning features",
        columns("""
            reader         text
            layer          integer
            feature        integer   row of the dictionary
            mean_think     number    mean activation over responses in think, split select
            mean_no_think  number    the same in no_think
            delta          number    mean_think − mean_no_think
            p              number    of the paired t-test that delta > 0
            q              number    p, corrected for the number of features (Benjamini–Hochberg)
            selected       flag      in the index set I; of a control as many as of the model, those of largest t
            matched        flag      a control: not in I, of like activation
        """),
    ),
    "sums": RunFile(
        "reductions/sums.parquet",
        "a row per reader, problem, layer, scope, mode and feature set: mean states over the scope's tokens",
        columns("""
            reader       text
            problem_id   text
            split        text
            layer        integer
            scope        text      response (thought and answer) or answer
            mode         text
            feature_set  text      reasoning (I), plus (I⁺), matched, top8, top32 or top128
            n_tokens     integer
            h_sq_mean    number?   mean of ‖h‖²; missing for top…, like all below with a question mark
            norm_mean    number    mean of ‖h‖
            r_sq_mean    number?   mean of ‖r‖², r the dictionary's residual
            z_sum        number    Σ of the set's mean codes
            z_l1_active  number?   how many of them are above 0
            h_sq         number?   ‖h̄‖² of the mean state
            b_sq         number?   ‖B̄‖², what the other features and the bias make of h̄
            rpart_sq     number?   ‖R̄‖², what the set makes of h̄
            br           number?   ⟨B̄, R̄⟩
            r_sq         number?   ‖r̄‖²
        """),
    ),
    "pairs": RunFile(
        "reductions/pairs.parquet",
        "a row per reader, problem answered in both modes, layer, scope and feature set",
        columns("""
            reader          text
            problem_id      text
            split           text
            layer           integer
            scope           text
            feature_set     text      reasoning or plus
            s               number    ΣΔ, Δ the mean code in think minus that in no_think
            k_delta         integer   features with Δ ≠ 0
            k_think         integer   features active in think
            leak            number?   ‖b‖₁/‖a‖₁, b and a the mean codes in no_think and think
            overlap         number?   features active in both modes, as a share of those in either
            negative_share  number?   share of the set with Δ < 0
        """),
    ),
    "dictionary": RunFile(
        "reductions/dictionary.parquet",
        "a row per reader and layer: what A1 and A2 need",
        columns("""
            reader             text
            layer              integer
            d                  integer   width of the residual stream
            width              integer   features
            n_selected         integer   reasoning features; of a control fewer than of the model only where fewer fire
            mean_abs_cos       number?   mean |cos| of two atoms
            max_abs_cos        number?   largest |cos|
            mu_selected        number?   largest |cos| of two atoms in I
            mu_minus_selected  number?   largest −cos of two atoms in I
            c_star_selected    number?   c* of THEOREM's A1 on I
            r2                 number?   share of variance explained on the split measure
            eps_mean           number?   mean ‖r‖/‖h‖
        """),
    ),
    "z": RunFile(
        "reductions/tokens.safetensors",
        "summed feature activations per token; the names are READER/ARRAY",
        arrays=arrays("""
            z_reasoning  layer token   Σ of the codes of I
            z_matched    layer token   Σ of the codes of the matched features
            z_total      layer token   Σ of all codes
        """),
    ),
    "suppression": RunFile(
        "experiments/suppression.parquet",
        "a row per measured problem and treatment of the suppression experiment",
        columns("""
            problem_id       text
            mode             text
            correct          flag?
            n_tokens         integer   generated
            n_suppressed     integer   changed states: tokens × layers
            delta_norm       number?   mean ‖Δh‖ over those
            treatment        text
            factor           number?   what is left of the norm of a changed state; missing where that varies
            on_same_tokens?  number?   random treatments: share of their tokens that the copied treatment changed too
        """),
    ),
    "method_treatments": RunFile(
        "methods/treatments.parquet",
        "a row per held-out problem and treatment of `normprobe evaluate`",
        columns("""
            problem_id    text
            mode          text
            answer        text      empty if the thought never ended
            correct       flag?
            n_tokens      integer   generated
            n_triggered   integer   states acted on: tokens × layers
            n_passes      integer   extra passes of one layer for one token
            delta_norm    number?   mean ‖Δh‖ over the triggered states
            rates         text      share of tokens acted on by layer, as JSON
            extra_passes  number    extra passes, as a share of the layer passes of the generated tokens
            extra_flops   number    their multiplications, as a share of those of the generated tokens
            seconds       number    of the CPU, for all problems of the treatment
            treatment     text
            name          text      the setting in words
        """),
    ),
    "sweep": RunFile(
        "methods/sweep.parquet", "a row per regime and setting, on tuning problems", columns(_SETTING)
    ),
    "confirmed": RunFile(
        "methods/confirmed.parquet", "the promising settings on held-out problems", columns(_SETTING)
    ),
    "sensitivity": RunFile(
        "methods/sensitivity.parquet",
        "a row per knob of a method and value",
        columns(f"{_SETTING}\n    knob  text  which one is turned\n    value  any  its value"),
    ),
    "selection": RunFile(
        "methods/selection.parquet",
        "a row per held-out problem and selector, all choosing among the same samples",
        columns("""
            selector    text
            problem_id  text
            sample      integer   the chosen one
            answer      text?
            correct     flag?
            tokens?     integer   written for the choice, of all samples of the problem
        """),
    ),
    "combinations": RunFile(
        "methods/combinations.parquet",
        "a row per combination of methods and problem",
        columns("""
            combination  text
            problem_id   text
            correct      flag?
        """),
    ),
    "tasks": RunFile(
        "tasks/tasks.parquet",
        "a row per task of lm-evaluation-harness, filter of its answers, document, treatment and sample",
        columns("""
            task          text
            metric        text      the task's first one, with the filter if the task has several
            problem_id    text      task/document
            correct       number    the metric; lower-is-better ones with their sign turned
            n_tokens      integer   generated
            sample        integer   from 0
            treatment     text
            acted         number?   states acted on, per generated token and layer; missing for the plain model
            extra_tokens  number    extra passes of layers, counted as tokens: a pass of every layer is one
        """),
    ),
    **OF_DICTIONARIES,
    **OF_IMPORTANCE,
    **OF_PARADIGM,
    "features_html": RunFile("features.html", "the pages of the features"),
    "verdicts": RunFile("evidence/verdicts.json", "what every judged claim returned"),
    "skipped": RunFile("evidence/skipped.json", "the claims that were not judged, and why"),
    "audit": RunFile("audit/audit.json", "nulls, planted effects, subjects in the model's place, coverage"),
}
"""By name. Besides: `saes/READER/layer_NN/` and `dictionaries/model_again_N/layer_NN/` in SAELens's format,
`features/neuronpedia/layer_NN/` in SAEDashboard's, and `evidence/CLAIM.parquet`, what a panel draws."""


def columns_markdown() -> str:
    """The layout as Markdown: a heading per file, and its columns or arrays as a table."""
    return "\n".join(file.markdown() for file in FILES.values())
