"""The exceptions about vLLM and its adapters, and the answer that a client gets for each.

VllmUnavailable      (a TransientError) vLLM is starting, restarting, or does not answer
└── VllmAsleep       a training has the GPU (`gpu.share = alternate`)
AdapterRefused       vLLM refuses an adapter that passed our checks
└── AdapterUnseen    it does not see its folder
"""

from __future__ import annotations

import logging

from starlette.types import Scope

from shared.errors import CorruptObject, InputError, TransientError, TunestreamError
from shared.http.errors import ApiError, ErrorTable

log = logging.getLogger(__name__)

RETRY_AFTER = 5  # seconds; the official client obeys it and tries twice more
ASLEEP_RETRY_AFTER = 30  # a training takes minutes to hours; the official client does not obey more than 60


class VllmUnavailable(TransientError):
    """vLLM does not answer for now. The message is for the client."""


class VllmAsleep(VllmUnavailable):
    """vLLM sleeps: a training has the GPU."""


class AdapterRefused(TunestreamError):
    """vLLM answered that it cannot load an adapter."""


class AdapterUnseen(AdapterRefused):
    """vLLM finds no adapter where this service has put it."""


def model_not_found(model: str) -> InputError:
    return InputError(
        "model_not_found",
        f"The model `{model[:200]}` does not exist. GET /v1/models lists what can be asked for.",
        "model",
    )


def _unavailable(error: VllmUnavailable, scope: Scope) -> ApiError:
    return ApiError(503, f"{error}. Try again.", code="service_unavailable", headers={"retry-after": str(RETRY_AFTER)})


def _asleep(error: VllmAsleep, scope: Scope) -> ApiError:
    headers = {"retry-after": str(ASLEEP_RETRY_AFTER)}
    return ApiError(503, f"{error}. Try again.", code="model_sleeping", headers=headers)


def _unusable(error: Exception, scope: Scope) -> ApiError:
    log.error("an adapter cannot be used", exc_info=error)
    message = "The adapter of this model is damaged, or vLLM refuses it; the log of the inference service says more."
    return ApiError(500, message, code="adapter_unusable")


ERRORS = ErrorTable(
    {
        VllmUnavailable: _unavailable,
        VllmAsleep: _asleep,
        AdapterRefused: _unusable,
        CorruptObject: _unusable,
    }
)
