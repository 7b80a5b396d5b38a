"""`python -m ci.faults`."""

import sys

from ci.faults import main

if __name__ == "__main__":
    sys.exit(main())
