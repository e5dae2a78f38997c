#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The random walk through the stock nbdkit and the plugin."""

import zone_nbd
import zone_nbdkit

zone_nbd.main(zone_nbdkit.Served)
