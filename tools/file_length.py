"""One idea per file: past 400 lines look for the second idea, past 600 it fails."""

import sys
from pathlib import Path

NOTICE = 400
LIMIT = 600


def main(roots: list[str]) -> int:
    """Look at every Python file below the folders; 1 if one is past the limit."""
    status = 0
    for root in roots:
        for path in sorted(Path(root).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > LIMIT:
                print(
                    f"{path}:{LIMIT + 1}: {lines} lines, more than {LIMIT}: find the second idea and move it out"
                )
                status = 1
            elif lines > NOTICE:
                print(f"{path}: notice: {lines} lines, past {NOTICE}: is there a second idea in it?")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
