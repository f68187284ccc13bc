"""Train the sparse autoencoders of a study: `python sae_training/train.py --config STUDY.yaml --out DIR`."""

import sys

from normprobe.console import run_main
from normprobe.verify import train_saes

if __name__ == "__main__":
    sys.exit(run_main(train_saes))
