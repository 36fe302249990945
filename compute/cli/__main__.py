"""`python -m compute.cli`: nova-manage."""

import sys

from compute.cli.main import main

sys.exit(main())
