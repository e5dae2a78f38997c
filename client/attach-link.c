/* SPDX-License-Identifier: BSD-3-Clause */
/* Connecting to the server, the first time and again: connections for data,
 * one for appends, and libznbd's for the rest; and what the disk is.
 *
 * Whatever the server says of the disk is looked at each time, for it may
 * be another server.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "attach.h"

/* ms that a connection may take to be made. */
#define CONNECT_MS 10000

/* Seconds after which a peer that does not answer the kernel is given up. */
#define PEER_DEAD 30

#define APPEND_CONTEXT "x-zbd:append"
#define ZONES_CONTEXT "x-zbd:zones"

static int
libnbd_error (struct zone_error *err)
{
  const char *text = nbd_get_error ();
  int num = nbd_get_errno ();

  return zone_error (err, num ? num : EIO, "%s",
                     text ? text : "the connection failed");
}

/* A peer that has vanished is to be an error some time.  Sockets that are
 * not TCP's refuse this, and need it not. */
static void
watch_peer (struct nbd_handle *h)
{
  const int fd = nbd_aio_get_fd (h), on = 1, idle = PEER_DEAD / 2,
    interval = PEER_DEAD / 6, count = 3;
  const unsigned ms = PEER_DEAD * 1000;

  (void) setsockopt (fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  (void) setsockopt (fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  (void) setsockopt (fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval,
                     sizeof interval);
  (void) setsockopt (fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  (void) setsockopt (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

/* Data goes in simple replies: what structured ones say besides is of no use
 * here. */
static int
ask_for (struct nbd_handle *h, const char *context)
{
  if (context)
    return nbd_add_meta_context (h, context);
#ifdef HAVE_NBD_SET_REQUEST_EXTENDED_HEADERS
  if (nbd_set_request_extended_headers (h, false) == -1)
    return -1;
#endif
  return nbd_set_request_structured_replies (h, false);
}

/* A connection that is ready, with a context or for data (NULL); NULL with a
 * text. */
static struct nbd_handle *
dial (const char *uri, const char *context, struct zone_error *err)
{
  const uint64_t deadline = attach_now () + CONNECT_MS;
  struct nbd_handle *h = nbd_create ();
  uint64_t now;

  if (h == NULL || nbd_set_uri_allow_local_file (h, true) == -1 ||
      ask_for (h, context) == -1 ||
      nbd_set_pread_initialize (h, false) == -1 ||
      nbd_aio_connect_uri (h, uri) == -1)
    goto failed;
  while (nbd_aio_is_connecting (h) == 1) {
    now = attach_now ();
    if (now >= deadline) {
      zone_error (err, ETIMEDOUT, "no answer in %d seconds",
                  CONNECT_MS / 1000);
      nbd_close (h);
      return NULL;
    }
    if (nbd_poll (h, deadline - now) == -1)
      goto failed;
  }
  if (nbd_aio_is_ready (h) != 1)
    goto failed;
  watch_peer (h);
  return h;

 failed:
  libnbd_error (err);
  nbd_close (h);
  return NULL;
}

static uint64_t
block_size (struct nbd_handle *h, int which)
{
  int64_t n = nbd_get_block_size (h, which);

  return n > 0 ? n : 0;
}

/* What the first connection says. */
static int
look_at_data (struct link *l, struct zone_error *err)
{
  struct nbd_handle *h = l->data[0];
  struct znbd_geometry *g = &l->geometry;
  const int64_t size = nbd_get_size (h);
  uint64_t max = block_size (h, LIBNBD_SIZE_MAXIMUM),
    min = block_size (h, LIBNBD_SIZE_MINIMUM);

  if (size <= 0)
    return zone_error (err, EINVAL, "the disk has no size");
  if (min < 512)
    min = 512;
  if (max == 0 || max > ATTACH_IO_MAX)
    max = ATTACH_IO_MAX;
  if (min > 4096 || (min & (min - 1)) != 0)
    return zone_error (err, ENOTSUP, "blocks of %" PRIu64 " bytes: Linux "
                       "takes 512, 1024, 2048 and 4096", min);
  if ((uint64_t) size < min)
    return zone_error (err, ENOTSUP, "the disk is smaller than a block");
  l->min_block = min;
  l->max_block = max - max % 4096;
  if (l->max_block == 0)
    return zone_error (err, ENOTSUP, "the server takes only requests of "
                       "less than 4096 bytes");
  l->preferred = block_size (h, LIBNBD_SIZE_PREFERRED);
  l->readonly |= nbd_is_read_only (h) == 1;
  l->can_flush = nbd_can_flush (h) == 1;
  l->can_fua = nbd_can_fua (h) == 1;
  l->can_trim = nbd_can_trim (h) == 1;
  l->can_zero = nbd_can_zero (h) == 1;
  l->multi_conn = nbd_can_multi_conn (h) == 1;
  *g = (struct znbd_geometry) {
    .size = size - size % min, .zone_size = size, .zones = 1,
    .conventional = 1, .granularity = min, .model = ZNBD_MODEL_NONE,
  };
  return 0;
}

/* Whether the kernel can have its zones, and how. */
static int
look_at_zones (struct link *l, struct zone_error *err)
{
  struct znbd_geometry g;

  (void) znbd_get_geometry (l->disk, &g);
  if (g.model != ZNBD_MODEL_HOST_MANAGED) {
    l->unzoned = "the disk is host-aware, which Linux takes for an ordinary "
      "one";
    znbd_close (l->disk);
    l->disk = NULL;
    return 0;
  }
  if ((g.zone_size & (g.zone_size - 1)) != 0)
    return zone_error (err, ENOTSUP, "zones of %" PRIu64 " bytes: Linux "
                       "takes only powers of two", g.zone_size);
  /* The driver counts whole zones only. */
  g.zones = g.size / g.zone_size;
  g.size = g.zones * g.zone_size;
  if (g.zones == 0)
    return zone_error (err, ENOTSUP, "the disk has no whole zone");
  if (l->min_block < g.granularity)
    l->min_block = g.granularity;
  l->geometry = g;
  l->zoned = true;
  return 0;
}

/* Whether the server offers zones. */
static bool
offers_zones (const char *uri)
{
  struct zone_error ignored;
  struct nbd_handle *h = dial (uri, ZONES_CONTEXT, &ignored);
  const bool r = h && nbd_can_meta_context (h, ZONES_CONTEXT) == 1;

  if (h) {
    (void) nbd_shutdown (h, 0);
    nbd_close (h);
  }
  return r;
}

/* libznbd's connection. */
static int
connect_disk (struct link *l, const char *uri, bool zoned,
              struct zone_error *err)
{
  l->disk = znbd_connect_uri (uri, ZNBD_ALLOW_LOCAL_FILES);
  if (l->disk)
    return look_at_zones (l, err);
  zone_error (err, znbd_get_errno (), "%s", znbd_get_error ());
  if (zoned || offers_zones (uri))
    return -1;
  l->unzoned = "the server offers neither x-zbd contexts nor a zone table "
    "(znbd-server does, and nbdkit with its plugin zoned)";
  return 0;
}

static int
compare (const struct link *l, const struct znbd_geometry *known, bool zoned,
         struct zone_error *err)
{
  const struct znbd_geometry *g = &l->geometry;

  if (zoned != l->zoned)
    return zone_error (err, ENODEV, "it is another disk now (%s zones)",
                       zoned ? "it had" : "it had no");
  if (zoned && memcmp (g->uuid, known->uuid, sizeof g->uuid) != 0)
    return zone_error (err, ENODEV, "it is another disk now (its uuid "
                       "differs)");
  if (g->size < known->size)
    return zone_error (err, ENODEV, "the disk is smaller now: %" PRIu64
                       " bytes, not %" PRIu64, g->size, known->size);
  if (zoned && (g->zone_size != known->zone_size ||
                g->granularity != known->granularity))
    return zone_error (err, ENODEV, "it is another disk now (its zones "
                       "differ)");
  if (!zoned && g->granularity > known->granularity)
    return zone_error (err, ENODEV, "it is another disk now (its blocks are "
                       "larger)");
  return 0;
}

static int
connect_all (struct link *l, const struct attach_options *o,
             const struct znbd_geometry *known, bool zoned,
             struct zone_error *err)
{
  unsigned wanted = o->connections;

  l->data[0] = dial (o->uri, NULL, err);
  if (l->data[0] == NULL)
    return -1;
  l->n = 1;
  l->readonly = o->readonly;
  if (look_at_data (l, err) == -1)
    return -1;
  /* An ordinary disk is not asked for zones again. */
  if ((known == NULL || zoned) &&
      connect_disk (l, o->uri, zoned, err) == -1)
    return -1;
  if (known && compare (l, known, zoned, err) == -1)
    return -1;
  if (!l->multi_conn)
    wanted = 1;
  for (; l->n < wanted; l->n++) {
    l->data[l->n] = dial (o->uri, NULL, err);
    if (l->data[l->n] == NULL)
      return -1;
  }
  if (l->zoned && !l->readonly) {
    l->append = dial (o->uri, APPEND_CONTEXT, err);
    if (l->append == NULL)
      return -1;
    if (nbd_can_meta_context (l->append, APPEND_CONTEXT) != 1) {
      nbd_shutdown (l->append, 0);
      nbd_close (l->append);
      l->append = NULL;
    }
  }
  return 0;
}

struct link *
link_open (const struct attach_options *o, const struct znbd_geometry *known,
           bool zoned, struct zone_error *err)
{
  struct link *l = calloc (1, sizeof *l);

  if (l == NULL) {
    zone_error (err, ENOMEM, "out of memory");
    return NULL;
  }
  if (connect_all (l, o, known, zoned, err) == 0)
    return l;
  znbd_close (l->disk);
  link_free (l, true);
  return NULL;
}

static void
end (struct nbd_handle *h, bool polite)
{
  const struct linger now = { .l_onoff = 1 };
  int fd;

  if (polite && nbd_aio_is_ready (h) == 1)
    (void) nbd_shutdown (h, 0);
  else if ((fd = nbd_aio_get_fd (h)) != -1)
    (void) setsockopt (fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  nbd_close (h);
}

void
link_free (struct link *l, bool polite)
{
  unsigned i;

  for (i = 0; i < l->n; i++)
    end (l->data[i], polite);
  if (l->append)
    end (l->append, polite);
  free (l);
}
