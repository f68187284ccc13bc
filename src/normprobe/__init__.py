"""normprobe: does the norm of a hidden state tell when a language model reasons? (arXiv 2606.06188)"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normprobe.engines.hf import intervene

__all__ = ["intervene"]


def __getattr__(name: str) -> Any:
    """`normprobe.intervene`, imported when asked for: it brings torch, and most of the package needs none."""
    if name == "intervene":
        from normprobe.engines.hf import intervene

        return intervene
    raise AttributeError(f"module 'normprobe' has no attribute {name!r}")
