"""The half of the backend that knows the device."""

from typing import Any

import torch
from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
from triton.backends.driver import DriverBase  # pyright: ignore[reportMissingImports]


class CpuDriver(DriverBase):
    """The CPU, always there."""

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cpu", 0, 1)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise RuntimeError("nothing is timed here")
