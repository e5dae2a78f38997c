#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The random walk through a znbd-server that stands before another server
with the zones: the stock nbdkit with the plugin, or a second znbd-server.
Each answer is what it would be without the one in front.
"""

import zone_nbd
import zone_server
from harness import Nbdkit, ZnbdServer


class Served(zone_server.Served):
    count = 0

    def serve(self, image):
        Served.count += 1
        if Served.count % 2:
            self.upstream = zone_server.Served.serve(self, image)
        else:
            self.upstream = Nbdkit(
                "reorder-timeout=0", *(
                    ["file=" + image] if image else
                    ["size=%d" % self.g.size, *self.parameters(",")]))
        self.upstream.start()
        return ZnbdServer(self.upstream.uri, "--reorder-timeout", "0")

    def close(self):
        super().close()
        self.upstream.stop()


zone_nbd.main(Served)
