#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The random walk through znbd-server."""

import zone_nbd
import zone_server

zone_nbd.main(zone_server.Served)
