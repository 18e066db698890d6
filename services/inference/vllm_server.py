"""`python -m services.inference.vllm_server` is the same as `python -m services.inference.vllm`."""

from __future__ import annotations

from services.inference.vllm.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
