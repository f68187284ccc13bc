"""Every function of vLLM that normprobe wraps, overrides or calls, and the check that it is the one that was tested.

vLLM keeps none of these stable, so each is listed with its parameters and source in the tested version. `check` runs
when an engine with policies is configured, before any model is loaded: a function that is missing or takes other
parameters is refused, other source gives a warning. It imports nothing: a model runner takes seconds.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from normprobe.errors import NormprobeError

TESTED, READ = "0.32", "0.33"
"""The version of vLLM that tests/vllm_engine runs, and the one that was compared with it by its sources alone: what
normprobe uses has the same parameters there, and where its source is another, the difference was read.
"""

_INSTALL = f"install vllm>={TESTED},<0.34, which normprobe knows"


class Use(Enum):
    """What is done with a function of vLLM, and when."""

    ENTRY = "wrapped in every process; in an unknown version this one alone, to refuse it"
    EVERY_PROCESS = "wrapped in every process"
    SERVER = "wrapped where an engine with policies is configured"
    INSTANCE = "wrapped on one object, since subclasses have their own"
    OVERRIDE = "overridden in a subclass"
    CALL = "called, or relied on to behave as it did"


@dataclass(frozen=True)
class Symbol:
    """A function of vLLM.

    by: the module here that uses it, with the function that is called instead. digest: of its source in `TESTED`, see
    `digest_of`; read: that in `READ`, where it is another. signature: its module, a colon, its name within, and the
    names of its parameters. versions: those in which it is used.
    """

    use: Use
    by: str
    digest: str
    signature: str
    read: str = ""
    versions: tuple[str, ...] = (TESTED, READ)

    def digest_in(self, version: str) -> str:
        """The digest of its source in a version, `TESTED` or `READ`."""
        return self.read if self.read and version == READ else self.digest

    @property
    def path(self) -> str:
        return self.signature.partition("(")[0]

    @property
    def module(self) -> str:
        return self.path.partition(":")[0]

    @property
    def names(self) -> list[str]:
        """The name within the module: that of a function, or of a class and its method."""
        return self.path.partition(":")[2].split(".")


# fmt: off
SYMBOLS = (
    Symbol(Use.ENTRY, "frontend.engine_setup:configuring", "30b2874249f5",
           "vllm.engine.arg_utils:EngineArgs.create_engine_config(self, usage_context, headless)", read="f5bef9b4d09c"),
    Symbol(Use.EVERY_PROCESS, "frontend.admission:admitting", "8cf47aea8cde",
           "vllm.v1.engine.input_processor:InputProcessor.process_inputs(self, request_id, prompt, params, "
           "supported_tasks, arrival_time, lora_request, tokenization_kwargs, trace_headers, priority, "
           "data_parallel_rank, resumable, session_id, kv_hints)"),
    Symbol(Use.EVERY_PROCESS, "frontend.admission:refusing_default_policy", "39a88a4b74c8",
           "vllm.v1.engine.input_processor:InputProcessor.resolve_watermarking(self, params)"),
    Symbol(Use.EVERY_PROCESS, "core.scheduling:adding", "be0d1d656991",
           "vllm.v1.engine.core:EngineCore.add_request(self, request, request_wave)"),
    Symbol(Use.EVERY_PROCESS, "core.scheduling:completing", "ff753cb86509",
           "vllm.v1.engine.core:EngineCore.step(self)"),
    Symbol(Use.EVERY_PROCESS, "core.scheduling:completing", "f9e54683f276",
           "vllm.v1.engine.core:EngineCore.step_with_batch_queue(self)"),
    Symbol(Use.SERVER, "frontend.admission:refusing_named_policy", "2f27ca0206f2",
           "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.to_beam_search_params(self, "
           "max_tokens, default_sampling_params)", read="f4b10edc46e8"),
    Symbol(Use.SERVER, "frontend.admission:refusing_named_policy", "78b9734be295",
           "vllm.entrypoints.openai.completion.protocol:CompletionRequest.to_beam_search_params(self, "
           "max_tokens, default_sampling_params)", read="434c761c81ba"),
    Symbol(Use.SERVER, "frontend.streaming:adding_results", "8c539f5b311a",
           "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.chat_completion_stream_generator("
           "self, request, result_generator, request_id, model_name, conversation, tokenizer, request_metadata, "
           "chat_template_kwargs, mm_token_counts)", versions=(TESTED,)),  # later ones stream the results themselves
    Symbol(Use.SERVER, "frontend.streaming:adding_results", "5404f0113420",
           "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.completion_stream_generator(self, "
           "request, engine_inputs, result_generator, request_id, created_time, model_name, num_prompts, "
           "tokenizer, request_metadata)", versions=(TESTED,)),  # later ones stream the results themselves
    Symbol(Use.INSTANCE, "core.scheduling", "4fae314c50e9",
           "vllm.v1.core.sched.scheduler:Scheduler.finish_requests(self, request_ids, finished_status)",
           read="ad7515aa6da9"),
    Symbol(Use.INSTANCE, "worker.runner_v1", "7fcf397fab3e",
           "vllm.v1.worker.gpu_model_runner:GPUModelRunner._update_states(self, scheduler_output)"),
    Symbol(Use.INSTANCE, "worker.runner_v1", "9eae43c70f2b",
           "vllm.v1.worker.gpu_model_runner:GPUModelRunner._model_forward(self, input_ids, positions, "
           "intermediate_tensors, inputs_embeds, **model_kwargs)"),
    Symbol(Use.INSTANCE, "worker.runner_v1", "f2eb8419d591",
           "vllm.v1.cudagraph_dispatcher:CudagraphDispatcher.dispatch(self, num_tokens, uniform_decode, has_lora, "
           "num_active_loras, valid_modes, invalid_modes)"),
    Symbol(Use.INSTANCE, "worker.runner_v2", "cba5513cda0b",
           "vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager.dispatch(self, num_reqs, num_tokens, "
           "uniform_token_count, num_active_loras, max_query_len, num_ubatches)"),
    Symbol(Use.INSTANCE, "worker.runner_v2", "10a9e16dd5e0",
           "vllm.v1.worker.gpu.model_runner:GPUModelRunner.finish_requests(self, scheduler_output)"),
    Symbol(Use.INSTANCE, "worker.runner_v2", "f6473533bcb5",
           "vllm.v1.worker.gpu.model_runner:GPUModelRunner.execute_model(self, scheduler_output, "
           "intermediate_tensors, dummy_run, skip_attn_for_dummy_run, is_profile, context_len, "
           "valid_dummy_state_slots, randomize_inputs)", read="3c93a678f43f"),
    Symbol(Use.INSTANCE, "worker.runner_v2", "9eea7a19e99a",
           "vllm.v1.worker.gpu.model_states.interface:ModelState.preprocess_state(self, input_batch, block_tables, "
           "kv_cache_config, num_computed_tokens)"),
    Symbol(Use.INSTANCE, "worker.next_tokens", "e05fece997c8",
           "vllm.model_executor.models.interfaces_base:VllmModelForTextGeneration.compute_logits(self, hidden_states)",
           read="ac08a0c51900"),
    Symbol(Use.OVERRIDE, "worker.worker", "9a2d85dd2196",
           "vllm.v1.worker.gpu_worker:Worker.load_model(self, *, load_dummy_weights)"),
    Symbol(Use.OVERRIDE, "worker.worker", "e3822a4c90a3",
           "vllm.v1.worker.gpu_worker:Worker.compile_or_warm_up_model(self)", read="6c6b0764ec99"),
    Symbol(Use.OVERRIDE, "worker.worker", "cf5b3f6bfded",
           "vllm.v1.worker.cpu_worker:CPUWorker.compile_or_warm_up_model(self)", read="1f52f9f81e04"),
    Symbol(Use.CALL, "worker.runner_hooks", "b197f2936a83",
           "vllm.v1.worker.gpu_model_runner:GPUModelRunner._dummy_run(self, num_tokens, cudagraph_runtime_mode, "
           "force_attention, uniform_decode, allow_microbatching, skip_eplb, is_profile, create_mixed_batch, "
           "remove_lora, is_graph_capturing, num_active_loras, profile_seq_lens, randomize_inputs)"),
    Symbol(Use.CALL, "worker.runner_hooks", "bb32d24c911d",
           "vllm.v1.worker.gpu.model_runner:GPUModelRunner._dummy_run(self, num_tokens, *args, skip_attn, "
           "uniform_decode, context_len, skip_eplb, is_profile, valid_dummy_state_slots, randomize_inputs, **kwargs)"),
    Symbol(Use.CALL, "worker.rerun", "b295cd3635ff",
           "vllm.v1.worker.utils:AttentionGroup.create_metadata_builders(self, vllm_config, device, "
           "kernel_block_size, num_metadata_builders)"),
    Symbol(Use.CALL, "worker.rerun", "9a8ae1bca090",
           "vllm.v1.worker.utils:AttentionGroup.build_metadata(self, common_attn_metadata, ubatch_idx, "
           "common_prefix_len, **kwargs)"),
    Symbol(Use.CALL, "worker.rerun", "fe707b7a52a2",
           "vllm.v1.worker.block_table:BlockTable.get_device_tensor(self, num_reqs)"),
    Symbol(Use.CALL, "worker.rerun", "170eb4f2256f",
           "vllm.forward_context:override_forward_context(forward_context)"),
    Symbol(Use.CALL, "worker.compiled", "0135227185e3",
           "vllm.model_executor.layers.attention.attention:Attention.forward(self, query, key, value, "
           "output_shape, output_dtype)", read="30b77f386f76"),
    Symbol(Use.CALL, "worker.rerun", "06a3913574e8",
           "vllm.model_executor.layers.attention.attention:unified_kv_cache_update(key, value, layer_name)"),
    Symbol(Use.CALL, "worker.rerun", "1fc132f4cc05",
           "vllm.model_executor.layers.attention.attention:get_attention_context(layer_name)"),
    Symbol(Use.CALL, "worker.row_adapters", "b1beb9d709d8",
           "vllm.lora.model_manager:LoRAModelManager.set_adapter_mapping(self, mapping)"),
    Symbol(Use.CALL, "worker.compiled", "bee0239ac5bc",
           "vllm.compilation.backends:split_graph(graph, splitting_ops)"),
    Symbol(Use.CALL, "core.reports", "bfea261c471e",
           "vllm.v1.engine.detokenizer:IncrementalDetokenizer.from_new_request(cls, tokenizer, request)"),
    Symbol(Use.CALL, "core.reports", "641d7394ad64",
           "vllm.v1.engine.detokenizer:IncrementalDetokenizer.update(self, new_token_ids, stop_terminated)"),
    Symbol(Use.CALL, "core.reports", "af67dac6ec34",
           "vllm.tokenizers.registry:cached_tokenizer_from_config(model_config, **kwargs)", read="63aa9356f48b"),
    Symbol(Use.CALL, "engine", "6f93690da5d7",
           "vllm.v1.engine.llm_engine:LLMEngine.abort_request(self, request_ids, internal)"),
    Symbol(Use.CALL, "engine", "7dcc9ed08f1f",
           "vllm.v1.engine.llm_engine:LLMEngine.collective_rpc(self, method, timeout, args, kwargs)"),
    Symbol(Use.CALL, "opening", "e7e462143142",
           "vllm.distributed.parallel_state:cleanup_dist_env_and_memory(shutdown_ray)"),
)
# fmt: on


def _installed() -> str:
    import vllm

    return str(getattr(vllm, "__version__", ""))


def version() -> str | None:
    """Which of the known versions the installed vLLM is: `TESTED`, `READ`, or None."""
    return next((known for known in (TESTED, READ) if _installed().startswith(f"{known}.")), None)


def check(symbols: Sequence[Symbol] = SYMBOLS) -> None:
    """Compare the installed vLLM with what is known; one warning names all functions whose source is another, one says
    that a version was never run.

    Raises NormprobeError for another version, and for a function that is missing or takes other parameters.
    """
    import vllm

    installed, release = version(), _installed()
    if installed is None:
        raise NormprobeError(f"expected vLLM {TESTED} or {READ}, got {release}; {_INSTALL}")
    root, changed = Path(vllm.__path__[0]).parent, []
    for symbol in symbols:
        if installed not in symbol.versions:
            continue
        source = source_of(symbol, root)
        if source is None:
            raise NormprobeError(
                f"expected {symbol.path} in vLLM {release} (for {symbol.by}), got none; {_INSTALL}"
            )
        if (signature := f"{symbol.path}({parameters_of(source)})") != symbol.signature:
            raise NormprobeError(
                f"expected {symbol.signature} in vLLM {release} (for {symbol.by}), got {signature}; {_INSTALL}"
            )
        if digest_of(source) != symbol.digest_in(installed):
            changed.append(symbol.path)
    if changed:
        warnings.warn(
            f"normprobe was tested with other sources of {', '.join(changed)} than this vLLM {release} has; "
            "compare a few answers with plain generation, or run tests/vllm_engine",
            stacklevel=2,
        )
    if installed == READ:
        warnings.warn(
            f"normprobe knows vLLM {READ} by its sources and was run on {TESTED}; compare a few answers with plain "
            "generation, or run tests/vllm_engine",
            stacklevel=2,
        )


def apply(use: Use) -> None:
    """Wrap the functions of this use, as far as they are not wrapped yet in this process.

    Raises NormprobeError for one that is missing.
    """
    for symbol in SYMBOLS:
        if symbol.use is use and (use is Use.ENTRY or version() in symbol.versions):
            owner_name, name = symbol.names
            owner = getattr(importlib.import_module(symbol.module), owner_name, None)
            if not hasattr(owner, name):
                raise NormprobeError(f"expected {symbol.path} in this vLLM, got none; {_INSTALL}")
            module, _, wrapper = symbol.by.partition(":")
            wrap(owner, name, getattr(importlib.import_module(f"{__package__}.{module}"), wrapper))


def wrap(owner: Any, name: str, instead: Callable[..., Any]) -> None:
    """Let `instead(method, *args)` answer calls of a method of a class or an object, unless that was done before."""
    method = getattr(owner, name)
    # Where another plugin has wrapped ours in turn, its wrapper carries this attribute too.
    if not hasattr(method, "normprobe_wrapped"):

        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return instead(method, *args, **kwargs)

        wrapper.normprobe_wrapped = True  # type: ignore[attr-defined]
        setattr(owner, name, wrapper)


@functools.cache
def _module(path: Path) -> tuple[ast.Module, list[str]]:
    text = path.read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


def source_of(symbol: Symbol, root: Path) -> str | None:
    """The source of a function from `def` on, without decorators; None if there is none of that name.

    root: the folder in which vLLM is installed.
    """
    path = root / (symbol.module.replace(".", "/") + ".py")
    if not path.is_file():
        return None
    found: Any
    found, lines = _module(path)
    for name in symbol.names:
        # The last of that name: earlier ones are overloads.
        found = next((node for node in reversed(found.body) if getattr(node, "name", None) == name), None)
        if found is None:
            return None
    return "\n".join(line[found.col_offset :] for line in lines[found.lineno - 1 : found.end_lineno])


def parameters_of(source: str) -> str:
    """The names of a function's parameters, as in a signature: "self, first, *, option, **rest"."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    given = function.args
    given.defaults, given.kw_defaults = [], [None] * len(given.kwonlyargs)
    for node in ast.walk(given):
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(given)


def digest_of(source: str) -> str:
    """The first 12 hexadecimal digits of the source's SHA-256."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]
