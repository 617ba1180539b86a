"""`python -m private_keras`: the command line."""

import sys

from private_keras.cli import main

sys.exit(main())
