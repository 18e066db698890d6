"""The Prometheus metrics of the service. Every job makes a new model id, so the number of model labels is bounded."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

MAX_MODELS = 100
OTHER = "other"

requests = Counter(
    "tunestream_inference_requests_total",
    "Generations answered; model: base or immutable id, the first 100 of them, else other",
    ["route", "model", "status"],
)
seconds = Histogram(
    "tunestream_inference_seconds",
    "Time until the last byte of an answer",
    ["route", "model"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
first_byte_seconds = Histogram(
    "tunestream_inference_first_byte_seconds",
    "Time until the first byte of an answer",
    ["route", "model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
tokens = Counter(
    "tunestream_inference_tokens_total",
    "Tokens as vLLM counts them, streams included; kind: prompt, completion",
    ["model", "kind"],
)
under_way = Gauge("tunestream_inference_under_way", "Generations that are under way, also those that wait for vLLM")
refused = Counter(
    "tunestream_inference_refused_total",
    "Generations that vLLM never saw; reason: generations (too many are under way), body_bytes (they are too large), "
    "kills_vllm (it died of the same request twice)",
    ["reason"],
)
adapter_loads = Counter(
    "tunestream_adapter_loads_total",
    "Adapters given to vLLM; outcome: loaded, failed, unavailable (vLLM is away)",
    ["outcome"],
)
adapters_loaded = Gauge("tunestream_adapters_loaded", "Adapters that vLLM holds")
vllm_up = Gauge("tunestream_vllm_up", "1 while vLLM answers")
vllm_asleep = Gauge("tunestream_vllm_asleep", "1 while vLLM leaves the GPU to a training")
vllm_starts = Counter("tunestream_vllm_starts_total", "Starts of the supervised vLLM")

_models: set[str] = set()


def model_label(model: str) -> str:
    """The label of `model`: its id for the first hundred models that are served, `other` for all later ones."""
    if model not in _models:
        if len(_models) >= MAX_MODELS:
            return OTHER
        _models.add(model)
    return model
