#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# stock-nbdcopy.sh's copies, onto disks that znbd-server serves.
# shellcheck disable=SC2034
start=start_znbd_server
# shellcheck disable=SC1091,SC2154
. "$srcdir/stock-nbdcopy.sh"
