/* SPDX-License-Identifier: BSD-3-Clause */
/* libznbd by contexts, against znbd-server: appends and reports in flight
 * in any number, event loops, threads, connections given by the caller, a
 * server that goes away.  For the sanitizers too.
 */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libnbd.h>

#include "libznbd.h"
#include "serve.h"

#define B 4096
#define KiB UINT64_C (1024)
#define MiB (UINT64_C (1) << 20)

#define DISK "memory:32M,zone-size=1M,zone-capacity=768k,conventional=2"

static struct znbd_disk *
connect_to (const struct server *s)
{
  struct znbd_disk *disk = znbd_connect_uri (s->uri, 0);

  if (disk == NULL)
    fail_msg ("%s", znbd_get_error ());
  return disk;
}

/* One append: its block has its number all over. */
struct block {
  uint32_t data[B / 4];
  int64_t where;                /* -2: not told */
  int error;
  int freed;
};

static struct block *
make_blocks (unsigned n)
{
  struct block *b = calloc (n, sizeof *b);
  unsigned i, j;

  assert_non_null (b);
  for (i = 0; i < n; ++i) {
    b[i].where = -2;
    for (j = 0; j < B / 4; ++j)
      b[i].data[j] = i;
  }
  return b;
}

static void
told (void *opaque, int64_t where)
{
  struct block *b = opaque;

  assert_true (b->where == -2);
  assert_int_equal (b->freed, 0);
  b->where = where;
  b->error = where == -1 ? znbd_get_errno () : 0;
}

static void
freed (void *opaque)
{
  ((struct block *) opaque)->freed++;
}

static int64_t
append (struct znbd_disk *disk, uint32_t zone, struct block *b)
{
  return znbd_aio_append (disk, zone, b->data, B, 0,
                          (znbd_completion) { told, b, freed });
}

static void
drain (struct znbd_disk *disk)
{
  while (znbd_aio_in_flight (disk) > 0)
    if (znbd_aio_poll (disk, -1) == -1)
      fail_msg ("%s", znbd_get_error ());
  while (znbd_aio_poll (disk, 0) == 1)
    ;
}

/* Each was told a place of its own in its zone, and is there. */
static void
check_blocks (struct znbd_disk *disk, struct block *b, unsigned n)
{
  struct nbd_handle *nbd = znbd_get_nbd_handle (disk);
  static bool taken[32 * MiB / B];
  uint32_t data[B / 4];
  unsigned i;

  assert_non_null (nbd);
  memset (taken, 0, sizeof taken);
  for (i = 0; i < n; ++i) {
    if (b[i].where < 0)
      fail_msg ("block %u: %lld, errno %d", i, (long long) b[i].where,
                b[i].error);
    assert_int_equal (b[i].freed, 1);
    assert_false (taken[b[i].where / B]);
    taken[b[i].where / B] = true;
    assert_int_equal (nbd_pread (nbd, data, B, b[i].where, 0), 0);
    assert_memory_equal (data, b[i].data, B);
  }
}

static void
many (void **state)
{
  enum { N = 1500, ZONES = 10, REPORTS = 100 };
  struct block *b = make_blocks (N);
  static struct znbd_zone zones[REPORTS][32];
  int64_t report[REPORTS], n;
  struct server s;
  struct znbd_disk *disk;
  unsigned i;

  (void) state;
  START_SERVER (&s, "znbd-server", DISK);
  disk = connect_to (&s);
  for (i = 0; i < N; ++i) {
    assert_true (append (disk, 4 + i % ZONES, &b[i]) > 0);
    if (i % 15 == 0) {
      report[i / 15] = znbd_aio_report (disk, 0, 99, zones[i / 15],
                                        ZNBD_NULL_COMPLETION);
      assert_true (report[i / 15] > 0);
    }
  }
  drain (disk);
  check_blocks (disk, b, N);
  for (i = 0; i < REPORTS; ++i) {
    assert_int_equal (znbd_aio_command_completed (disk, report[i], &n), 1);
    assert_int_equal (n, 32);
    assert_int_equal (zones[i][3].cond, ZNBD_COND_EMPTY);
    assert_int_equal (zones[i][0].cond, ZNBD_COND_NOT_WP);
    assert_int_equal (znbd_aio_command_completed (disk, report[i], &n), -1);
    assert_int_equal (znbd_get_errno (), EINVAL);
  }
  assert_int_equal (znbd_report (disk, 4, 1, zones[0]), 1);
  assert_true (zones[0][0].wp == 4 * MiB + N / ZONES * B);

  /* a report of nothing, and one of a zone, both with a callback */
  b[0].where = b[1].where = -2;
  b[0].freed = b[1].freed = 0;
  assert_true (znbd_aio_report (disk, 99, 1, zones[0],
                                (znbd_completion) { told, &b[0], freed })
               > 0);
  assert_true (znbd_aio_report (disk, 31, 7, zones[0],
                                (znbd_completion) { told, &b[1], freed })
               > 0);
  drain (disk);
  assert_true (b[0].where == 0 && b[1].where == 1);
  znbd_close (disk);
  stop (&s);
  free (b);
}

/* What is done while another call waits is told by the file descriptor. */
static void
call_between (void **state)
{
  enum { N = 7 };
  struct block *b = make_blocks (N);
  struct znbd_zone zone;
  struct server s;
  struct znbd_disk *disk;
  struct pollfd fd = { .events = POLLIN };
  unsigned i;

  (void) state;
  START_SERVER (&s, "znbd-server", DISK);
  disk = connect_to (&s);
  for (i = 0; i < N; ++i)
    assert_true (append (disk, 4, &b[i]) > 0);
  do
    assert_int_equal (znbd_report (disk, 4, 1, &zone), 1);
  while (znbd_aio_in_flight (disk) > 0);
  assert_int_equal (znbd_report (disk, 4, 1, &zone), 1);
  fd.fd = znbd_aio_get_fd (disk);
  assert_int_equal (poll (&fd, 1, 0), 1);
  assert_int_equal (znbd_aio_poll (disk, 0), 1);
  check_blocks (disk, b, N);
  znbd_close (disk);
  stop (&s);
  free (b);
}

/* More in flight to one zone than it has tags, until it is full. */
static void
to_the_end (void **state)
{
  enum { N = 300, FIT = 192 };
  struct block *b = make_blocks (N);
  struct server s;
  struct znbd_disk *disk;
  char text[300];
  unsigned i, good = 0;

  (void) state;
  START_SERVER (&s, "znbd-server", DISK);
  disk = connect_to (&s);
  for (i = 0; i < N; ++i)
    assert_true (append (disk, 7, &b[i]) > 0);
  drain (disk);
  for (i = 0; i < N; ++i)
    if (b[i].where == -1)
      assert_int_equal (b[i].error, ENOSPC);
    else
      good++;
  assert_int_equal (good, FIT);
  assert_int_equal (znbd_explain_append (disk, 7, B, ENOSPC, text,
                                         sizeof text), ZNBD_REFUSAL_FULL);

  /* what is refused before anything is sent */
  assert_int_equal (znbd_append (disk, 7, b, B, 0, NULL), -1);
  assert_int_equal (znbd_get_errno (), ENOSPC);
  assert_non_null (strstr (znbd_get_error (), "zone 7 is full"));
  for (i = 0; i < 5; ++i) {
    static const struct { uint32_t zone; size_t length; unsigned flags; }
    bad[] = { { 1, B, 0 }, { 32, B, 0 }, { 8, 100, 0 }, { 8, 0, 0 },
              { 8, B, 2 } };

    b[i].freed = 0;
    assert_int_equal (znbd_append (disk, bad[i].zone, b, bad[i].length,
                                   bad[i].flags, NULL), -1);
    assert_int_equal (znbd_get_errno (), EINVAL);
    assert_true (znbd_aio_append (disk, bad[i].zone, b, bad[i].length,
                                  bad[i].flags,
                                  (znbd_completion) { told, &b[i], freed })
                 == -1);
    assert_int_equal (b[i].freed, 1);
  }
  znbd_close (disk);
  stop (&s);
  free (b);
}

/* In an event loop of the program's own, which knows one descriptor; a
 * callback starts the next command. */
struct chain {
  struct znbd_disk *disk;
  struct block *b;
  unsigned next, n, running;
};

static void
link_told (void *opaque, int64_t where)
{
  struct chain *c = opaque;

  assert_true (where >= 0);
  if (c->next < c->n) {
    struct block *b = &c->b[c->next++];

    assert_true (znbd_aio_append (c->disk, 9, b->data, B, 0,
                                  (znbd_completion) { link_told, c, NULL })
                 > 0);
    /* synchronous calls are allowed here */
    assert_int_equal (znbd_report (c->disk, 9, 1,
                                   &(struct znbd_zone) { 0 }), 1);
  }
  else
    c->running--;
}

static void
event_loop (void **state)
{
  struct server s;
  struct chain c = { .n = 100, .running = 4 };
  struct pollfd fd = { .events = POLLIN };
  struct znbd_zone zone;
  unsigned i;

  (void) state;
  START_SERVER (&s, "znbd-server", DISK);
  c.disk = connect_to (&s);
  c.b = make_blocks (c.n);
  fd.fd = znbd_aio_get_fd (c.disk);
  for (i = 0; i < 4; ++i) {
    struct block *b = &c.b[c.next++];

    assert_true (znbd_aio_append (c.disk, 9, b->data, B, 0,
                                  (znbd_completion) { link_told, &c, NULL })
                 > 0);
  }
  while (c.running > 0) {
    assert_int_equal (poll (&fd, 1, 20000), 1);
    while (znbd_aio_poll (c.disk, 0) == 1)
      ;
  }
  assert_int_equal (znbd_report (c.disk, 9, 1, &zone), 1);
  assert_true (zone.wp == zone.start + 100 * B);

  /* Nothing is in flight: nothing to be had, and in time. */
  assert_int_equal (znbd_aio_in_flight (c.disk), 0);
  while (znbd_aio_poll (c.disk, 0) == 1)
    ;
  assert_int_equal (znbd_aio_poll (c.disk, 20), 0);
  assert_int_equal (poll (&fd, 1, 0), 0);
  znbd_close (c.disk);
  stop (&s);
  free (c.b);
}

/* Threads that append, report, manage, read by the handle and poll. */
struct shared {
  struct znbd_disk *disk;
  struct block *b;
  atomic_uint next, told;
  atomic_bool end;
};

#define SHARED_N 1200u

static void
shared_told (void *opaque, int64_t where)
{
  (void) opaque;
  (void) where;
}

static void *
appender (void *opaque)
{
  struct shared *sh = opaque;
  unsigned i;

  while ((i = sh->next++) < SHARED_N)
    assert_true (append (sh->disk, 3 + i % 8, &sh->b[i]) > 0);
  return NULL;
}

static void *
poller (void *opaque)
{
  struct shared *sh = opaque;

  while (!sh->end)
    assert_int_not_equal (znbd_aio_poll (sh->disk, 5), -1);
  return NULL;
}

static void *
others (void *opaque)
{
  struct shared *sh = opaque;
  struct nbd_handle *nbd = znbd_get_nbd_handle (sh->disk);
  struct znbd_zone zones[32];
  char buf[B];
  uint64_t where;
  unsigned i;

  for (i = 0; i < 60; ++i) {
    assert_int_equal (znbd_report (sh->disk, 0, 32, zones), 32);
    assert_int_equal (nbd_pread (nbd, buf, B, i * B, 0), 0);
    assert_int_equal (znbd_append (sh->disk, 20, buf, B, 0, &where), 0);
    assert_int_equal (znbd_manage (sh->disk, ZNBD_ZONE_RESET, 25, 3, 0,
                                   NULL), 0);
    assert_true (znbd_aio_report (sh->disk, 1, 3, zones,
                                  (znbd_completion) { shared_told, sh,
                                                      NULL }) > 0);
    assert_int_equal (nbd_pwrite (nbd, buf, B, i * B, 0), 0);
    while (znbd_aio_in_flight (sh->disk) > 400)
      znbd_aio_poll (sh->disk, 1);
  }
  /* zones[] is to live until the reports are done */
  while (znbd_aio_in_flight (sh->disk) > 0)
    znbd_aio_poll (sh->disk, 5);
  return NULL;
}

static void
threads (void **state)
{
  struct server s;
  struct shared sh = { 0 };
  pthread_t t[6];
  unsigned i;

  (void) state;
  START_SERVER (&s, "znbd-server", DISK);
  sh.disk = connect_to (&s);
  sh.b = make_blocks (SHARED_N);
  for (i = 0; i < 6; ++i)
    assert_int_equal (pthread_create (&t[i], NULL, i < 2 ? appender
                                      : i < 4 ? poller : others, &sh), 0);
  for (i = 0; i < 6; ++i)
    if (i < 2 || i >= 4)
      pthread_join (t[i], NULL);
  drain (sh.disk);
  sh.end = true;
  pthread_join (t[2], NULL);
  pthread_join (t[3], NULL);
  drain (sh.disk);
  check_blocks (sh.disk, sh.b, SHARED_N);
  znbd_close (sh.disk);
  stop (&s);
  free (sh.b);
}

/* A disk that is closed, and a server that is killed, meanwhile. */
static void
ends (void **state)
{
  enum { N = 200 };
  struct block *b = make_blocks (N);
  struct server s;
  struct znbd_disk *disk;
  struct znbd_zone zone;
  int status;
  unsigned i;

  (void) state;
  START_SERVER (&s, "znbd-server", DISK);
  disk = connect_to (&s);
  for (i = 0; i < N; ++i)
    assert_true (append (disk, 3 + i % 4, &b[i]) > 0);
  assert_true (znbd_aio_report (disk, 3, 1, &zone, ZNBD_NULL_COMPLETION)
               > 0);
  znbd_close (disk);
  for (i = 0; i < N; ++i) {
    assert_int_equal (b[i].freed, 1);
    assert_true (b[i].where == -2);
    b[i].freed = 0;
  }

  disk = connect_to (&s);
  assert_int_equal (znbd_append (disk, 3, b, B, 0, NULL), 0);
  kill (s.pid, SIGSTOP);
  assert_int_equal (waitpid (s.pid, &status, WUNTRACED), s.pid);
  for (i = 0; i < N; ++i)
    assert_true (append (disk, 3, &b[i]) > 0);
  kill (s.pid, SIGKILL);
  waitpid (s.pid, &status, 0);
  drain (disk);
  for (i = 0; i < N; ++i) {
    assert_int_equal (b[i].freed, 1);
    assert_true (b[i].where == -1 && b[i].error != 0);
  }
  assert_int_equal (znbd_append (disk, 3, b, B, 0, NULL), -1);
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_RESET, 3, 1, 0, NULL), -1);
  assert_int_equal (znbd_aio_in_flight (disk), 0);
  znbd_close (disk);
  remove_dir (&s);
  free (b);
}

/* Connections that the caller made. */
static void
handles (void **state)
{
  struct block *b = make_blocks (2);
  struct server s;
  struct znbd_geometry g, g2;
  struct znbd_disk *disk;
  struct nbd_handle *nbd;
  uint64_t where;
  unsigned form;

  (void) state;
  START_SERVER (&s, "znbd-server", DISK);
  disk = connect_to (&s);
  znbd_get_geometry (disk, &g);
  assert_true (g.zone_capacity == 768 * KiB && g.size == 32 * MiB);
  znbd_close (disk);

  for (form = 0; form < 3; ++form) {
    nbd = nbd_create ();
    if (form == 0)
      nbd_set_opt_mode (nbd, true);
    if (form == 1)
      nbd_add_meta_context (nbd, "x-zbd:zones");
    if (form < 2)
      nbd_add_meta_context (nbd, "base:allocation");
    assert_int_equal (nbd_connect_uri (nbd, form == 2 ? s.table_uri : s.uri),
                      0);
    disk = znbd_connect_handle (nbd, 0);
    if (disk == NULL)
      fail_msg ("form %u: %s", form, znbd_get_error ());
    znbd_get_geometry (disk, &g2);
    if (form == 2)
      g2.zone_capacity = g.zone_capacity;
    assert_memory_equal (&g, &g2, sizeof g);
    assert_int_equal (znbd_manage (disk, ZNBD_ZONE_RESET, 3, 4, ZNBD_FUA,
                                   NULL), 0);
    if (form == 2) {
      assert_int_equal (znbd_append (disk, 3, b, B, 0, &where), -1);
      assert_int_equal (znbd_get_errno (), ENOTSUP);
    }
    else {
      assert_ptr_equal (znbd_get_nbd_handle (disk), nbd);
      assert_int_equal (znbd_append (disk, 3, b, B, 0, &where), 0);
      assert_true (where == 3 * MiB);
    }
    /* It is waited for, for its answer comes on the caller's handle. */
    b[1].where = -2;
    b[1].freed = 0;
    assert_true (znbd_aio_report (disk, 3, 1, &(struct znbd_zone) { 0 },
                                  (znbd_completion) { told, &b[1], freed })
                 > 0);
    znbd_close (disk);
    assert_int_equal (b[1].freed, 1);
    assert_int_equal (nbd_aio_is_ready (nbd), 1);
    nbd_close (nbd);
  }

  /* the disk's export without contexts is none of them */
  nbd = nbd_create ();
  assert_int_equal (nbd_connect_uri (nbd, s.uri), 0);
  assert_null (znbd_connect_handle (nbd, 0));
  assert_int_equal (znbd_get_errno (), EPROTO);
  nbd_close (nbd);
  stop (&s);

  /* a server that only this connection knows: the report can be had */
  nbd = nbd_create ();
  nbd_set_opt_mode (nbd, true);
  if (nbd_connect_systemd_socket_activation (
        nbd, (char *[]) { (char *) "znbd-server", (char *) DISK, NULL }) == -1)
    fail_msg ("%s", nbd_get_error ());
  disk = znbd_connect_handle (nbd, 0);
  if (disk == NULL)
    fail_msg ("%s", znbd_get_error ());
  assert_int_equal (znbd_report (disk, 4, 1, &(struct znbd_zone) { 0 }), 1);
  znbd_close (disk);
  nbd_shutdown (nbd, 0);
  nbd_close (nbd);
  free (b);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (many),
    cmocka_unit_test (call_between),
    cmocka_unit_test (to_the_end),
    cmocka_unit_test (event_loop),
    cmocka_unit_test (threads),
    cmocka_unit_test (ends),
    cmocka_unit_test (handles),
  };

  signal (SIGPIPE, SIG_IGN);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
