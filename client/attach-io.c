/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernel's requests as commands to the server, and their ends.  A
 * request's data is copied from the driver when it begins, and a read's to
 * it when it ends, from where it was received.
 *
 * The kernel has one write in flight in each sequential zone, so writes may
 * go over any connection.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"
#include "protocol.h"

/* How often a request is judged before it fails. */
#define JUDGED_MAX 3

void
io_answered (struct command *c)
{
  struct request *r = c->request;

  c->conn->in_flight--;
  if (c->reply.error && r->error == 0)
    r->error = c->reply.error;
  if (--r->outstanding == 0)
    list_add (&r->a->answered, r);
}

static bool
is_sequential_at (const struct attach *a, uint64_t offset)
{
  return a->zoned && zone_of (a, offset) >= a->geometry.conventional;
}

bool
io_is_sequential (const struct attach *a, const struct request *r)
{
  return (r->op == UBLK_OP_WRITE || r->op == UBLK_OP_WRITE_ZEROES ||
          r->op == UBLK_OP_ZONE_APPEND) && is_sequential_at (a, r->offset);
}

/* ---- the end ---- */

/* What the kernel makes the right block status of. */
static int
kernel_error (const struct attach *a, int error)
{
  switch (error) {
  case ENOSPC:
    return a->zoned ? EIO : ENOSPC;
  case 0:
  case EOVERFLOW:               /* the active limit */
  case ETOOMANYREFS:            /* the open limit */
  case ENOMEM:
    return error;
  case ENOTSUP:
    return EOPNOTSUPP;
  default:
    return EIO;
  }
}

static void
changed (struct attach *a)
{
  a->changes++;
  if (a->link == NULL || a->link->can_flush)
    atomic_store (&a->state->dirty, 1);
}

/* What its end tells of zones. */
static void
settle (struct attach *a, struct request *r)
{
  switch (r->op) {
  case UBLK_OP_FLUSH:
    if (r->error == 0 && r->changes > a->flushed)
      a->flushed = r->changes;
    if (a->flushed == a->changes)
      atomic_store (&a->state->dirty, 0);
    break;
  case UBLK_OP_WRITE:
  case UBLK_OP_WRITE_ZEROES:
    if (io_is_sequential (a, r) && r->error)
      append_forget (a, zone_of (a, r->offset));
    else if (io_is_sequential (a, r))
      append_moved (a, r->offset + r->length);
    if (io_is_sequential (a, r) && a->touched)
      a->touched[zone_of (a, r->offset)] = 1;
    changed (a);
    break;
  case UBLK_OP_ZONE_RESET:
    if (r->error == 0)
      append_reset (a, zone_of (a, r->offset));
    else
      append_forget (a, zone_of (a, r->offset));
    changed (a);
    break;
  case UBLK_OP_ZONE_RESET_ALL:
    append_forget_all (a);
    orphans_drop (a, UINT64_MAX);
    changed (a);
    break;
  case UBLK_OP_ZONE_FINISH:
    append_forget (a, zone_of (a, r->offset));
    changed (a);
    break;
  case UBLK_OP_ZONE_APPEND:
    if (r->error)
      append_failed (a, r);
    changed (a);
    break;
  case UBLK_OP_ZONE_OPEN:
  case UBLK_OP_ZONE_CLOSE:
  case UBLK_OP_DISCARD:
    changed (a);
    break;
  }
}

void
io_end (struct attach *a, struct request *r, int error)
{
  const uint8_t *data = r->buf;
  size_t n = 0;

  if (r->op == UBLK_OP_READ) {
    data = r->command[0].reply.data;
    n = r->length;
  }
  else if (r->op == UBLK_OP_REPORT_ZONES)
    n = r->result;

  r->error = kernel_error (a, error);
  settle (a, r);
  if (r->error == 0 && n > 0 &&
      pwrite (a->ublkc, data, n, ublk_data (r->queue, r->tag)) !=
      (ssize_t) n)
    r->error = EIO;
  if (r->op == UBLK_OP_ZONE_APPEND)
    append_ended (a, r);
  loop_commit (a, r);
}

/* ---- the beginning ---- */

void
io_begin (struct attach *a, struct request *r)
{
  const struct ublk_io_desc *d = &a->desc[r->queue][r->tag];
  const uint32_t flags = d->op_flags;
  const size_t most = a->io_max;

  r->op = flags & UBLK_OP_MASK;
  r->nbd_flags = flags & UBLK_IO_FUA ? LIBNBD_CMD_FLAG_FUA : 0;
  r->offset = r->length = 0;
  if (r->op != UBLK_OP_FLUSH) { /* which has no place */
    r->offset = d->start_sector * 512;
    r->length = (uint64_t) d->sectors * 512;
  }
  r->skip = r->place = 0;
  r->lost = false;
  r->judged = 0;
  r->error = r->outstanding = r->result = 0;
  r->orphan = 0;
  r->doubtful = r->sync = false;
  if (r->offset > a->geometry.size ||
      (r->op != UBLK_OP_REPORT_ZONES &&
       r->length > a->geometry.size - r->offset)) {
    r->error = EIO;
    loop_commit (a, r);
    return;
  }
  /* The process before may have sent it. */
  if (a->touched && r->op != UBLK_OP_FLUSH && r->offset < a->geometry.size)
    r->doubtful = is_sequential_at (a, r->offset) &&
      !a->touched[zone_of (a, r->offset)];

  switch (r->op) {
  case UBLK_OP_WRITE_ZEROES:
    if (flags & UBLK_IO_NOUNMAP)
      r->nbd_flags |= LIBNBD_CMD_FLAG_NO_HOLE;
    break;
  case UBLK_OP_REPORT_ZONES:
    r->length = d->sectors < most / 64 ? d->sectors : most / 64;
    break;
  case UBLK_OP_WRITE:
  case UBLK_OP_ZONE_APPEND:
    if (r->length > most ||
        pread (a->ublkc, r->buf, r->length,
               ublk_data (r->queue, r->tag)) != (ssize_t) r->length) {
      r->error = EIO;
      loop_commit (a, r);
      return;
    }
    break;
  case UBLK_OP_READ:
    if (r->length > most) {
      r->error = EIO;
      loop_commit (a, r);
      return;
    }
    break;
  }
  if (r->op == UBLK_OP_ZONE_APPEND)
    append_begin (a, r);
  else
    io_issue (a, r);
}

/* The part of a discard that lies in conventional zones: in others NBD has
 * TRIM reset a zone, of which the kernel would not know. */
static void
cut_discard (const struct attach *a, struct request *r)
{
  const uint64_t end = a->geometry.conventional * a->geometry.zone_size;

  if (!a->zoned)
    return;
  if (r->offset >= end)
    r->length = 0;
  else if (r->length > end - r->offset)
    r->length = end - r->offset;
}

/* The connection that a turn's requests go over, so that they are one
 * message: that with the fewest in flight. */
static struct conn *
choose (struct attach *a)
{
  unsigned i;

  if (a->sending)
    return a->sending;
  a->sending = &a->conns[0];
  for (i = 1; i < a->link->n; i++)
    if (a->conns[i].in_flight < a->sending->in_flight)
      a->sending = &a->conns[i];
  return a->sending;
}

/* Whether the server offers it, which it may have done only before. */
static bool
is_offered (const struct link *l, uint16_t type, uint32_t flags)
{
  if ((flags & NBD_CMD_FLAG_FUA) && !l->can_fua)
    return false;
  switch (type) {
  case NBD_CMD_WRITE: return !l->readonly;
  case NBD_CMD_FLUSH: return l->can_flush;
  case NBD_CMD_TRIM: return l->can_trim;
  case NBD_CMD_WRITE_ZEROES: return l->can_zero;
  default: return true;
  }
}

static void
send_command (struct attach *a, struct request *r, uint16_t type)
{
  struct command *c = &r->command[0];

  r->state = REQUEST_SENT;
  r->outstanding = 1;
  r->error = 0;
  c->reply.type = type;
  c->flags = type == NBD_CMD_READ || type == NBD_CMD_FLUSH ? 0 : r->nbd_flags;
  c->offset = c->length = 0;
  c->buf = r->buf + r->skip;
  if (type != NBD_CMD_FLUSH) {
    c->offset = r->offset + r->skip;
    c->length = r->length - r->skip;
  }
  if (is_offered (a->link, type, c->flags))
    conn_send (choose (a), c);
  else
    io_end (a, r, EIO);
}

void
io_issue (struct attach *a, struct request *r)
{
  if (a->link == NULL) {
    r->state = REQUEST_WAITING;
    list_add (&a->waiting, r);
    return;
  }
  switch (r->op) {
  case UBLK_OP_FLUSH:
    if (a->lost) {
      a->lost = false;
      io_end (a, r, EIO);
      return;
    }
    if (!a->link->can_flush) {
      r->changes = a->changes;
      io_end (a, r, 0);
      return;
    }
    r->changes = a->changes;
    send_command (a, r, NBD_CMD_FLUSH);
    return;
  case UBLK_OP_DISCARD:
    cut_discard (a, r);
    if (r->length == 0) {
      io_end (a, r, 0);
      return;
    }
    send_command (a, r, NBD_CMD_TRIM);
    return;
  case UBLK_OP_READ:
    send_command (a, r, NBD_CMD_READ);
    return;
  case UBLK_OP_WRITE:
    send_command (a, r, NBD_CMD_WRITE);
    return;
  case UBLK_OP_WRITE_ZEROES:
    send_command (a, r, NBD_CMD_WRITE_ZEROES);
    return;
  case UBLK_OP_ZONE_APPEND:
    append_issue (a, r);
    return;
  case UBLK_OP_REPORT_ZONES:
    helper_post (a, r, JOB_REPORT);
    return;
  case UBLK_OP_ZONE_OPEN:
  case UBLK_OP_ZONE_CLOSE:
  case UBLK_OP_ZONE_FINISH:
  case UBLK_OP_ZONE_RESET:
  case UBLK_OP_ZONE_RESET_ALL:
    helper_post (a, r, JOB_MANAGE);
    return;
  default:
    io_end (a, r, ENOTSUP);
    return;
  }
}

/* ---- answers ---- */

/* Of a server that could not say that it was durable. */
void
io_end_judged (struct attach *a, struct request *r)
{
  if (!(r->nbd_flags & LIBNBD_CMD_FLAG_FUA) ||
      (a->link && !a->link->can_flush)) {
    io_end (a, r, 0);
    return;
  }
  if (a->link == NULL) {        /* it is judged anew */
    r->lost = true;
    r->state = REQUEST_WAITING;
    list_add (&a->waiting, r);
    return;
  }
  r->sync = true;
  send_command (a, r, NBD_CMD_FLUSH);
}

bool
io_look_into (struct attach *a, struct request *r)
{
  if (!io_is_sequential (a, r))
    return false;
  if (r->error == EOVERFLOW) {
    helper_post (a, r, JOB_EXPLAIN);
    return true;
  }
  if ((r->error == EINVAL || r->error == ENOSPC) && r->doubtful &&
      r->judged < JUDGED_MAX) {
    r->judged++;
    helper_post (a, r, JOB_JUDGE);
    return true;
  }
  return false;
}

/* Whether the errno is that of a connection, or of a server that ends. */
static bool
is_broken (int error)
{
  return error == ENOTCONN || error == ESHUTDOWN || error == ECONNRESET ||
    error == EPIPE || error == ETIMEDOUT;
}

static bool
link_ended (const struct attach *a)
{
  unsigned i;

  for (i = 0; i <= ATTACH_CONNECTIONS_MAX; i++)
    if (a->conns[i].nbd && conn_ended (&a->conns[i]))
      return true;
  return false;
}

void
io_work_off (struct attach *a)
{
  struct request *r;
  bool broken = a->link && link_ended (a);

  while ((r = list_take (&a->answered)) != NULL)
    if (is_broken (r->error)) {
      r->lost = true;
      r->state = REQUEST_WAITING;
      list_add (&a->waiting, r);
      broken = a->link != NULL;
    }
    else if (r->sync)
      io_end (a, r, r->error);
    else if (r->op == UBLK_OP_ZONE_APPEND)
      append_answered (a, r);
    else if (r->error == 0 && r->skip > 0)
      io_end_judged (a, r);
    else if (r->error == 0 || !io_look_into (a, r))
      io_end (a, r, r->error);
  if (broken)
    resume_break (a);
}

/* A write's: how much of it had been done. */
static void
write_judged (struct attach *a, struct request *r)
{
  if (r->error) {
    io_end (a, r, r->error);
    return;
  }
  r->skip = r->result;
  if (r->skip == r->length) {
    io_end_judged (a, r);
    return;
  }
  /* What the old connection still carries may come in between. */
  r->doubtful = true;
  io_issue (a, r);
}

void
io_job_done (struct attach *a, struct request *r)
{
  if (r->broken) {
    r->broken = false;
    r->error = 0;
    r->lost |= r->job == JOB_JUDGE || r->job == JOB_MANAGE;
    r->state = REQUEST_WAITING;
    list_add (&a->waiting, r);
    if (a->link)
      resume_break (a);
    return;
  }
  switch (r->job) {
  case JOB_REPORT:
  case JOB_MANAGE:
  case JOB_EXPLAIN:
    if (r->job == JOB_EXPLAIN && r->op == UBLK_OP_ZONE_APPEND)
      append_forget (a, zone_of (a, r->offset));
    io_end (a, r, r->error);
    break;
  case JOB_LEARN:
    if (r->error)
      io_end (a, r, r->error);
    else
      append_learned (a, r, &r->zone);
    break;
  case JOB_JUDGE:
    if (r->op == UBLK_OP_ZONE_APPEND)
      append_judged (a, r);
    else
      write_judged (a, r);
    break;
  case JOB_SEEK:
    orphan_sought (a, r);
    break;
  case JOB_NONE:
    break;
  }
}
