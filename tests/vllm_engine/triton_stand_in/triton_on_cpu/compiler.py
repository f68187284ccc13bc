"""The half of the backend that would compile."""

from typing import Any

from triton.backends.compiler import BaseBackend, GPUTarget  # pyright: ignore[reportMissingImports]


class CpuBackend(BaseBackend):
    """Nothing asks it to compile."""

    binary_ext = "none"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return target.backend == "cpu"

    def hash(self) -> str:
        return "cpu"

    def parse_options(self, options: dict[str, Any]) -> object:
        return options

    def add_stages(self, stages: dict[str, Any], options: object, language: Any) -> None:
        raise RuntimeError("nothing is compiled here; set TRITON_INTERPRET=1")

    def load_dialects(self, context: Any) -> None:
        """There are none."""

    def get_module_map(self) -> dict[str, Any]:
        return {}

    def get_codegen_implementation(self, options: object) -> dict[str, Any]:
        return {}

    def pack_metadata(self, metadata: Any) -> Any:
        return metadata
