"""``python -m map2map.dialects.cubes FILE.yaml``."""

import logging
import sys

from map2map.dialects.cubes import main
from map2map.errors import M2MError

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sys.exit(main(sys.argv[1:], "cubes"))
    except M2MError as error:
        print(f"cubes: error: {error}", file=sys.stderr)
        sys.exit(2)
