"""The core package's dependencies have versions that vLLM 0.33 takes, too; it was never installed here.

Both tables are of 28 November 2026: what the metadata of vllm 0.33.0 and of the numba it pins ask for of packages that
normprobe needs, and what `uv pip compile` chose of these for ".[vllm]" with vllm==0.33.0 (Python 3.11, Linux).
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

VLLM = "transformers<5.21.0,>=5.16.1 torch==2.14.0 numpy<2.5,>=1.22 safetensors>=0.6.2 numba==0.65.0".split()
RESOLVED = dict(
    line.split("==")
    for line in """
        einops==0.8.2 jaxtyping==0.3.11 jinja2==3.1.6 math-verify==0.9.0 matplotlib==3.11.2 numba==0.65.0 numpy==2.3.5
        pandas==3.1.1 pyarrow==26.0.1 pyyaml==6.0.4 sae-lens==6.54.12 safetensors==0.8.0 scipy==1.17.1 seaborn==0.13.2
        shtab==1.13.0 sympy==1.14.0 torch==2.14.0 tqdm==4.70.1 transformer-lens==3.9.0 transformers==5.20.2
        tyro==1.0.17 vllm==0.33.0
    """.split()
)
PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["vllm"], *EXTRAS["numba"], *VLLM])
def test_the_versions_chosen_are_allowed(line: str) -> None:
    asked = Requirement(line)
    assert asked.specifier.contains(RESOLVED[asked.name]), line


def test_the_versions_tested_on_a_cpu_are_allowed_too() -> None:
    pinned = (Path(__file__).parents[3] / "constraints-vllm.txt").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)$", pinned.lower().replace("_", "-"), re.MULTILINE))
    asked = [one for one in map(Requirement, PROJECT["dependencies"]) if one.name in versions]
    assert {"torch", "transformers", "numpy", "sae-lens"} <= {one.name for one in asked}
    for one in asked:
        assert one.specifier.contains(versions[one.name]), one
