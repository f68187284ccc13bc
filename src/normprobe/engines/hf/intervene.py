"""`with intervene(model, policy, profile): model.generate(...)`: policies under Transformers' own generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from normprobe.engines.hf.generate_tracker import GenerateTracker
from normprobe.engines.hf.intervention import Intervention, attached
from normprobe.layer_profile import LayerProfile
from normprobe.models.architectures import dissect
from normprobe.models.identity import weights_fingerprint
from normprobe.models.model import OpenModel
from normprobe.policies.policy import Policy
from normprobe.policies.spec import Spec, build


@contextmanager
def intervene(
    model: PreTrainedModel | OpenModel,
    policy: Policy | Spec,
    profile: LayerProfile | Path | str | None = None,
    *,
    requests: Sequence[str] | None = None,
    record: bool = False,
    always_on: bool = False,
    quiet: bool = False,
) -> Iterator[Intervention]:
    """Everything that `model.generate` writes inside the block is written under the policy, prompt by prompt.

    model: any causal language model of Transformers whose decoder blocks `normprobe.models` finds; greedy or sampled,
        any batch padded on the left, any cache. A call of generate() is a request of its own for each of its rows, with
        a history of its own, also where it continues a conversation on the cache of an earlier call.
    policy: a policy; its name ("alrr"); or a mapping with its name and settings ({"policy": "alrr", "damping": 0.5}).
        The last two take thresholds from `profile`, which has to be one of this model.
    requests: names that key random draws, one per row (num_return_sequences counts); by default "0", "1", …
    record: keep every event (`intervention.events()`); their requests are the rows of all calls, in order.
    always_on: extra passes compute all rows, so that no size depends on the data. Then generate() may compile its
        passes, as it does with a static cache on a GPU: model, policy and history become one graph.
    quiet: no warning if the policy never acted.

    A row is finished once it has been fed an end-of-sequence token: what generate() writes behind it is left alone.
    Raises NormprobeError, before any token, for a layer that the model lacks, a profile of another model, settings that
    make no sense, a block in another, a way of decoding that a policy cannot follow (beams, drafts, guidance, decoding
    loops of others, no cache), or where generate() would compile without `always_on`; before a static cache overflows;
    after a pass that left out a layer; at the end if the model never ran, or still runs in a thread.
    Warns (UntriggeredWarning) if the policy never acted.
    """
    network = model.model if isinstance(model, OpenModel) else model
    blocks = dissect(network).blocks
    if isinstance(profile, str | Path):
        profile = LayerProfile.load(Path(profile))
    if profile is not None:
        profile.for_model(_identity(model))
    if not isinstance(policy, Policy):
        policy = build(policy, profile)
    width = network.config.get_text_config().hidden_size
    intervention = Intervention(policy, width, record=record, always_on=always_on)
    tracker = GenerateTracker(intervention, network, requests)
    with attached(blocks, intervention, quiet=quiet), ExitStack() as undo:
        undo.callback(network.register_forward_pre_hook(tracker, with_kwargs=True).remove)
        undo.callback(network.register_forward_hook(lambda *_: intervention.finish()).remove)
        for name, stand_in in {
            "generate": tracker.generate,
            "init_continuous_batching": tracker.refuse_continuous_batching,
            "get_compiled_call": tracker.compiled_call,
        }.items():
            undo.enter_context(_in_place_of(network, name, stand_in))
        yield intervention
        tracker.check_ended()


@contextmanager
def _in_place_of(network: PreTrainedModel, name: str, stand_in: Callable[..., Any]) -> Iterator[None]:
    """The model calls `stand_in` for its method of this name."""
    own = vars(network).get(name)
    setattr(network, name, stand_in)
    try:
        yield
    finally:
        delattr(network, name)
        if own is not None:
            setattr(network, name, own)


def _identity(model: PreTrainedModel | OpenModel) -> dict[str, Any]:
    if isinstance(model, OpenModel):
        return model.identity.to_dict()
    config = model.config.get_text_config()
    return {
        "name": model.name_or_path or type(model).__name__,
        "weights": weights_fingerprint(model),
        "architecture": type(model).__name__,
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "vocab": config.vocab_size,
    }
