/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-report: how long the report of all zones takes, from asking a server
 * to the last zone in the caller's array.
 *
 *     nbd-report [--extended] SOCKET REPEAT
 *
 * By libznbd, which takes the way that it finds best; or, for libnbd has
 * extended headers from 1.18 on only, over a plain socket by extended
 * headers, with libznbd's decoder.  Prints JSON; "sum" is the same where the
 * zones are.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib-decode.h"
#include "libznbd.h"
#include "load.h"

/* The socket is non-blocking. */
static void
transfer (int fd, void *buf, size_t length, short events)
{
  struct pollfd pfd = { .fd = fd, .events = events };
  ssize_t r;

  while (length > 0) {
    r = events == POLLIN ? recv (fd, buf, length, 0)
      : send (fd, buf, length, MSG_NOSIGNAL);
    if (r == -1 && errno == EAGAIN)
      poll (&pfd, 1, -1);
    else if (r == -1 && errno == EINTR)
      continue;
    else if (r <= 0)
      load_die ("the server: %s", r == 0 ? "end of file" : strerror (errno));
    else {
      buf = (char *) buf + r;
      length -= r;
    }
  }
}

/* Asks for the status of all that is left and decodes one reply to it. */
static void
ask_extended (int fd, struct lib_decoder *d, uint8_t *buf, size_t size)
{
  struct proto_request_ext request = {
    .magic = htobe32 (NBD_REQUEST_EXT_MAGIC),
    .type = htobe16 (NBD_CMD_BLOCK_STATUS), .offset = htobe64 (d->at),
    .length = htobe64 (d->geometry->size - d->at),
  };
  const size_t before = 2 * sizeof (uint32_t);
  struct proto_chunk_ext chunk;
  struct proto_extent_ext extent;
  uint64_t length, i;
  const char *why;

  transfer (fd, &request, sizeof request, POLLOUT);
  do {
    transfer (fd, &chunk, sizeof chunk, POLLIN);
    length = be64toh (chunk.length);
    if (be32toh (chunk.magic) != NBD_REPLY_EXT_MAGIC || length > size)
      load_die ("a reply makes no sense");
    transfer (fd, buf, length, POLLIN);
    if (be16toh (chunk.type) == NBD_REPLY_TYPE_NONE)
      continue;
    if (be16toh (chunk.type) != NBD_REPLY_TYPE_BLOCK_STATUS_EXT)
      load_die ("the server refuses a status: reply type %u",
                be16toh (chunk.type));
    for (i = before; i + sizeof extent <= length; i += sizeof extent) {
      memcpy (&extent, buf + i, sizeof extent);
      if (lib_decoder_add (d, be64toh (extent.length), be64toh (extent.flags),
                           &why) == -1)
        load_die ("the report makes no sense: %s", why);
    }
  } while (!(be16toh (chunk.flags) & NBD_REPLY_FLAG_DONE));
}

static void
report_extended (int fd, const struct znbd_geometry *g,
                 struct znbd_zone *zones)
{
  /* At most 2^20 descriptors come in a chunk. */
  static uint8_t buf[sizeof (struct proto_extent_ext) * ((1 << 20) + 1)];
  struct lib_decoder d;

  lib_decoder_init (&d, g, 0, g->zones, zones);
  while (d.complete < g->zones)
    ask_extended (fd, &d, buf, sizeof buf);
}

static void
report (struct znbd_disk *disk, const struct znbd_geometry *g,
        struct znbd_zone *zones)
{
  if (znbd_report (disk, 0, g->zones, zones) != g->zones)
    load_die ("%s", znbd_get_error ());
}

/* FNV-1a over what a zone is. */
static uint64_t
sum (const struct znbd_zone *zones, uint32_t n)
{
  uint64_t h = UINT64_C (0xcbf29ce484222325);
  uint32_t i;
  unsigned k;

  for (i = 0; i < n; i++) {
    const uint64_t is[] = { zones[i].start, zones[i].length, zones[i].capacity,
                            zones[i].wp, zones[i].type, zones[i].cond };

    for (k = 0; k < sizeof is / sizeof is[0]; k++)
      h = (h ^ is[k]) * UINT64_C (0x100000001b3);
  }
  return h;
}

int
main (int argc, char *argv[])
{
  bool extended = argc > 1 && strcmp (argv[1], "--extended") == 0;
  struct load load = { .extended = true, .context = "x-zbd:zones",
                       .export = "" };
  struct load_conn conn = { .fd = -1 };
  struct znbd_geometry g;
  struct znbd_disk *disk;
  struct znbd_zone *zones;
  char uri[4096];
  uint64_t since;
  int i, n;

  argc -= extended;
  argv += extended;
  n = argc == 3 ? atoi (argv[2]) : 0;
  if (n < 1)
    load_die ("usage: nbd-report [--extended] SOCKET REPEAT");
  load.unix_path = argv[1];
  snprintf (uri, sizeof uri, "nbd+unix:///?socket=%s", argv[1]);
  disk = znbd_connect_uri (uri, 0);
  if (disk == NULL || znbd_get_geometry (disk, &g) == -1)
    load_die ("%s", znbd_get_error ());
  zones = calloc (g.zones, sizeof *zones);
  if (zones == NULL)
    load_die ("no memory");
  if (extended)
    load_connect (&load, &conn);
  printf ("{ \"zones\": %" PRIu32 ", \"ms\": [", g.zones);
  for (i = 0; i < n; i++) {
    since = load_now ();
    if (extended)
      report_extended (conn.fd, &g, zones);
    else
      report (disk, &g, zones);
    printf ("%s%.3f", i > 0 ? ", " : "", (load_now () - since) / 1e6);
  }
  printf ("],\n  \"sum\": \"%016" PRIx64 "\", \"way\": \"%s\" }\n",
          sum (zones, g.zones), extended
          ? "extended headers over a plain socket, libznbd's decoder"
          : znbd_get_way (disk, ZNBD_WAY_REPORT));
  free (zones);
  znbd_close (disk);
  return 0;
}
