/* SPDX-License-Identifier: BSD-3-Clause */
/* The helper thread: what waits for the server's answer, one thing at a
 * time, so that the loop need not.  Connecting; reports and zone management,
 * by libznbd, over connections that it makes when they are needed and ends
 * when nothing asked for them for a while; and what became of a request whose
 * connection was lost.
 */

#include <config.h>

#include <errno.h>
#include <linux/blkzoned.h>
#include <string.h>
#include <time.h>

#include "attach.h"
#include "judge.h"

/* ms between attempts to connect, doubled from the one to the other.  The
 * first one comes late enough for a server that lives to see that the old
 * connection ended, and to end what it had of it. */
#define BACK_OFF_MIN 100
#define BACK_OFF_MAX 2000

/* Seconds without a job after which its connections end. */
#define IDLE 10

#define COMPARE_BYTES (256u << 10)

void
helper_post (struct attach *a, struct request *r, enum job_kind job)
{
  r->job = job;
  r->state = REQUEST_JOB;
  pthread_mutex_lock (&a->lock);
  list_add (&a->jobs, r);
  pthread_cond_signal (&a->posted);
  pthread_mutex_unlock (&a->lock);
}

void
helper_connect (struct attach *a)
{
  pthread_mutex_lock (&a->lock);
  a->connect = true;
  pthread_cond_signal (&a->posted);
  pthread_mutex_unlock (&a->lock);
}

/* ---- jobs; each returns 0, or -1 with r->error ---- */

static int
job_error (struct request *r)
{
  r->error = znbd_get_errno () ? znbd_get_errno () : EIO;
  return -1;
}

static int
report (struct attach *a, struct request *r)
{
  const uint32_t first = zone_of (a, r->offset);
  struct znbd_zone zone, *zones = (struct znbd_zone *) r->buf;
  struct blk_zone *to = (struct blk_zone *) r->buf;
  uint32_t n = r->length;
  int64_t got, i;

  _Static_assert (sizeof zone == sizeof *to, "one takes the other's place");
  if (n > a->geometry.zones - first)
    n = a->geometry.zones - first;
  got = znbd_report (a->disk, first, n, zones);
  if (got == -1)
    return job_error (r);
  for (i = 0; i < got; i++) {
    zone = zones[i];
    memset (&to[i], 0, sizeof to[i]);
    to[i].start = zone.start / 512;
    to[i].len = zone.length / 512;
    to[i].wp = zone.wp / 512;
    to[i].capacity = zone.capacity / 512;
    to[i].type = zone.type;
    to[i].cond = zone.cond;
    to[i].reset = zone.reset;
    to[i].non_seq = zone.non_seq;
  }
  r->result = got * sizeof *to;
  return 0;
}

static enum znbd_zone_op
zone_op (const struct request *r)
{
  switch (r->op) {
  case UBLK_OP_ZONE_OPEN: return ZNBD_ZONE_OPEN;
  case UBLK_OP_ZONE_CLOSE: return ZNBD_ZONE_CLOSE;
  case UBLK_OP_ZONE_FINISH: return ZNBD_ZONE_FINISH;
  default: return ZNBD_ZONE_RESET;
  }
}

static int
manage (struct attach *a, struct request *r)
{
  const uint32_t number = zone_of (a, r->offset);
  struct znbd_zone zone;
  char text[8];
  int error;

  if (r->op == UBLK_OP_ZONE_RESET_ALL)
    return znbd_manage_all (a->disk, ZNBD_ZONE_RESET, 0) == 0 ? 0
      : job_error (r);
  if (znbd_manage (a->disk, zone_op (r), number, 1, 0, NULL) == 0)
    return 0;
  error = znbd_get_errno ();
  /* What is done a second time may be refused for that. */
  if (r->doubtful && error == EINVAL &&
      znbd_report (a->disk, number, 1, &zone) == 1 &&
      judge_reached (&zone, zone_op (r)))
    return 0;
  r->error = error ? error : EIO;
  if (error == EOVERFLOW &&
      znbd_explain (a->disk, zone_op (r), number, error, text,
                    sizeof text) == ZNBD_REFUSAL_OPEN_LIMIT)
    r->error = ETOOMANYREFS;
  return -1;
}

/* Which limit it was. */
static int
explain (struct attach *a, struct request *r)
{
  char text[8];
  int refusal;

  if (r->op == UBLK_OP_ZONE_APPEND)
    refusal = znbd_explain_append (a->disk, zone_of (a, r->offset),
                                   r->length, EOVERFLOW, text, sizeof text);
  else
    refusal = znbd_explain_write (a->disk, r->offset, r->length, EOVERFLOW,
                                  text, sizeof text);
  r->error = refusal == ZNBD_REFUSAL_OPEN_LIMIT ? ETOOMANYREFS : EOVERFLOW;
  return -1;
}

/* Whether length bytes of r's data, from its offset from on, are on the disk
 * at place. */
static int
compare (struct attach *a, const struct request *r, uint64_t from,
         uint64_t length, uint64_t place, bool *same)
{
  static uint8_t buf[COMPARE_BYTES];
  struct nbd_handle *nbd = znbd_get_nbd_handle (a->disk);
  uint64_t i, n;

  *same = true;
  if (nbd == NULL)
    return -1;
  for (; length > 0 && *same; from += n, length -= n, place += n) {
    n = length < sizeof buf ? length : sizeof buf;
    if (nbd_pread (nbd, buf, n, place, 0) == -1)
      return -1;
    if (r->op != UBLK_OP_WRITE_ZEROES)
      *same = memcmp (buf, r->buf + from, n) == 0;
    else
      for (i = 0; i < n && *same; i++)
        *same = buf[i] == 0;
  }
  return 0;
}

/* An append: result 1, it was done at r->expected; 0, it was not. */
static int
judge_append (struct attach *a, struct request *r,
              const struct znbd_zone *zone)
{
  uint64_t written;
  bool same;

  if (judge_write (zone, r->expected, r->length, &written) == -1) {
    r->error = EIO;
    return -1;
  }
  r->result = 0;
  /* Less than it moved: others did that. */
  if (written < r->length)
    return 0;
  if (compare (a, r, 0, r->length, r->expected, &same) == -1)
    return job_error (r);
  if (zone->cond != ZNBD_COND_FULL &&
      zone->wp != r->expected + r->length) {
    /* Behind what others wrote it could be as well. */
    r->error = EIO;
    return -1;
  }
  r->result = same;
  return 0;
}

/* Of an append, whether its data is in r->sought: result 1, at r->place. */
static int
seek (struct attach *a, struct request *r)
{
  static uint8_t buf[COMPARE_BYTES];
  struct nbd_handle *nbd = znbd_get_nbd_handle (a->disk);
  const uint32_t block = a->geometry.granularity;
  const uint64_t last = r->sought.to - r->length;
  uint64_t place, n, i;
  bool same = false;

  if (nbd == NULL)
    return job_error (r);
  for (place = r->sought.from; place <= last; place += n) {
    n = last - place + block < sizeof buf ? last - place + block : sizeof buf;
    if (nbd_pread (nbd, buf, n, place, 0) == -1)
      return job_error (r);
    for (i = 0; i < n; i += block) {
      if (memcmp (buf + i, r->buf, block) != 0)
        continue;
      if (compare (a, r, 0, r->length, place + i, &same) == -1)
        return job_error (r);
      if (same) {
        r->result = 1;
        r->place = place + i;
        return 0;
      }
    }
  }
  return 0;
}

/* A write: result, bytes of it that were done. */
static int
judge (struct attach *a, struct request *r)
{
  struct znbd_zone zone;
  uint64_t written;
  bool same = true;

  if (znbd_report (a->disk, zone_of (a, r->offset), 1, &zone) != 1)
    return job_error (r);
  if (r->op == UBLK_OP_ZONE_APPEND)
    return judge_append (a, r, &zone);
  if (judge_write (&zone, r->offset, r->length, &written) == -1) {
    r->error = EIO;
    return -1;
  }
  /* Another writer may have been there. */
  if (written > 0 &&
      compare (a, r, 0, written, r->offset, &same) == -1)
    return job_error (r);
  if (!same) {
    r->error = EIO;
    return -1;
  }
  r->result = written;
  return 0;
}

static int
learn (struct attach *a, struct request *r)
{
  if (znbd_report (a->disk, zone_of (a, r->offset), 1, &r->zone) != 1)
    return job_error (r);
  return 0;
}

static int
run_once (struct attach *a, struct request *r)
{
  switch (r->job) {
  case JOB_REPORT: return report (a, r);
  case JOB_MANAGE: return manage (a, r);
  case JOB_LEARN: return learn (a, r);
  case JOB_JUDGE: return judge (a, r);
  case JOB_SEEK: return seek (a, r);
  case JOB_EXPLAIN: return explain (a, r);
  case JOB_NONE: break;
  }
  r->error = EIO;
  return -1;
}

/* ---- connections ---- */

static void
drop_disk (struct attach *a)
{
  znbd_close (a->disk);
  a->disk = NULL;
}

/* -1: it cannot be had now, or is not the same. */
static int
need_disk (struct attach *a)
{
  struct znbd_geometry g;

  if (a->disk)
    return 0;
  a->disk = znbd_connect_uri (a->options.uri, ZNBD_ALLOW_LOCAL_FILES);
  if (a->disk == NULL)
    return -1;
  (void) znbd_get_geometry (a->disk, &g);
  if (memcmp (g.uuid, a->geometry.uuid, sizeof g.uuid) == 0)
    return 0;
  drop_disk (a);
  return -1;
}

/* A connection that was made long ago may have ended meanwhile, so another
 * one is tried. */
static void
run (struct attach *a, struct request *r)
{
  unsigned i;

  r->broken = false;
  for (i = 0; i < 2; i++) {
    r->error = 0;
    r->result = 0;
    if (need_disk (a) == -1)
      break;
    if (run_once (a, r) == 0)
      return;
    if (!znbd_is_broken (a->disk))
      return;
    r->doubtful = true;
    drop_disk (a);
  }
  r->broken = true;
}

/* One attempt.  False: not now, with a text. */
static bool
connect_again (struct attach *a, struct zone_error *err)
{
  struct link *l = link_open (&a->options, &a->geometry, a->zoned, err);

  if (l == NULL)
    return false;
  if (a->disk)
    drop_disk (a);
  a->disk = l->disk;
  l->disk = NULL;
  pthread_mutex_lock (&a->lock);
  a->connected = l;
  a->connect = false;
  pthread_mutex_unlock (&a->lock);
  loop_wake (a);
  return true;
}

/* Waits for something to do, at most ms (0: without end).  Under lock. */
static void
wait_for (struct attach *a, unsigned ms)
{
  struct timespec until;

  if (ms == 0) {
    pthread_cond_wait (&a->posted, &a->lock);
    return;
  }
  clock_gettime (CLOCK_REALTIME, &until);
  until.tv_nsec += ms % 1000 * 1000000L;
  until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000L;
  until.tv_nsec %= 1000000000L;
  (void) pthread_cond_timedwait (&a->posted, &a->lock, &until);
}

static void
give_back (struct attach *a, struct request *r)
{
  pthread_mutex_lock (&a->lock);
  list_add (&a->done, r);
  pthread_mutex_unlock (&a->lock);
  loop_wake (a);
}

void *
helper_thread (void *arg)
{
  struct attach *a = arg;
  unsigned back_off = BACK_OFF_MIN;
  uint64_t next = 0, busy = attach_now (), now;
  struct zone_error err, told = { 0 };
  struct request *r;
  bool connect;

  pthread_mutex_lock (&a->lock);
  while (!a->stop) {
    r = list_take (&a->jobs);
    connect = a->connect;
    pthread_mutex_unlock (&a->lock);
    now = attach_now ();
    if (r) {
      if (connect) {
        r->broken = true;
        r->error = EIO;
      }
      else
        run (a, r);
      give_back (a, r);
      busy = attach_now ();
    }
    else if (connect && next == 0)
      next = now + back_off;
    else if (connect && now >= next) {
      if (connect_again (a, &err)) {
        back_off = BACK_OFF_MIN;
        next = 0;
        told.text[0] = '\0';
        busy = attach_now ();
      }
      else {
        if (strcmp (err.text, told.text) != 0)
          attach_log (a, "%s: %s", a->options.uri, err.text);
        told = err;
        next = attach_now () + back_off;
        back_off = back_off * 2 < BACK_OFF_MAX ? back_off * 2 : BACK_OFF_MAX;
      }
    }
    else if (!connect && a->disk && now >= busy + IDLE * 1000)
      drop_disk (a);
    pthread_mutex_lock (&a->lock);
    now = attach_now ();
    if (a->stop || a->jobs.first || (a->connect && next == 0))
      continue;
    if (a->connect)
      wait_for (a, next > now ? next - now : 1);
    else
      wait_for (a, a->disk ? IDLE * 1000 : 0);
  }
  pthread_mutex_unlock (&a->lock);
  if (a->disk)
    drop_disk (a);
  return NULL;
}
