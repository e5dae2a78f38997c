# SPDX-License-Identifier: BSD-3-Clause
"""The random walk's way through the stock nbdkit and the plugin (see
zone_nbd.py).  Appends have no way through nbdkit; management goes by the
zone table alone.
"""

import zone_nbd
from harness import Nbdkit


def through_nbdkit(answer):
    """One of the model's as it arrives."""
    # One of the errors that nbdkit has no number for.
    return "EINVAL" if answer == "EOVERFLOW" else answer


class Model(zone_nbd.NBDModel):
    def apply(self, op):
        return through_nbdkit(super().apply(op))


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
