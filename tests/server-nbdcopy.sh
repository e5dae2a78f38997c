#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# stock-nbdcopy.sh's checks, of disks that znbd-server serves.
# shellcheck disable=SC2034
served_by=znbd-server
# shellcheck disable=SC1091,SC2154
. "$srcdir/stock-nbdcopy.sh"
