"""`python -m compute.cli`: nova-manage."""

import gc
import sys

gc.set_threshold(100_000)  # collecting what imports leave behind would be a tenth of a short command's time

from compute.cli.main import main  # noqa: E402 - the threshold counts while this imports

sys.exit(main())
