"""The vLLM engine against plain transformers: `make test-vllm`."""
