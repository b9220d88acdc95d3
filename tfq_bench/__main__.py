"""`python -m tfq_bench`, the same as the command `tfq-bench`."""

import sys

from tfq_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
