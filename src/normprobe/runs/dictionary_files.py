"""The files that `normprobe features` and `normprobe dictionaries` add to a run; the others are in `layout`."""

from __future__ import annotations

from normprobe.runs.run_file import RunFile, columns

OF_DICTIONARIES: dict[str, RunFile] = {
    "feature_pages": RunFile(
        "features/pages.parquet",
        "a row per feature with a page: whether single tokens trigger it (`normprobe features`)",
        columns("""
            layer               integer
            feature             integer
            kind                text      reasoning (the first of I), or matched (a control)
            counterpart         integer?  the feature of the other kind that it was matched with
            r2_tokens           number?   R² of the activation, predicted from the token's identity
            r2_shuffled         number?   the same with the tokens permuted
            difference          number?   mean activation over responses in think − no_think, split measure
            n_texts             integer   no_think responses that tokens were inserted into
            trigger_d           number?   Cohen's d of inserting its triggers
            trigger_p           number?   p of the t-test
            trigger_dependence  text?     token-driven, partially or weakly token-driven, or context-dependent
            trigger_fraction    number?   how far the mean activation moved, over `difference`, of reasoning features
            control_d           number?   the same of inserting tokens of like frequency
            control_p           number?
            control_dependence  text?
            control_fraction    number?
        """),
    ),
    "feature_examples": RunFile(
        "features/examples.parquet",
        "a row per page and example: where the feature fires most, each in another response of the split measure",
        columns("""
            layer        integer
            feature      integer
            rank         integer   from 0, the strongest
            response_id  text
            problem_id   text
            mode         text
            position     integer   of the token in the sequence
            activation   number    there
            place        integer   of the token among `tokens`
            tokens       text      it and those around it, as JSON
            values       text      the activation at each of them, as JSON
        """),
    ),
    "feature_tokens": RunFile(
        "features/tokens.parquet",
        "a row per page and token of its lists",
        columns("""
            layer     integer
            feature   integer
            list      text      trigger, control (of a trigger's frequency), promoted or demoted
            rank      integer   from 0
            token_id  integer
            token     text
            value     number    mean activation at it, split select; of promoted and demoted ones the logit
            n         integer?  how often it comes there
        """),
    ),
    "feature_neighbours": RunFile(
        "features/neighbours.parquet",
        "a row per page and nearest atom of the same dictionary",
        columns("""
            layer      integer
            feature    integer
            rank       integer   from 0
            neighbour  integer
            cosine     number
            selected   flag      whether the neighbour is a reasoning feature
        """),
    ),
    "feature_histograms": RunFile(
        "features/histograms.parquet",
        "a row per page and bin that is not empty",
        columns("""
            layer    integer
            feature  integer
            of       text      think, no_think, filler: activations at the mode's tokens; or logits
            low      number    edges of the bin; 0 and 0: silent
            high     number
            n        integer   tokens in it
        """),
    ),
    "fidelity": RunFile(
        "dictionaries/fidelity.parquet",
        "a row per reader, layer and mode of `normprobe dictionaries`, under SAEBench's names: means over held-out "
        "states of thought and answer, and losses per token that the model wrote while all states of the layer but "
        "sinks are replaced",
        columns("""
            reader                        text
            layer                         integer
            mode                          text
            n_read                        integer   states
            n_written                     integer   tokens
            r2                            number?   1 − Σ‖h − ĥ‖²/Σ‖h − h̄‖² (SAEBench: explained_variance)
            mse                           number?   ‖h − ĥ‖²
            l0                            number?   active features
            l1                            number?   Σ of the codes
            cossim                        number?   cos(h, ĥ)
            l2_norm_in                    number?   ‖h‖
            l2_norm_out                   number?   ‖ĥ‖
            l2_ratio                      number?   ‖ĥ‖/‖h‖
            relative_reconstruction_bias  number?   E‖ĥ‖²/E⟨h, ĥ⟩: below 1 where reconstructions are too short
            frac_alive                    number?   share of features that fire on any of the states
            freq_over_1_percent           number?   share of features that fire on more than 1 % of them
            freq_over_10_percent          number?   the same for 10 %
            ce_loss_without_sae           number?   −ln p of the token, nats, states left alone
            ce_loss_with_sae              number?   the same with every state replaced by its reconstruction
            ce_loss_with_mean             number?   by the site's mean
            ce_loss_with_ablation         number?   by zero
            loss_recovered                number?   (with_mean − with_sae)/(with_mean − without), if that is ≥ 0.05
            ce_loss_score                 number?   the same with zero in the mean's place
            kl_div_with_sae               number?   KL divergence of the next token from the plain model, nats
            kl_div_with_mean              number?   the same with every state replaced by the mean
            kl_div_with_ablation          number?   by zero
            kl_div_score                  number?   1 − with_sae/with_ablation, if that is ≥ 0.05
        """),
    ),
    "stability": RunFile(
        "dictionaries/stability.parquet",
        "a row per feature of the model's dictionaries and dictionary that they are compared with",
        columns("""
            compared_with  text      model_again_1 … (trained again), or random
            layer          integer
            feature        integer   row of the dictionary
            selected       flag      in the index set I
            cosine         number    of its atom and its partner in the best one-to-one matching
        """),
    ),
}
