/* SPDX-License-Identifier: BSD-3-Clause */
/* From two reports to jobs.
 *
 * The order of jobs keeps the destination's limit of active zones: first
 * what makes an active zone full, then zones that are active only until
 * they are full, then those that stay active; those that are to be open
 * come last, for they leave less to be open for others.
 */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "copy.h"

/* Before what is there already is continued, so much of each zone is
 * compared. */
#define SAMPLE (UINT64_C (64) << 10)

enum order { CONVENTIONAL, FULL_ACTIVE, FULL, PARTIAL_ACTIVE, PARTIAL, OPEN };

static bool
is_open (uint8_t cond)
{
  return cond == ZNBD_COND_IMPLICIT_OPEN || cond == ZNBD_COND_EXPLICIT_OPEN;
}

static bool
is_active (uint8_t cond)
{
  return is_open (cond) || cond == ZNBD_COND_CLOSED;
}

/* Whether the copy of a zone is to be full: a read-only zone that has no
 * pointer is best kept so. */
bool
copy_is_full (const struct znbd_zone *z)
{
  return z->cond == ZNBD_COND_FULL ||
    (z->cond == ZNBD_COND_READ_ONLY && z->wp == z->start + z->length);
}

static bool
is_left_out (const struct copy *c, uint32_t zone)
{
  uint8_t d = c->dst.zones[zone].cond;

  return c->src.zones[zone].cond == ZNBD_COND_OFFLINE ||
    d == ZNBD_COND_OFFLINE || d == ZNBD_COND_READ_ONLY;
}

static struct copy_job *
add (struct copy *c, uint32_t zone, uint64_t from, uint64_t to)
{
  struct copy_job *job = &c->jobs[c->njobs++];

  *job = (struct copy_job) { .zone = zone, .from = from, .to = to };
  return job;
}

static int
new_jobs (struct copy *c)
{
  free (c->jobs);
  c->njobs = 0;
  c->jobs = malloc (c->src.g->zones * sizeof *c->jobs);
  if (c->jobs == NULL) {
    cli_error ("out of memory");
    return -1;
  }
  return 0;
}

/* ---- copying ---- */

/* What becomes of a zone that is neither full nor conventional. */
static enum copy_action
wanted_action (const struct copy *c, const struct znbd_zone *s,
               const struct znbd_zone *d, bool data)
{
  if (c->o.open && s->cond == ZNBD_COND_EXPLICIT_OPEN)
    return d->cond == ZNBD_COND_EXPLICIT_OPEN ? COPY_NOTHING : COPY_OPEN;
  if (c->o.open && s->cond == ZNBD_COND_IMPLICIT_OPEN &&
      d->cond != ZNBD_COND_EXPLICIT_OPEN)
    return COPY_NOTHING;
  return data || is_open (d->cond) ? COPY_CLOSE : COPY_NOTHING;
}

static int
plan_zone (struct copy *c, uint32_t i)
{
  const struct znbd_zone *s = &c->src.zones[i];
  const struct znbd_zone *d = &c->dst.zones[i];
  const uint64_t to = copy_data_end (s);
  enum copy_action action = COPY_NOTHING;
  uint64_t from = copy_data_end (d);
  bool reset = false;
  struct copy_job *job;

  if (is_left_out (c, i))
    return 0;
  if (s->type == ZNBD_ZONE_CONVENTIONAL) {
    add (c, i, s->start, to);   /* nothing tells how far an earlier one came */
    return 0;
  }
  if (d->cond == ZNBD_COND_FULL && copy_is_full (s))
    return 0;
  if (d->cond == ZNBD_COND_FULL || from > to) {
    cli_error ("zone %" PRIu32 " of %s is written beyond %s's: this is no "
               "part of a copy; --force resets all zones first", i,
               c->dst.operand, c->src.operand);
    return -1;
  }
  if (from % c->src.g->granularity != 0) {
    /* Written inside a block of the source by a server that died. */
    reset = true;
    from = d->start;
  }
  if (!copy_is_full (s))
    action = wanted_action (c, s, d, from < to);
  if (from == to && action == COPY_NOTHING && !copy_is_full (s))
    return 0;

  job = add (c, i, from, to);
  job->sequential = true;
  job->full = copy_is_full (s);
  job->action = action;
  job->reset = reset;
  job->needs_active = d->cond == ZNBD_COND_EMPTY || reset;
  job->order = action == COPY_OPEN ? OPEN
    : job->full ? job->needs_active ? FULL : FULL_ACTIVE
    : job->needs_active ? PARTIAL : PARTIAL_ACTIVE;
  return 0;
}

static int
compare (const void *a, const void *b)
{
  const struct copy_job *x = a, *y = b;

  if (x->order != y->order)
    return x->order < y->order ? -1 : 1;
  return x->zone < y->zone ? -1 : x->zone > y->zone;
}

bool
copy_frees_active (const struct copy *c, const struct copy_job *job)
{
  /* What is closed with nothing written is empty. */
  return job->full ||
    (job->action == COPY_CLOSE && job->from == job->to &&
     job->to == c->dst.zones[job->zone].start);
}

static int
plan_limits (struct copy *c)
{
  const struct znbd_geometry *g = c->dst.g;
  uint64_t active = 0, explicit = 0, later = 0, opened = 0;
  uint32_t i;

  for (i = 0; i < c->njobs; ++i)
    active -= c->jobs[i].reset;
  for (i = 0; i < g->zones; ++i) {
    active += is_active (c->dst.zones[i].cond);
    explicit += c->dst.zones[i].cond == ZNBD_COND_EXPLICIT_OPEN;
  }
  later = active;
  for (i = 0; i < c->njobs; ++i) {
    const struct copy_job *job = &c->jobs[i];

    if (!job->sequential)
      continue;
    later += job->needs_active;
    later -= copy_frees_active (c, job);
    opened += job->action == COPY_OPEN;
  }
  if (g->max_active && later > g->max_active) {
    cli_error ("%" PRIu64 " zones of %s would be active (neither empty nor "
               "full), at most %" PRIu32 " can be", later, c->dst.operand,
               g->max_active);
    return -1;
  }
  if (g->max_open && explicit + opened > g->max_open) {
    cli_error ("%" PRIu64 " zones of %s would be explicitly open, at most "
               "%" PRIu32 " can be", explicit + opened, c->dst.operand,
               g->max_open);
    return -1;
  }
  c->active_left = g->max_active ? g->max_active - active : UINT32_MAX;
  c->open_max = g->max_open ? g->max_open - explicit : UINT32_MAX;
  if (c->open_max == 0 && c->njobs > 0 && c->jobs[c->njobs - 1].sequential) {
    cli_error ("%s: all %" PRIu32 " zones that may be open are explicitly "
               "open: close one", c->dst.operand, g->max_open);
    return -1;
  }
  return 0;
}

/* What the copy cannot keep is told. */
static void
tell_read_only (const struct copy *c)
{
  uint32_t i, n = 0, first = 0;

  for (i = 0; i < c->src.g->zones; ++i)
    if (c->src.zones[i].cond == ZNBD_COND_READ_ONLY &&
        copy_is_full (&c->src.zones[i]) && !is_left_out (c, i) && n++ == 0)
      first = i;
  if (n > 0 && !c->o.quiet)
    cli_error ("%s has %" PRIu32 " read-only zone%s, the first is %" PRIu32
               ": in %s %s full", c->src.operand, n, n == 1 ? "" : "s",
               first, c->dst.operand, n == 1 ? "it is" : "they are");
}

void
copy_pretend_reset (struct copy *c)
{
  uint32_t i;

  for (i = 0; i < c->dst.g->zones; ++i) {
    struct znbd_zone *z = &c->dst.zones[i];

    if (z->type != ZNBD_ZONE_CONVENTIONAL && z->cond != ZNBD_COND_READ_ONLY &&
        z->cond != ZNBD_COND_OFFLINE) {
      z->cond = ZNBD_COND_EMPTY;
      z->wp = z->start;
    }
  }
}

int
copy_plan (struct copy *c)
{
  uint32_t i;

  if (new_jobs (c) == -1)
    return -1;
  for (i = 0; i < c->src.g->zones; ++i)
    if (plan_zone (c, i) == -1)
      return -1;
  qsort (c->jobs, c->njobs, sizeof *c->jobs, compare);
  if (plan_limits (c) == -1)
    return -1;
  tell_read_only (c);
  return 0;
}

/* ---- comparing ---- */

int
copy_plan_compare (struct copy *c, bool everything)
{
  const uint64_t unit = c->common;
  uint32_t i;

  if (new_jobs (c) == -1)
    return -1;
  for (i = 0; i < c->src.g->zones; ++i) {
    const struct znbd_zone *s = &c->src.zones[i], *d = &c->dst.zones[i];
    uint64_t from = s->start, to = copy_data_end (s);

    if (is_left_out (c, i))
      continue;
    if (!everything) {
      if (s->type == ZNBD_ZONE_CONVENTIONAL)
        continue;
      if (to > copy_data_end (d))
        to = copy_data_end (d);
      if (to > from + SAMPLE)
        from = (to - SAMPLE) - (to - SAMPLE) % unit;
    }
    if (from < to)
      add (c, i, from, to);
  }
  c->open_max = c->active_left = UINT32_MAX;
  return 0;
}

int
copy_same_zones (const struct copy *c)
{
  uint32_t i;

  for (i = 0; i < c->src.g->zones; ++i) {
    const struct znbd_zone *s = &c->src.zones[i], *d = &c->dst.zones[i];

    if (is_left_out (c, i) || s->type == ZNBD_ZONE_CONVENTIONAL ||
        (copy_is_full (s) ? d->cond == ZNBD_COND_FULL
         : d->cond != ZNBD_COND_FULL &&
           copy_data_end (d) == copy_data_end (s)))
      continue;
    cli_error ("the disks differ: zone %" PRIu32 " is %s up to %" PRIu64
               " in %s, %s up to %" PRIu64 " in %s", i,
               znbd_cond_name (s->cond), copy_data_end (s), c->src.operand,
               znbd_cond_name (d->cond), copy_data_end (d), c->dst.operand);
    return -1;
  }
  return 0;
}
