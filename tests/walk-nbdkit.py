#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The random walk through the stock nbdkit and the plugin (see
zone_nbd.py).  Appends have no way through nbdkit; management goes by the
zone table alone.
"""

import zone_nbd
from harness import Nbdkit


class Model(zone_nbd.NBDModel):
    """The model's answers as they arrive through nbdkit."""

    def apply(self, op):
        answer = super().apply(op)
        # One of the errors that nbdkit has no number for.
        return "EINVAL" if answer == "EOVERFLOW" else answer


class Served(zone_nbd.Served):
    model = Model
    weights = dict.fromkeys(
        ("append", "open", "close", "finish", "reset", "open-all",
         "close-all", "finish-all", "reset-all", "report", "shape",
         "reopen"), 0)
    weights.update({"table-write": 22, "table-all": 1, "table-read": 12,
                    "table-shape": .3})

    def serve(self, image):
        if image:
            return Nbdkit("reorder-timeout=0", "file=" + image)
        return Nbdkit("reorder-timeout=0", "size=%d" % self.g.size,
                      *self.parameters(","))


zone_nbd.main(Served)
