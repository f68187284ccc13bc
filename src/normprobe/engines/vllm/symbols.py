"""What of vLLM normprobe wraps, overrides, calls or reads, each with the source that it had when it was tested.

vLLM keeps none of it stable; `patches.check` compares the installed version with this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TESTED, READ = "0.32", "0.33"
"""The version of vLLM that tests/vllm_engine runs, and the one that was compared with it by its sources alone: what
normprobe uses has the same parameters there, and where its source is another, the difference was read.
"""


class Use(Enum):
    """What is done with a function of vLLM, and when."""

    ENTRY = "wrapped in every process; in an unknown version this one alone, to refuse it"
    EVERY_PROCESS = "wrapped in every process"
    SERVER = "wrapped where an engine with policies is configured"
    INSTANCE = "wrapped on one object, since subclasses have their own"
    OVERRIDE = "overridden in a subclass"
    CALL = "called, or relied on to behave as it did"
    READ = "a class of which attributes are read, or that is constructed with them"


@dataclass(frozen=True)
class Symbol:
    """A function or a class of vLLM.

    by: the module here that uses it, with the function that is called instead. digest: of its source in `TESTED`, see
    `digest_of`; read: that in `READ`, where it is another. signature: its module, a colon, its name within, and the
    names of its parameters; of a class those attributes that are used. A class whose source is another in `READ` has no
    digest: of most only a few attributes are used. versions: those in which it is used.
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

    @property
    def parameters(self) -> list[str]:
        """The names in brackets: of a function's parameters, or of a class's attributes."""
        return [name for name in self.signature.partition("(")[2].rstrip(")").split(", ") if name]


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
    Symbol(Use.SERVER, "frontend.streaming:adding_results", "f95313827a77",
           "vllm.entrypoints.scale_out.token_in_token_out.serving:ServingTokens.serve_tokens_stream_generator(self, "
           "request, result_generator, request_id, model_name, request_metadata)", read="2db9cf548cac"),
    Symbol(Use.SERVER, "frontend.streaming:adding_results_to_events", "eb82fb578b64",
           "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.message_stream_converter(self, generator)",
           read="e0e592fbe9f2"),
    Symbol(Use.SERVER, "frontend.admission:refusing_results", "5690455f381a",
           "vllm.entrypoints.openai.chat_completion.protocol:BatchChatCompletionRequest.to_chat_completion_request("
           "self, messages)"),
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
    Symbol(Use.CALL, "core.reports", "4c4b7cd03046",
           "vllm.v1.executor.abstract:Executor.collective_rpc(self, method, timeout, args, kwargs, non_block)"),
    Symbol(Use.CALL, "worker.worker", "ed088efe61ea", "vllm.config.vllm:VllmConfig.use_v2_model_runner(self)",
           read="4ede74d8ed7b"),
    Symbol(Use.CALL, "worker.runner_hooks", "e6a22afed96b",
           "vllm.v1.worker.gpu_model_runner:GPUModelRunner.get_model(self)"),
    Symbol(Use.CALL, "worker.runner_hooks", "c28b95e8560c",
           "vllm.v1.worker.gpu.model_runner:GPUModelRunner.get_model(self)"),
    Symbol(Use.CALL, "worker.rerun", "9aec376686be", "vllm.forward_context:get_forward_context()"),
    Symbol(Use.READ, "worker.rerun", "758d6ca13f35",
           "vllm.forward_context:ForwardContext(attn_metadata, slot_mapping, is_padding, all_moe_layers, "
           "no_compile_layers, cudagraph_runtime_mode)"),
    Symbol(Use.READ, "worker.rerun", "eb6a75615118",
           "vllm.v1.attention.backend:CommonAttentionMetadata(query_start_loc, query_start_loc_cpu, seq_lens, "
           "seq_lens_cpu_upper_bound, num_reqs, num_actual_tokens, max_query_len, max_seq_len, block_table_tensor, "
           "slot_mapping, is_prefilling, positions)"),
    Symbol(Use.READ, "worker.rerun", "ba0f670be3ca",
           "vllm.v1.worker.utils:AttentionGroup(layer_names, kv_cache_group_id, metadata_builders)"),
    Symbol(Use.READ, "worker.rerun", "4a1b42c4d205",
           "vllm.model_executor.layers.attention_layer_base:AttentionLayerBase()"),
    Symbol(Use.READ, "worker.row_adapters", "2ece42fe3a44",
           "vllm.lora.layers.utils:LoRAMapping(index_mapping, prompt_mapping)"),
    Symbol(Use.READ, "worker.runner_hooks", "076f23e9bd97", "vllm.model_executor.models.utils:PPMissingLayer()"),
    Symbol(Use.READ, "worker.worker", "",
           "vllm.v1.worker.gpu_worker:Worker(use_v2_model_runner, model_runner)"),
    Symbol(Use.READ, "worker.runner_hooks", "",
           "vllm.v1.core.sched.output:SchedulerOutput(scheduled_new_reqs, scheduled_cached_reqs, finished_req_ids, "
           "preempted_req_ids)"),
    Symbol(Use.READ, "worker.runner_v1", "b19daee64180",
           "vllm.v1.core.sched.output:NewRequestData(req_id, sampling_params)"),
    Symbol(Use.READ, "worker.runner_v1", "75d4d5e18bb8",
           "vllm.v1.core.sched.output:CachedRequestData(resumed_req_ids)"),
    Symbol(Use.READ, "worker.runner_v1", "33ba7873131e",
           "vllm.v1.worker.gpu_input_batch:InputBatch(req_ids, num_reqs, num_computed_tokens_cpu, num_prompt_tokens, "
           "block_table)"),
    Symbol(Use.READ, "worker.runner_v1", "3ae5263c3c9d",
           "vllm.v1.worker.block_table:MultiGroupBlockTable(block_tables, __getitem__)"),
    Symbol(Use.READ, "worker.runner_v1", "",
           "vllm.v1.worker.gpu_model_runner:GPUModelRunner(vllm_config, compilation_config, device, requests, "
           "input_ids, positions, query_start_loc, input_batch, attn_groups, _kernel_block_sizes, "
           "cudagraph_dispatcher)"),
    Symbol(Use.READ, "worker.runner_v2", "",
           "vllm.v1.worker.gpu.model_runner:GPUModelRunner(vllm_config, compilation_config, device, input_buffers, "
           "req_states, block_tables, attn_groups, kernel_block_sizes, model_state, cudagraph_manager)"),
    Symbol(Use.READ, "worker.runner_v2", "",
           "vllm.v1.worker.gpu.input_batch:InputBatch(req_ids, num_reqs, idx_mapping_np, query_start_loc_np, "
           "num_computed_tokens_np, input_ids)"),
    Symbol(Use.READ, "worker.runner_v2", "45659262cae0",
           "vllm.v1.worker.gpu.input_batch:InputBuffers(input_ids, positions)"),
    Symbol(Use.READ, "worker.runner_v2", "", "vllm.v1.worker.gpu.states:RequestState(prompt_len)"),
    Symbol(Use.READ, "worker.runner_v2", "", "vllm.v1.worker.gpu.block_table:BlockTables(input_block_tables)"),
    Symbol(Use.READ, "worker.runner_v2", "8e506b7a9ed0",
           "vllm.v1.worker.gpu.cudagraph_utils:BatchExecutionDescriptor(cg_mode)"),
    Symbol(Use.READ, "frontend.admission", "",
           "vllm.v1.engine:EngineCoreRequest(request_id, sampling_params, resumable, data_parallel_rank, cache_salt)"),
    Symbol(Use.READ, "core.reports", "",
           "vllm.v1.engine:EngineCoreOutput(request_id, new_token_ids, finished, kv_transfer_params)"),
    Symbol(Use.READ, "frontend.admission", "06c5c84a58c3",
           "vllm.sampling_params:SamplingParams(n, stop, extra_args, skip_reading_prefix_cache, stop_token_ids, "
           "detokenize, output_kind)"),
)
# fmt: on
