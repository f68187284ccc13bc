"""The settings of a study: one tree of dataclasses that Python, YAML and the command line all write.

Every default and every help text stands here and nowhere else. `normprobe.study_file` reads YAML, and
`normprobe.console.parse` makes the command line. The name after `arg` is the flag where it is not the field's own.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Fixed, OmitArgPrefixes, Suppress, arg

from normprobe.errors import NormprobeError
from normprobe.local_files import dictionaries_folder, fingerprint
from normprobe.model_settings import ModelSettings, ThinkingSettings
from normprobe.problems import ProblemSource, bundled, open_source
from normprobe.runs.directory import Run, read_label
from normprobe.settings import Settings, optional

MOST_LAYERS = 10_000
"""More than any model has: a list of layers is not written out beyond."""
_LAYERS = re.compile(r"(?P<first>\d{1,18})(-(?P<last>\d{1,18}))?")
FEWEST_DRAWS = 5
"""Draws without which nothing is known of a distribution of answers."""


@dataclass(frozen=True)
class ProblemSettings(Settings, section="problems"):
    """Where the problems come from. The sizes count for a source that makes its problems; a file has its own."""

    source: Annotated[str | None, optional(name="problems", metavar="SOURCE")] = None
    """a .jsonl, .json, .csv or .parquet file (also .gz, .zst, .bz2, .xz) with a column 'question' or 'problem';
    `reasoning-gym:TASK[?SETTING=VALUE&…][,TASK…]`, as in reasoning-gym:chain_sum?max_terms=3|6,leg_counting;
    lm-eval:TASK, or its bare name as gsm8k; `hf:NAME[:CONFIG][@SPLIT]` or a data set's folder; 'testbed' and
    'smol-thinker' (the bundled models' own)"""
    n_sae: int = 512
    """problems to train the dictionaries on"""
    n_select: int = 160
    """problems to select features and thresholds on"""
    n_measure: int = 256
    """problems to measure on"""


@dataclass(frozen=True)
class ResponseSettings(Settings, section="responses"):
    """How the model answers."""

    max_new_tokens: Annotated[int | None, optional(metavar="INT")] = None
    """limit of a response (the problem source's own)"""
    batch_size: Annotated[int, arg(name="response-batch-size")] = 128
    """responses generated at once"""


@dataclass(frozen=True)
class TracingSettings(Settings, section="tracing"):
    """How responses are read again for their signals."""

    lens_tokens: Annotated[int | None, optional(metavar="INT")] = None
    """tokens at which the logit lens reads every layer, drawn at random; at the others only the last (all)"""


@dataclass(frozen=True)
class SaeSettings(Settings, section="saes"):
    """The sparse dictionaries: how they are trained, or which ones are given. (The paper states none of this.)"""

    given: Annotated[str | None, optional(name="saes", metavar="DIR|RELEASE")] = None
    """dictionaries to read with instead of training them; controls are trained in their width and k"""
    of: Annotated[str | None, optional(name="saes-of", metavar="NAME")] = None
    """the model that the given dictionaries are of, where the studied one was trained from it (Qwen/Qwen3-8B-Base)"""
    layers: Annotated[str | None, optional(metavar="LIST")] = None
    """layers that dictionaries read, as in 20-23,27 (all)"""
    width: int = 512
    """features per layer"""
    k: int = 16
    """features active per token"""
    n_samples: int = 80_000
    """tokens shown to each dictionary in training, repeats counted"""
    batch_size: Annotated[int, arg(name="sae-batch-size")] = 256
    """tokens of one training step"""
    trainer: Annotated[Literal["normprobe", "sae_lens"], arg(name="sae-trainer")] = "normprobe"
    """what trains: ours, all layers in one step, or SAELens's, one layer after another (the reference)"""
    encoder: Annotated[Literal["float32", "bfloat16"], arg(name="sae-encoder")] = "float32"
    """what our trainer's encoder reads in: bfloat16 is for processors that multiply it (AMX)"""
    memory_gb: int | float = 0.5
    """sampled states held at once, all layers together: ours reads them in chunks, SAELens's trainer samples fewer"""
    cache: Annotated[str | None, optional(metavar="DIR")] = None
    """keep the sampled states there: another training of the same tokens does not run the model (keep none)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k > self.width:
            raise NormprobeError(
                f"expected saes.k of 1 to {self.width} (the width), got {self.k}; correct one of them"
            )
        if self.encoder == "bfloat16" and self.trainer == "sae_lens":
            raise NormprobeError(
                "expected saes.encoder float32 with SAELens's trainer, the reference, got bfloat16; correct one of them"
            )
        self.layer_list  # noqa: B018  checked here, before a run begins
        if self.of is not None and self.given is None:
            raise NormprobeError(
                f"expected --saes with --saes-of {self.of}, got none; name the dictionaries of that model"
            )

    @property
    def layer_list(self) -> list[int] | None:
        """The layers as numbers, sorted; None for all. Raises NormprobeError for another form than 20-23,27."""
        if self.layers is None:
            return None
        chosen: list[int] = []
        for part in self.layers.split(","):
            found = _LAYERS.fullmatch(part.strip())
            if found is None or int(found["last"] or found["first"]) < int(found["first"]):
                raise NormprobeError(
                    f"expected saes.layers as in 20-23,27, got {self.layers[:60]!r}; correct it"
                )
            first, last = int(found["first"]), int(found["last"] or found["first"])
            if last >= MOST_LAYERS:
                raise NormprobeError(
                    f"expected saes.layers below {MOST_LAYERS:,}, got {self.layers[:60]!r}; correct it"
                )
            chosen += range(first, last + 1)
        return sorted(set(chosen))

    def layers_of(self, depth: int) -> list[int]:
        """The layers that dictionaries read in a model of so many. Raises NormprobeError for one that it lacks."""
        chosen = list(range(depth)) if self.layer_list is None else self.layer_list
        if chosen[-1] >= depth:
            raise NormprobeError(
                f"expected layers between 0 and {depth - 1}, got {self.layers}; correct saes.layers"
            )
        return chosen

    def identity(self) -> dict[str, Any]:
        """What the dictionaries depend on; states out of a cache are the same.

        Raises NormprobeError for given ones that are neither a folder nor a published release.
        """
        if self.given is not None:
            dictionaries_folder(self.given)
        identity = super().identity() | {"given": self.given and fingerprint(self.given)}
        del identity["cache"]
        return identity

    @property
    def memory(self) -> int:
        """Bytes of sampled states held at once."""
        return int(self.memory_gb * 2**30)


@dataclass(frozen=True)
class ExperimentSettings(Settings, section="experiments"):
    """The suppression experiment."""

    batch_size: Annotated[int, arg(name="experiment-batch-size")] = 128
    """responses generated at once under a treatment"""


@dataclass(frozen=True)
class MethodSettings(Settings, section="methods"):
    """How large the evaluation of ALRR, ERSS and LRS is."""

    tune: int = 128
    """problems of the sweep, per regime; with --tasks, documents that the entropy gate's threshold comes from"""
    test: int = 2048
    """held-out problems"""
    samples: int = 8
    """samples per problem to select among; with --tasks and --temperature, per document"""
    tasks: Annotated[str | None, optional(metavar="LIST")] = None
    """tasks of lm-evaluation-harness, separated by commas, instead of the run's own problems"""
    limit: Annotated[int | None, optional(metavar="INT")] = None
    """documents per task (all)"""
    include_path: Annotated[str | None, optional(metavar="DIR")] = None
    """a folder of further task files"""
    temperature: Annotated[int | float | None, optional(metavar="NUMBER")] = None
    """of --samples answers to each document of --tasks, for avg@n and pass@k (one answer, as the task says: greedy)"""
    engine: Annotated[Literal["hf", "vllm"] | None, optional(metavar="{hf,vllm}")] = None
    """what writes the responses (the run's engine)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature is not None and self.tasks is None:
            raise NormprobeError(
                f"expected --tasks with --temperature, got {self.temperature} alone; name tasks, or leave it out"
            )

    @property
    def part(self) -> int:
        """Held-out problems of what decides nothing: sensitivity and combinations."""
        return max(self.test // 4, 1)

    @property
    def answers(self) -> int:
        """Answers to each document of a task."""
        return 1 if self.temperature is None else self.samples


@dataclass(frozen=True)
class AuditSettings(Settings, section="audit"):
    """How large an audit is. Planted models and controls in the model's place read as many problems as the run has."""

    nulls: int = 200
    """random networks with random dictionaries"""
    trained: int = 10
    """random networks with trained dictionaries"""
    problems: int = 40
    """problems of each split that a random network reads"""
    samples: int = 1000
    """samples for the coverage of intervals, per claim"""
    sae_samples: int = 20_000
    """tokens shown to each dictionary that is trained on a random network"""


@dataclass(frozen=True)
class FeatureSettings(Settings, section="features"):
    """Which features get a page, and how thoroughly they are tried."""

    per_layer: int = 5
    """reasoning features of each layer, the clearest first; as many controls come with them"""
    n_injected: int = 128
    """no_think responses that tokens are inserted into"""


@dataclass(frozen=True)
class DictionarySettings(Settings, section="dictionaries"):
    """How much the evaluation of a run's dictionaries reads."""

    problems: int = 64
    """measured problems whose responses dictionaries are spliced into"""
    retrained: int = 1
    """how often the model's dictionaries are trained again, to see which features come back"""


@dataclass(frozen=True)
class ImportanceSettings(Settings, section="importance"):
    """How often thoughts are written anew, to see which of their sentences the answers hang on."""

    problems: int = 64
    """measured problems whose thoughts are tried"""
    draws: int = 32
    """continuations from before each sentence"""
    temperature: int | float = 1.0
    """of sampling them"""
    batch_size: Annotated[int, arg(name="importance-batch-size")] = 128
    """continuations of a thought generated at once"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < FEWEST_DRAWS:
            raise NormprobeError(
                f"expected importance.draws of {FEWEST_DRAWS} or more, got {self.draws}; fewer tell nothing of a "
                "distribution of answers: correct it"
            )


@dataclass(frozen=True)
class ParadigmSettings(Settings, section="paradigm"):
    """The runs that a run of a model trained by RL is compared with: same base, same problems."""

    READS: ClassVar[tuple[str, ...]] = ("problems", "responses", "traces", "saes", "reductions")
    """The stages that are read of each run."""

    sft: Annotated[str | None, optional(metavar="RUN")] = None
    """run of a model that SFT made of the same base"""
    rl_again: Annotated[str | None, optional(metavar="RUN")] = None
    """run of another seed of the RL, as a control (none)"""
    sft_again: Annotated[str | None, optional(metavar="RUN")] = None
    """run of another seed of the SFT, as a control (none)"""

    def identity(self) -> dict[str, Any]:
        """The keys of the stages that are read of each run. Raises NormprobeError where one is not finished."""
        runs = {name: path and Run.load(path) for name, path in super().identity().items()}
        return {
            name: {stage: read_label(run[stage]).key for stage in self.READS} if run else None
            for name, run in runs.items()
        }


@dataclass(frozen=True)
class Study(Settings):
    """All settings of a run."""

    model: OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    thinking: OmitArgPrefixes[ThinkingSettings] = field(default_factory=ThinkingSettings)
    problems: OmitArgPrefixes[ProblemSettings] = field(default_factory=ProblemSettings)
    responses: OmitArgPrefixes[ResponseSettings] = field(default_factory=ResponseSettings)
    tracing: OmitArgPrefixes[TracingSettings] = field(default_factory=TracingSettings)
    saes: OmitArgPrefixes[SaeSettings] = field(default_factory=SaeSettings)
    experiments: OmitArgPrefixes[ExperimentSettings] = field(default_factory=ExperimentSettings)
    methods: Fixed[Suppress[MethodSettings]] = field(default_factory=MethodSettings)
    audit: Fixed[Suppress[AuditSettings]] = field(default_factory=AuditSettings)
    features: Fixed[Suppress[FeatureSettings]] = field(default_factory=FeatureSettings)
    dictionaries: Fixed[Suppress[DictionarySettings]] = field(default_factory=DictionarySettings)
    importance: Fixed[Suppress[ImportanceSettings]] = field(default_factory=ImportanceSettings)
    paradigm: Fixed[Suppress[ParadigmSettings]] = field(default_factory=ParadigmSettings)
    seed: int = 0
    """of everything random"""
    allow_failed_conditions: bool = False
    """go on, and judge, where the model does not think when it is asked to; every table then carries a mark"""
    memory_gb: Annotated[int | float | None, optional(name="memory", metavar="GB")] = None
    """memory above the weights that reading responses may take (as much as is fastest); results do not depend on it"""

    @property
    def memory(self) -> int | None:
        """Bytes above the weights that reading responses may take; None: as much as is fastest."""
        return None if self.memory_gb is None else int(self.memory_gb * 1e9)

    @property
    def evaluated(self) -> ModelSettings:
        """The model as the evaluation of methods opens it, with its engine."""
        return dataclasses.replace(self.model, engine=self.methods.engine or self.model.engine)

    @property
    def source(self) -> ProblemSource:
        """Where problems come from. Raises NormprobeError if nothing tells, or if it is not there."""
        if self.problems.source is None and not self.model.is_bundled:
            raise NormprobeError(
                f"expected --problems FILE for the model {self.model.name}, got none; "
                "give a file with a 'question' column, reasoning-gym:TASK, lm-eval:TASK or hf:NAME, or 'testbed' for "
                "a model trained on it"
            )
        default = bundled.MODELS[self.model.name].problems if self.model.is_bundled else ""
        source = open_source(self.problems.source or default)
        if self.model.offline and getattr(source, "asks_hub", False) and not os.environ.get("HF_HUB_OFFLINE"):
            raise NormprobeError(
                f"expected problems of this machine with --offline, got {source.name}; give a folder or file, or set "
                "HF_HUB_OFFLINE=1 to read what a hub gave before"
            )
        return source

    @property
    def problem_set(self) -> dict[str, Any]:
        """What the problems depend on: their source, what it holds, and how many are asked of it."""
        held = {"source": self.source.name, "fingerprint": self.source.fingerprint()}
        return self.problems.identity() | held

    @property
    def early(self) -> ModelSettings | None:
        return self.model.early_checkpoint

    @property
    def max_new_tokens(self) -> int:
        """Limit of a response: the study's own, else its problem source's."""
        return self.responses.max_new_tokens or self.source.max_new_tokens


QUICK: Mapping[str, Mapping[str, int]] = {
    "problems": {"n_sae": 96, "n_select": 64, "n_measure": 64},
    "saes": {"width": 256, "n_samples": 20_000},
    "methods": {"tune": 8, "test": 24, "samples": 3},
    "audit": {"nulls": 4, "trained": 0, "problems": 24, "samples": 50, "sae_samples": 4_000},
    "features": {"per_layer": 2, "n_injected": 16},
    "dictionaries": {"problems": 16},
    "importance": {"problems": 12, "draws": 8},
}
"""`--quick`: sizes that show that everything works, in about two minutes. Too small for verdicts."""
