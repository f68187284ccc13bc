"""Task pack for lm-evaluation-harness: the testbed's problems as generative tasks. `DIRECTORY` is for `--include_path`.

Tasks: normprobe_arithmetic, _boolean, _pointer, _recall (group normprobe_testbed); normprobe_arithmetic_crowded and
normprobe_boolean_crowded, with more distractors than in training (group normprobe_crowded). No task needs a network.
"""

from pathlib import Path

DIRECTORY = Path(__file__).parent
"""Where the tasks' YAML files lie."""
