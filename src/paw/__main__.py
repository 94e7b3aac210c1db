"""`python -m paw`: the command line where no script was installed."""

import sys

from paw.cli import main

sys.exit(main())
