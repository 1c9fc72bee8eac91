"""Runs every benchmark of this folder, each in a process of its own: ``python bench [--quick]``.

Options are passed on to the scripts. The exit code is 1 if one of them failed.
"""

import subprocess
import sys
from pathlib import Path


def main(options: list[str]) -> int:
    """Run the scripts in alphabetical order and return how the whole went."""
    failed = []
    for script in sorted(Path(__file__).parent.glob("[!_]*.py")):
        print(f"\n== {script.stem} ".ljust(100, "="), flush=True)
        if subprocess.run([sys.executable, str(script), *options], check=False).returncode:
            failed.append(script.stem)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
