"""normprobe: does the norm of a hidden state tell when a language model reasons? (arXiv 2606.06188)

What people use is here, imported when first asked for: `import normprobe` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normprobe.engines.hf import intervene
    from normprobe.layer_profile import LayerProfile
    from normprobe.models.open import open_model
    from normprobe.report.results import load_run
    from normprobe.tracing.texts import trace
    from normprobe.verify import verify

__all__ = ["LayerProfile", "intervene", "load_run", "open_model", "trace", "verify"]

_HOME = {
    "LayerProfile": "normprobe.layer_profile",
    "intervene": "normprobe.engines.hf",
    "load_run": "normprobe.report.results",
    "open_model": "normprobe.models.open",
    "trace": "normprobe.tracing.texts",
    "verify": "normprobe.verify",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'normprobe' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
