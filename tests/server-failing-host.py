#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""plugin-failing-host.py's checks, of disks that znbd-server serves."""

import os
import runpy

os.environ["ZNBD_SERVED_BY"] = "znbd-server"
runpy.run_path(os.path.join(os.environ["srcdir"], "plugin-failing-host.py"),
               run_name="__main__")
