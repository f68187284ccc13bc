"""Train the sparse autoencoders of a study: `python sae_training/train.py sae_training/tiny_thinker.yaml --out DIR`."""

import sys

from normprobe.console import run_main
from normprobe.saes.study import main

if __name__ == "__main__":
    sys.exit(run_main(main))
