/* SPDX-License-Identifier: BSD-3-Clause */
/* Source and destination as wholes.  A destination that is a path where
 * there is nothing becomes an image with the source's geometry.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "cli.h"
#include "copy.h"
#include "copy-conn.h"
#include "image.h"

static bool
is_path_to_nothing (const char *operand)
{
  return !target_is_uri (operand) && access (operand, F_OK) == -1 &&
    errno == ENOENT;
}

int
copy_report (struct copy_side *side)
{
  if (side->zones == NULL)
    side->zones = calloc (side->g->zones, sizeof *side->zones);
  if (side->zones == NULL) {
    cli_error ("out of memory for a report of %" PRIu32 " zones",
               side->g->zones);
    return -1;
  }
  return target_report (side->target, 0, side->g->zones, side->zones) == -1
    ? -1 : 0;
}

static int
open_side (struct copy *c, struct copy_side *side, const char *operand,
           bool readonly)
{
  side->operand = operand;
  side->target = target_open (operand, readonly);
  if (side->target == NULL)
    return -1;
  if (c->o.verbose)
    target_set_verbose (side->target);
  side->g = target_geometry (side->target);
  return copy_report (side);
}

/* An image has one capacity for all zones: the largest, and a zone that is
 * full in the source is finished. */
static uint64_t
capacity (const struct copy_side *src)
{
  uint64_t max = 0;
  uint32_t i;

  for (i = 0; i < src->g->zones; ++i)
    if (src->zones[i].type != ZNBD_ZONE_CONVENTIONAL &&
        src->zones[i].capacity > max)
      max = src->zones[i].capacity;
  return max;
}

static int
create (struct copy *c, const char *path)
{
  const struct znbd_geometry *g = c->src.g;
  struct store_geometry geometry = {
    .size = g->size, .zone_size = g->zone_size,
    .zone_capacity = capacity (&c->src), .conventional = g->conventional,
    .max_open = g->max_open, .max_active = g->max_active,
    .granularity = g->granularity, .model = g->model,
  };
  struct zone_error err;

  if (g->model == ZNBD_MODEL_NONE) {
    cli_error ("%s has no zones; nbdcopy copies such disks", c->src.operand);
    return -1;
  }
  if (image_create (path, &geometry, false, &err) == -1) {
    cli_error ("%s", err.text);
    return -1;
  }
  c->created = true;
  return 0;
}

/* The same disk twice would be emptied before it is read. */
static int
check_same (const struct copy *c)
{
  static const uint8_t none[16];

  if (memcmp (c->src.g->uuid, none, sizeof none) == 0 ||
      memcmp (c->src.g->uuid, c->dst.g->uuid, sizeof none) != 0)
    return 0;
  cli_error ("%s and %s are the same disk, or a file of one was copied: they "
             "have the same uuid", c->src.operand, c->dst.operand);
  return -1;
}

int
copy_open (struct copy *c, const char *src, const char *dst)
{
  if (open_side (c, &c->src, src, true) == -1)
    return -1;
  if (is_path_to_nothing (dst) && create (c, dst) == -1)
    return -1;
  if (open_side (c, &c->dst, dst, false) == -1)
    return -1;
  if (target_is_read_only (c->dst.target)) {
    cli_error ("%s is read-only: nothing can be copied to it", dst);
    return -1;
  }
  return check_same (c);
}

int
copy_probe (struct copy_side *side)
{
  struct znbd_disk *remote = target_remote (side->target);
  struct copy_mail mail;
  struct copy_conn *conn;
  struct nbd_handle *nbd;
  char error[400];

  if (remote && side->export == NULL) {
    nbd = znbd_get_nbd_handle (remote);
    side->export = nbd ? nbd_get_export_name (nbd) : NULL;
    if (side->export == NULL) {
      cli_error ("%s: %s", side->operand,
                 nbd ? nbd_get_error () : znbd_get_error ());
      return -1;
    }
  }
  memset (&mail, 0, sizeof mail);
  if (copy_mail_init (&mail) == -1) {
    cli_error ("eventfd: %s", strerror (errno));
    return -1;
  }
  conn = copy_conn_new (side, &mail, error, sizeof error);
  if (conn)
    copy_conn_describe (conn, side);
  else
    cli_error ("%s", error);
  copy_conn_free (conn);
  copy_mail_free (&mail);
  return conn ? 0 : -1;
}

static int
close_side (struct copy_side *side, bool changed, bool good)
{
  int r = 0;

  if (side->target && good) {
    if (changed)
      target_changed (side->target, ZNBD_WAY_MANAGE);
    r = target_close (side->target);
  }
  else if (side->target)
    target_abandon (side->target);
  free (side->zones);
  free (side->export);
  return r;
}

int
copy_close (struct copy *c, bool good)
{
  int r = close_side (&c->dst, true, good);

  if (close_side (&c->src, false, true) == -1)
    r = -1;
  return r;
}
