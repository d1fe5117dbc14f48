"""`python -m axonfs`: the command line, for a mount that starts its own background process."""

import sys

from axonfs.cli.main import main

sys.exit(main())
