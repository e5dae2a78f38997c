/* SPDX-License-Identifier: BSD-3-Clause */
/* Appends blocks to a zone with libnbd, many in flight, and prints where
 * each went:
 *
 *     append-client URI ZONE-START COUNT DEPTH WRITER
 *     PLACE NUMBER            (in bytes from the disk's start; COUNT lines)
 *
 * A block says who wrote it, and its number: two 32-bit little-endian
 * numbers, over and over.  For server-append.py, which has the same in
 * Python.
 */

#include <config.h>

#include <endian.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#define BLOCK 4096
#define DEPTH_MAX 256

/* An append in flight; its place in the array is its tag. */
static struct slot {
  unsigned number;
  int64_t write, status;        /* cookies; 0: answered */
  uint64_t place;
  uint32_t data[BLOCK / 4];
} slots[DEPTH_MAX];

static uint64_t zone;

static void
die (void)
{
  fprintf (stderr, "append-client: %s\n", nbd_get_error ());
  exit (1);
}

static int
told (void *opaque, const char *context, uint64_t offset, uint32_t *entries,
      size_t n, int *error)
{
  struct slot *slot = opaque;

  (void) context;
  (void) offset;
  if (*error == 0 && n == 2 && entries[0] == BLOCK && entries[1] > 0)
    slot->place = zone + (entries[1] - 1) * UINT64_C (512);
  return 0;
}

static void
begin (struct nbd_handle *nbd, struct slot *slot, uint32_t writer,
       unsigned number)
{
  uint64_t tag = zone + (slot - slots) * BLOCK;
  unsigned i;

  slot->number = number;
  slot->place = UINT64_MAX;
  for (i = 0; i < BLOCK / 4; i += 2) {
    slot->data[i] = htole32 (writer);
    slot->data[i + 1] = htole32 (number);
  }
  slot->write = nbd_aio_pwrite (nbd, slot->data, BLOCK, tag,
                                NBD_NULL_COMPLETION, 0);
  if (slot->write == -1)
    die ();
  slot->status = nbd_aio_block_status (nbd, BLOCK, tag, (nbd_extent_callback) {
      .callback = told, .user_data = slot }, NBD_NULL_COMPLETION,
    LIBNBD_CMD_FLAG_REQ_ONE);
  if (slot->status == -1)
    die ();
}

static void
retire (struct nbd_handle *nbd, int64_t *cookie)
{
  int r = *cookie ? nbd_aio_command_completed (nbd, *cookie) : 0;

  if (r == -1)
    die ();
  if (r)
    *cookie = 0;
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *nbd = nbd_create ();
  unsigned count, depth, writer, sent = 0, done = 0, i;

  if (argc != 6 || nbd == NULL)
    return 1;
  zone = strtoull (argv[2], NULL, 10);
  count = atoi (argv[3]);
  depth = atoi (argv[4]);
  writer = atoi (argv[5]);
  if (depth < 1 || depth > DEPTH_MAX)
    return 1;
  if (nbd_add_meta_context (nbd, "x-zbd:append") == -1 ||
      nbd_connect_uri (nbd, argv[1]) == -1)
    die ();
  while (done < count) {
    for (i = 0; i < depth; i++) {
      struct slot *slot = &slots[i];
      bool busy = slot->write || slot->status;

      retire (nbd, &slot->write);
      retire (nbd, &slot->status);
      if (busy && !slot->write && !slot->status) {
        printf ("%" PRId64 " %u\n", (int64_t) slot->place, slot->number);
        done++;
        busy = false;
      }
      if (!busy && sent < count)
        begin (nbd, slot, writer, sent++);
    }
    if (done < count && nbd_poll (nbd, -1) == -1)
      die ();
  }
  if (nbd_shutdown (nbd, 0) == -1)
    die ();
  nbd_close (nbd);
  return 0;
}
