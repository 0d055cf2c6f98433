"""`python -m cnnx`, which is the `cnnx` command."""

import sys

if __name__ == "__main__":
    # Python put the working directory first, and nothing may be imported from there.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]
    from cnnx.cli import main

    main()
