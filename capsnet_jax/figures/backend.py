"""matplotlib, imported once and in peace: imported before whatever else imports matplotlib.

matplotlib refuses to be imported where MPLBACKEND names a backend that is not installed, as a notebook's in a process
that it started. Figures here are files, which need no such backend. Nor does it matter to them that there is no home
directory in which matplotlib could keep its settings.
"""

import logging
import os

_logger = logging.getLogger("matplotlib")
_level = _logger.level
_logger.setLevel(logging.ERROR)
try:
    import matplotlib
except ValueError:
    os.environ["MPLBACKEND"] = "agg"
    import matplotlib  # noqa: F401
_logger.setLevel(_level)
