"""Runs the `cnnx` command as `python -m cnnx`."""

import sys

if __name__ == "__main__":
    # Python puts the working directory first in sys.path; nothing may be imported from there.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]
    from cnnx.cli import main

    main()
