"""What `make demo` starts. The story is told by a child; this process only cleans up behind it, however it ends."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from demo.guardian import main

    sys.exit(main())
