"""What each panel shows, in words: titles and captions of the figures and of the report."""

from __future__ import annotations

from normprobe.claims.evidence import Evidence
from normprobe.report.table import count, with_interval

# Questions, because a title must not announce what the verdict below it may deny.
_TITLES = {
    "late_spike": "Do reasoning features rise in the last quarter of the layers?",
    "thinking_norm_is_higher": "Is the norm higher when the model thinks?",
    "norm_tracks_features": "Does the norm track the reasoning features?",
    "entropies_do_not": "Do the entropies track them less than the norm does?",
    "assumptions": "Do the theorem's assumptions hold?",
    "two_sided_bound": "Does the two-sided bound hold on other problems?",
    "marks_critical_steps": "Is the norm higher where something is computed?",
    "high_norm_is_causal": "Does suppressing high-norm states hurt more than suppressing matched ones?",
    "domain_and_difficulty": "Is the norm amplified more on harder problems, and does it separate domains?",
    "hard_tokens_grow_norm": "Do tokens that were hard to predict early end with a high norm?",
    "methods_help": "Do ALRR, ERSS and LRS help, beyond other uses of the same compute?",
}


_SHOWN = {
    "late_spike": (
        "Summed activation of the reasoning features by layer, think minus no_think, divided by the layer's mean norm "
        "(codes scale with the state, and the state grows with depth). Grey: the controls. Bands: 95 % intervals. "
        "Shaded: the last quarter of the layers."
    ),
    "thinking_norm_is_higher": (
        "Mean norm over whole responses by layer in each mode, on a logarithmic axis. Bands: 95 % intervals. Shaded: "
        "the last quarter of the layers."
    ),
    "norm_tracks_features": (
        "Rank correlation of the norm with the summed activation of the reasoning features. Top: within a layer, over "
        "tokens, in the three forms that decide. Below: over layers, the paper's form, which depth alone drives up. "
        "Filled: this model. Open: null models. Lines: 95 % intervals."
    ),
    "entropies_do_not": (
        "Strength of the rank correlation with the summed reasoning features, within a layer over tokens, for the norm "
        "and each entropy. Filled: this model. Open: null models. Lines: 95 % intervals."
    ),
    "assumptions": (
        "Each assumption at its threshold, layer by layer: ● holds, × fails. Grey, below each: a random dictionary of "
        "the same shape."
    ),
    "two_sided_bound": (
        "S, the summed rise of the reasoning features, against the root of the gap of the squared norms, for each "
        "problem and layer that did not fix the constants, in units of the no_think norm. Curves: both halves of the "
        "theorem at the median constants."
    ),
    "marks_critical_steps": (
        "Probability that a computed token has a higher norm than another token of the same thought, by layer; 0.5 "
        "(dotted) is chance. Thin: the same for the other roles. Grey: the untrained twin. Bands: 95 % intervals. "
        "Shaded: the last quarter of the layers."
    ),
    "high_norm_is_causal": (
        "Accuracy in think while the named states are changed. Dashed: nothing changed. Dark grey: the controls that "
        "decide. In the bars: states changed per generated token. Lines: 95 % intervals."
    ),
    "domain_and_difficulty": (
        "Mean norm over whole responses in think, as a multiple of that in no_think (mean over layers), by difficulty "
        "and domain of the problem; at 1 (dotted) thinking changes nothing. Grey: the untrained twin; filler of the "
        "thought's length instead of a thought, over all domains. Bands: 95 % intervals."
    ),
    "hard_tokens_grow_norm": (
        "Rank correlation of a token's surprisal in the early checkpoint with the norm of the state that predicts it, "
        "within a problem, given position and the frequency of both tokens, by layer. Grey: the same with the norm in "
        "the untrained twin and in the early checkpoint itself. Bands: 95 % intervals. Shaded: the last quarter of the "
        "layers."
    ),
    "methods_help": (
        "Accuracy gained on held-out problems over plain generation (dashed; for LRS over one of the same samples at "
        "random) by each method (filled) and its strongest baselines (open). Dotted: the smallest effect of interest. "
        "*: decides nothing, since it spends more, reads the norm too, or sees the right answer. Lines: 95 % intervals."
    ),
}


def title(claim: str) -> str:
    """A claim's title for a reader; its name where nobody wrote one."""
    return _TITLES.get(claim, claim.replace("_", " ").capitalize())


def shown(evidence: Evidence) -> str:
    """What the claim's panel shows."""
    return _SHOWN.get(evidence.claim, evidence.statement)


def caption(evidence: Evidence) -> str:
    """A figure's caption on one line: what the panel shows, the number it stands for, and how it was judged."""
    value = with_interval(evidence.estimate, evidence.interval)
    return (
        f"{shown(evidence)} Estimate: {value} ({evidence.unit}), "
        f"n = {count(evidence.n)} {evidence.n_unit}; verdict: {evidence.verdict}."
    )
