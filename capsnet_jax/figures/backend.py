"""matplotlib, imported before whatever else imports it, whatever the environment says.

matplotlib refuses to be imported where MPLBACKEND names a backend that is not installed, as a notebook's in a process
that the notebook started. Figures here are files, which need no such backend. Nor does it matter to them that there is
no home directory in which matplotlib could keep its settings.
"""

import logging
import os
import sys

if "matplotlib" not in sys.modules:
    _backend = os.environ.pop("MPLBACKEND", None)
    _logger = logging.getLogger("matplotlib")
    _level = _logger.level
    _logger.setLevel(logging.ERROR)
    import matplotlib

    _logger.setLevel(_level)
    if _backend:
        try:
            matplotlib.rcParams["backend"] = _backend
            os.environ["MPLBACKEND"] = _backend
        except ValueError:
            pass  # matplotlib finds one itself, should anybody ask for a window
