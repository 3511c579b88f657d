"""What every experiment shares."""

import os
from importlib.util import find_spec

# A notebook sets this for all that it starts. Elsewhere that module may be missing, and matplotlib cannot be imported.
backend = os.environ.get("MPLBACKEND", "")
if backend.startswith("module://") and find_spec(backend.removeprefix("module://").split(".")[0]) is None:
    del os.environ["MPLBACKEND"]
