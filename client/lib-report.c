/* SPDX-License-Identifier: BSD-3-Clause */
/* The report, over the zone table export.  A record on the wire and a zone
 * in memory both have 64 bytes, so records are read into the caller's
 * array and decoded in place: no second buffer, whatever the count.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "lib-internal.h"
#include "table.h"

_Static_assert (sizeof (struct znbd_zone) == TABLE_RECORD_SIZE,
                "zones are decoded in place");

int64_t
znbd_report (struct znbd_disk *disk, uint32_t first, uint32_t count,
             struct znbd_zone *zones)
{
  const uint32_t max = disk->read_max / TABLE_RECORD_SIZE;
  uint32_t filled, n, i;

  if (first >= disk->geometry.zones)
    return 0;
  if (count > disk->geometry.zones - first)
    count = disk->geometry.zones - first;

  for (filled = 0; filled < count; filled += n) {
    n = count - filled < max ? count - filled : max;
    if (nbd_pread (disk->nbd, &zones[filled],
                   (size_t) n * TABLE_RECORD_SIZE,
                   table_record_offset (first + filled), 0) == -1)
      return lib_error_nbd ("reading the zone table at zone %u",
                            first + filled);

    for (i = filled; i < filled + n; ++i) {
      uint8_t record[TABLE_RECORD_SIZE];
      const char *why;

      memcpy (record, &zones[i], sizeof record);
      if (table_decode_record (record, &disk->geometry, first + i,
                               &zones[i], &why) == -1)
        return lib_error (EPROTO, "the server's record of zone %u makes no "
                          "sense: %s", first + i, why);
    }
  }
  return count;
}
