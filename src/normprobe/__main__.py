"""`python -m normprobe` is the command `normprobe`."""

import sys

from normprobe.cli import main

sys.exit(main())
