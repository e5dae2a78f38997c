/* SPDX-License-Identifier: BSD-3-Clause */
/* See target.h. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <libnbd.h>

#include "cli.h"
#include "disk.h"
#include "open.h"
#include "libznbd.h"
#include "target.h"

struct target {
  bool readonly;                /* what target_is_read_only says */
  bool changed;                 /* there may be something to flush */

  /* one of these two */
  struct znbd_disk *remote;
  struct zdisk *disk;
  struct zdisk_client *client;  /* of disk */

  struct znbd_geometry geometry;

  bool verbose;
  const char *ways[3];          /* said already, by enum znbd_way */
};

/* nbd: or nbds:, perhaps with +TRANSPORT. */
bool
target_is_uri (const char *operand)
{
  const char *p = operand;

  if (strncasecmp (p, "nbd", 3) != 0)
    return false;
  p += 3;
  if (*p == 's' || *p == 'S')
    p++;
  if (*p == '+')
    do
      p++;
    while (isalnum ((unsigned char) *p));
  return *p == ':';
}

static int
open_remote (struct target *t, const char *uri)
{
  t->remote = znbd_connect_uri (uri, ZNBD_ALLOW_LOCAL_FILES);
  if (t->remote == NULL) {
    cli_error ("%s", znbd_get_error ());
    return -1;
  }
  (void) znbd_get_geometry (t->remote, &t->geometry);
  t->readonly = znbd_is_read_only (t->remote);
  return 0;
}

static int
open_image (struct target *t, const char *path, bool readonly)
{
  struct zdisk_options options = ZDISK_OPTIONS_DEFAULT;
  struct zone_error err;
  struct store *store;

  /* Who writes here writes in order: what is ahead of the pointer is behind
   * a write that failed, and nobody would have it time out. */
  options.reorder_timeout = 0;
  store = store_open (path, readonly ? STORE_READ_ONLY : STORE_WRITABLE,
                      &err);
  if (store == NULL) {
    cli_error ("%s%s", err.text, err.num == EBUSY || err.num == EAGAIN ?
               "; where a server has it, give the server's NBD URI" : "");
    return -1;
  }
  t->disk = zdisk_new (store, &options, &err);
  if (t->disk == NULL) {
    cli_error ("%s", err.text);
    return -1;
  }
  if (zdisk_start (t->disk, &err) == -1) {
    cli_error ("%s", err.text);
    (void) zdisk_close (t->disk, &err);
    return -1;
  }
  t->client = zdisk_client_new (t->disk, readonly);
  if (t->client == NULL) {
    cli_error ("%s: out of memory", path);
    (void) zdisk_close (t->disk, &err);
    return -1;
  }
  t->geometry = *zdisk_geometry (t->disk);
  t->readonly = access (path, W_OK) == -1;
  return 0;
}

struct target *
target_open (const char *operand, bool readonly)
{
  struct target *t = calloc (1, sizeof *t);
  int r;

  if (t == NULL) {
    cli_error ("out of memory");
    return NULL;
  }
  if (target_is_uri (operand))
    r = open_remote (t, operand);
  else
    r = open_image (t, operand, readonly);
  if (r == -1) {
    free (t);
    return NULL;
  }
  return t;
}

void
target_set_verbose (struct target *t)
{
  t->verbose = true;
}

struct znbd_disk *
target_remote (struct target *t)
{
  return t->remote;
}

struct zdisk_client *
target_client (struct target *t)
{
  return t->client;
}

/* Says which way the last one of these went, if that is news. */
static void
say_way (struct target *t, enum znbd_way what)
{
  static const char *const names[] = { "report", "zones", "append" };
  const char *way;

  if (!t->verbose)
    return;
  way = t->remote ? znbd_get_way (t->remote, what) : "the image itself";
  if (way == NULL || way == t->ways[what])
    return;
  t->ways[what] = way;
  cli_error ("%s by way of %s", names[what], way);
}

void
target_changed (struct target *t, enum znbd_way what)
{
  t->changed = true;
  say_way (t, what);
}

static int
end (struct target *t, bool quiet)
{
  struct zone_error err;
  int r;

  if (t->remote) {
    r = t->changed ? znbd_flush (t->remote) : 0;
    if (r == -1 && !quiet)
      cli_error ("%s", znbd_get_error ());
    znbd_close (t->remote);
  }
  else {
    zdisk_client_close (t->client);
    r = zdisk_close (t->disk, &err);
    if (r == -1 && !quiet)
      cli_error ("%s", err.text);
  }
  free (t);
  return r;
}

int
target_close (struct target *t)
{
  return end (t, false);
}

void
target_abandon (struct target *t)
{
  (void) end (t, true);
}

const struct znbd_geometry *
target_geometry (const struct target *t)
{
  return &t->geometry;
}

bool
target_is_read_only (const struct target *t)
{
  return t->readonly;
}

int64_t
target_report (struct target *t, uint32_t first, uint32_t count,
               struct znbd_zone *zones)
{
  int64_t n;

  if (t->disk) {
    n = zdisk_report (t->disk, first, count, zones);
    say_way (t, ZNBD_WAY_REPORT);
    return n;
  }
  n = znbd_report (t->remote, first, count, zones);
  say_way (t, ZNBD_WAY_REPORT);
  if (n == -1)
    cli_error ("%s", znbd_get_error ());
  return n;
}

static enum zdisk_op
disk_op (enum znbd_zone_op op)
{
  switch (op) {
  case ZNBD_ZONE_OPEN: return ZDISK_OPEN;
  case ZNBD_ZONE_CLOSE: return ZDISK_CLOSE;
  case ZNBD_ZONE_FINISH: return ZDISK_FINISH;
  case ZNBD_ZONE_RESET: return ZDISK_RESET;
  }
  abort ();
}

/* Runs a request on the image; *req may be looked at afterwards. */
static int
run (struct target *t, struct zdisk_request *req)
{
  if (zdisk_run (t->client, req) != 0) {
    cli_error ("%s", req->reason);
    return -1;
  }
  return 0;
}

int
target_manage (struct target *t, enum znbd_zone_op op, uint32_t first,
               uint32_t count, uint32_t *done)
{
  const uint64_t zone_size = t->geometry.zone_size;
  int r;

  t->changed = true;
  if (t->disk) {
    struct zdisk_request req = { .op = disk_op (op) };
    uint64_t end = (uint64_t) (first + count - 1) * zone_size + zone_size;

    if (end > t->geometry.size)
      end = t->geometry.size;
    req.offset = first * zone_size;
    req.length = end - req.offset;
    say_way (t, ZNBD_WAY_MANAGE);
    r = run (t, &req);
    *done = r == 0 ? count : req.result / zone_size;
    return r;
  }

  r = znbd_manage (t->remote, op, first, count, 0, done);
  say_way (t, ZNBD_WAY_MANAGE);
  if (r == -1)
    cli_error ("%s", znbd_get_error ());
  return r;
}

int
target_manage_all (struct target *t, enum znbd_zone_op op)
{
  int r;

  t->changed = true;
  if (t->disk) {
    struct zdisk_request req = { .op = disk_op (op), .flags = ZDISK_ALL };

    say_way (t, ZNBD_WAY_MANAGE);
    return run (t, &req);
  }
  r = znbd_manage_all (t->remote, op, 0);
  say_way (t, ZNBD_WAY_MANAGE);
  if (r == -1)
    cli_error ("%s", znbd_get_error ());
  return r;
}

/* ---- data ---- */

/* After a message: -1, and errno. */
static int
fail (int error, const char *text)
{
  cli_error ("%s", text);
  errno = error ? error : EIO;
  return -1;
}

static int
run_data (struct target *t, struct zdisk_request *req)
{
  if (zdisk_run (t->client, req) != 0)
    return fail (req->error, req->reason);
  return 0;
}

int
target_read (struct target *t, void *buf, size_t length, uint64_t offset)
{
  struct nbd_handle *nbd;

  if (t->disk)
    return run_data (t, &(struct zdisk_request) {
        .op = ZDISK_READ, .buf = buf, .length = length, .offset = offset });
  nbd = znbd_get_nbd_handle (t->remote);
  if (nbd == NULL)
    return fail (znbd_get_errno (), znbd_get_error ());
  if (nbd_pread (nbd, buf, length, offset, 0) == -1)
    return fail (nbd_get_errno (), nbd_get_error ());
  return 0;
}

int
target_write (struct target *t, const void *buf, size_t length,
              uint64_t offset)
{
  struct nbd_handle *nbd;
  char text[400];
  int error;

  t->changed = true;
  if (t->disk)
    return run_data (t, &(struct zdisk_request) {
        .op = ZDISK_WRITE, .buf = (void *) buf, .length = length,
        .offset = offset });
  nbd = znbd_get_nbd_handle (t->remote);
  if (nbd == NULL)
    return fail (znbd_get_errno (), znbd_get_error ());
  if (nbd_pwrite (nbd, buf, length, offset, 0) == 0)
    return 0;
  error = nbd_get_errno ();
  if (nbd_aio_is_dead (nbd) == 1 || nbd_aio_is_closed (nbd) == 1 ||
      znbd_explain_write (t->remote, offset, length, error, text,
                          sizeof text) == -1)
    return fail (error, nbd_get_error ());
  return fail (error, text);
}

int
target_append (struct target *t, uint32_t zone, const void *buf,
               size_t length, uint64_t *offset)
{
  const struct znbd_geometry *g = &t->geometry;
  int r;

  t->changed = true;
  if (t->disk) {
    struct zdisk_request req = {
      .op = ZDISK_APPEND, .buf = (void *) buf, .length = length,
      .offset = zone * g->zone_size,
    };

    say_way (t, ZNBD_WAY_APPEND);
    r = run_data (t, &req);
    *offset = req.result;
    return r;
  }
  r = znbd_append (t->remote, zone, buf, length, 0, offset);
  say_way (t, ZNBD_WAY_APPEND);
  return r == 0 ? 0 : fail (znbd_get_errno (), znbd_get_error ());
}

int
target_flush (struct target *t)
{
  t->changed = true;
  if (t->disk)
    return run_data (t, &(struct zdisk_request) { .op = ZDISK_FLUSH });
  if (znbd_flush (t->remote) == -1)
    return fail (znbd_get_errno (), znbd_get_error ());
  return 0;
}
