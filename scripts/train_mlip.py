"""Train a potential: `python scripts/train_mlip.py CONFIG.yaml [KEY=VALUE ...]`.

The same as `mlip train`; with several devices, `torchrun --nproc-per-node N scripts/train_mlip.py`.
"""

from __future__ import annotations

import sys

from mlip.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
