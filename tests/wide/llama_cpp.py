"""llama.cpp asked for greedy replies: JSON in, JSON out, by a Python that has xllamacpp.

In: model, lora (a file or none), prompts (token ids), tokens (how many each). Out: a reply a
prompt, as its server gives it.
"""

import json
import sys

import xllamacpp

_LEAST = 256  # positions that llama.cpp takes in any case


def main() -> None:
    """Read, ask, write."""
    asked = json.load(sys.stdin)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = asked["model"]
    parameters.n_parallel, parameters.warmup, parameters.verbosity = 1, False, -1
    parameters.n_ctx = max(_LEAST, asked["tokens"] + max(map(len, asked["prompts"])))
    parameters.cpuparams.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = (
        xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # rounds to f16
    )
    if asked["lora"]:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(asked["lora"], 1.0)]
    server = xllamacpp.Server(parameters)
    how = {"n_predict": asked["tokens"], "temperature": 0, "n_probs": 5, "cache_prompt": False}
    how |= {"ignore_eos": True}
    replies = [server.handle_completions({"prompt": ids, **how}) for ids in asked["prompts"]]
    json.dump(replies, sys.stdout)


if __name__ == "__main__":
    main()
