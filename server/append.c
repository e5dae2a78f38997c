/* SPDX-License-Identifier: BSD-3-Clause */
/* See append.h.  Each connection that appends has a table of its appends,
 * by tag: the offset that the write was sent with.  An append enters with
 * its write's header and leaves when it is both done and asked for, or when
 * ASKED_LATER others were done after it and nobody asked.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "append.h"
#include "reply.h"
#include "request.h"
#include "status.h"

#define BUCKETS 1024

/* Results kept of appends that nobody asked for yet. */
#define ASKED_LATER 1024

struct append {
  struct append *next;          /* of the bucket, or free */
  uint64_t tag;
  bool done;
  int error;
  uint64_t place;               /* inside the zone */
  struct request *waiting;      /* statuses to answer when it is done */
  struct append *older, *newer; /* those done and not asked for */
  char *reason;                 /* of the error; NULL where there was no
                                 * memory for it */
};

struct appends {
  struct append *bucket[BUCKETS];
  struct append *free;
  struct append *oldest, *newest;
  unsigned nkept;
};

bool
append_wanted (const struct request *req)
{
  const struct conn *c = req->conn;
  const struct znbd_geometry *g = zdisk_geometry (c->export->disk);
  struct znbd_zone zone;

  if (c->contexts != CONTEXT_BIT (CONTEXT_APPEND) ||
      req->offset >= c->export->size)
    return false;
  return zdisk_report (c->export->disk, req->offset / g->zone_size, 1, &zone)
    == 1 && zone.type != ZNBD_ZONE_CONVENTIONAL;
}

static struct append **
find (struct appends *a, uint64_t tag)
{
  struct append **link =
    &a->bucket[tag * UINT64_C (0x9e3779b97f4a7c15) >> 54];

  while (*link && (*link)->tag != tag)
    link = &(*link)->next;
  return link;
}

/* Takes one out of the list of those not asked for. */
static void
unkeep (struct appends *a, struct append *e)
{
  if (e->older)
    e->older->newer = e->newer;
  else
    a->oldest = e->newer;
  if (e->newer)
    e->newer->older = e->older;
  else
    a->newest = e->older;
  a->nkept--;
}

/* Takes one out of the table. */
static void
forget (struct appends *a, struct append **link)
{
  struct append *e = *link;

  *link = e->next;
  free (e->reason);
  e->reason = NULL;
  e->next = a->free;
  a->free = e;
}

static void
keep (struct appends *a, struct append *e)
{
  struct append *old;

  e->older = a->newest;
  e->newer = NULL;
  if (a->newest)
    a->newest->newer = e;
  else
    a->oldest = e;
  a->newest = e;
  if (++a->nkept > ASKED_LATER) {
    old = a->oldest;
    unkeep (a, old);
    forget (a, find (a, old->tag));
  }
}

static void
answer (struct request *req, const struct append *e)
{
  const struct znbd_geometry *g = zdisk_geometry (req->conn->export->disk);

  if (e->error) {
    /* The entry does not live as long as the reply. */
    snprintf (req->z.reason, sizeof req->z.reason, "%s",
              e->reason ? e->reason : strerror (e->error));
    reply_error (req, e->error, req->z.reason);
  }
  else
    status_reply_one (req, g->granularity, e->place / 512 + 1);
}

static void
append_complete (struct request *req)
{
  struct appends *a = req->conn->appends;
  struct append *e = req->u.append;
  uint64_t zone_size = zdisk_geometry (req->conn->export->disk)->zone_size;
  struct request *waiting = e->waiting, *next;

  e->done = true;
  e->error = req->z.error;
  e->reason = e->error ? strdup (req->z.reason) : NULL;
  e->place = req->z.result % zone_size;
  request_complete (req);
  if (waiting == NULL)
    keep (a, e);
  else {
    for (; waiting; waiting = next) {
      next = waiting->next;
      answer (waiting, e);
    }
    forget (a, find (a, e->tag));
  }
}

void
append_start (struct request *req)
{
  struct conn *c = req->conn;
  struct append **link, *e;

  if (c->appends == NULL)
    c->appends = calloc (1, sizeof *c->appends);
  if (c->appends == NULL)
    goto no_memory;
  link = find (c->appends, req->offset);
  if (*link && !(*link)->done) {
    reply_error (req, EINVAL, "the tag is that of an append not yet "
                 "answered");
    return;
  }
  e = *link;
  if (e)
    unkeep (c->appends, e);     /* a new append takes its tag over */
  else {
    e = c->appends->free;
    if (e)
      c->appends->free = e->next;
    else if ((e = malloc (sizeof *e)) == NULL)
      goto no_memory;
    e->next = NULL;
    e->reason = NULL;
    *link = e;
    e->tag = req->offset;
  }
  free (e->reason);
  e->reason = NULL;
  e->done = false;
  e->waiting = NULL;
  req->u.append = e;
  request_submit (req, ZDISK_APPEND, 0, req->offset, req->length,
                  append_complete);
  return;

 no_memory:
  reply_error (req, ENOMEM, "no memory for another append");
}

void
append_status (struct request *req)
{
  struct appends *a = req->conn->appends;
  struct append **link, *e = NULL;

  if (a) {
    link = find (a, req->offset);
    e = *link;
  }
  if (e == NULL)
    status_reply_one (req, zdisk_geometry (req->conn->export->disk)
                      ->granularity, 0);
  else if (!e->done) {
    req->next = e->waiting;
    e->waiting = req;
  }
  else {
    answer (req, e);
    unkeep (a, e);
    forget (a, link);
  }
}

void
appends_free (struct appends *a)
{
  struct append *e;
  unsigned i;

  if (a == NULL)
    return;
  for (i = 0; i < BUCKETS; i++)
    while ((e = a->bucket[i]) != NULL) {
      a->bucket[i] = e->next;
      free (e->reason);
      free (e);
    }
  while ((e = a->free) != NULL) {
    a->free = e->next;
    free (e);
  }
  free (a);
}
