/* SPDX-License-Identifier: BSD-3-Clause */
/* Power losses and kills, by the thousand: the image store on a simulated
 * machine (crash/sim.h), used by several threads, with and without rings,
 * ended at any system call, and judged by a model of what was asked of it.
 *
 * A seed is one image and several lives of it.  ZNBD_SEEDS says how many,
 * ZNBD_SEED which is the first: a failure names its own.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "crash/sim.h"
#include "image.h"
#include "ring.h"

#define LIVES   5
#define LOSSES  4               /* looked at after each */
#define WORKERS 4

struct worker {
  struct zdisk_client *client;
  struct ring ring;
  bool rings;                   /* uses it */
  unsigned requests;            /* to make */
  unsigned depth;               /* in flight at most */
  unsigned outstanding;
  unsigned thread;
};

struct request {
  struct zdisk_request r;
  struct worker *w;
  uint32_t zone, index;
  struct model_flush flush;
};

static struct zdisk *disk;
static bool host_aware;
static bool small;              /* writes, of which many are durable, and few
                                 * resets: most rounds are entries of the log */
static unsigned conventional;   /* percent of the requests that are for such
                                 * zones at least, if there are any */
static bool openings;           /* lives are short: see openings_cut_off */

static unsigned
number_from (const char *name, unsigned otherwise)
{
  const char *text = getenv (name);

  return text ? strtoul (text, NULL, 0) : otherwise;
}

static void
on_done (struct zdisk_request *r)
{
  struct request *req = (struct request *) r;

  if (r->error && !sim->flawed)
    sim_wrong ("a request at %" PRIu64 " failed: %s", r->offset, r->reason);
  if (r->error) {
    sim->erred = true;
    if (req->zone < ZONES)
      model_failed (req->zone, req->index);
  }
  else if (r->op == ZDISK_FLUSH)
    model_flushed (&req->flush);
  else
    model_acked (req->zone, req->index, r->flags & ZDISK_FUA);
  if (req->zone < ZONES && model_is_conventional (req->zone))
    sim->zone[req->zone].busy = false;
  if (r->error == 0 && (r->op == ZDISK_FLUSH || (r->flags & ZDISK_FUA)) &&
      sim->crash_answer > 0 && --sim->crash_answer == 0)
    _exit (SIM_CRASHED);
  req->w->outstanding--;
  sim_wake (req->w->thread);
}

/* Behind a write that failed others are parked until their time is over. */
void
sim_idle (void)
{
  usleep (2000);
  zdisk_expire (disk, NULL);
}

static void
wait_for (struct worker *w, unsigned outstanding)
{
  if (outstanding > 0 && w->outstanding <= outstanding)
    return;
  /* The ring may have what others' requests waited for, too. */
  while (ring_run (&w->ring, false) > 0 || w->outstanding > outstanding)
    if (w->ring.in_flight == 0 && w->outstanding > outstanding)
      sim_sleep ();
}

static void
submit (struct worker *w, struct request *req)
{
  w->outstanding++;
  req->w = w;
  req->r.done = on_done;
  zdisk_submit (w->client, &req->r, w->rings ? &w->ring : NULL);
  if (w->rings && sim_chance (30))
    ring_run (&w->ring, false);
}

/* A size that fits, some of them no multiple of 4096 and some above what is
 * written without the ring. */
static uint32_t
some_length (uint32_t left)
{
  uint32_t unit = sim->geometry.granularity;
  uint32_t n = sim_chance (small ? 5 : 20) ? 64 : small ? 2 : 6;

  n = (1 + sim_below (n)) * unit;
  return n < left ? n : left;
}

static void
use_conventional (struct request *req, uint32_t zone)
{
  struct model_zone *z = &sim->zone[zone];
  uint32_t unit = sim->geometry.granularity;
  uint32_t at = sim_below (sim->zone_size / unit) * unit;
  uint32_t end = at + some_length (sim->zone_size - at);
  bool zero = sim_chance (30);
  struct model_op *op;

  if (z->busy) {
    req->r.op = ZDISK_READ;     /* not made: see one_request */
    return;
  }
  z->busy = true;
  req->index = z->nops;
  op = model_ask (zone, zero ? MODEL_ZERO : MODEL_WRITE, at, end);
  req->r.op = !zero ? ZDISK_WRITE : sim_chance (50) ? ZDISK_ZERO : ZDISK_TRIM;
  /* A hint: that it fails nobody hears. */
  op->failed = req->r.op == ZDISK_TRIM && sim->io_fails;
  req->r.offset = zone * sim->zone_size + at;
  req->r.length = end - at;
  if (!zero)
    model_fill (zone, op, req->r.buf);
  else if (sim_chance (50))
    req->r.flags |= ZDISK_MAY_TRIM;
}

static void
use_sequential (struct request *req, uint32_t zone)
{
  struct model_zone *z = &sim->zone[zone];
  uint32_t wp = model_wp (zone), capacity = sim->capacity, at, end;
  unsigned what = sim_below (100);
  struct model_op *op;

  req->index = z->nops;
  if (wp == capacity || (what < (small ? 1 : 10) && wp > 0)) {
    model_ask (zone, MODEL_RESET, 0, 0);
    req->r.op = sim_chance (30) ? ZDISK_TRIM : ZDISK_RESET;
  }
  else if (what < (small ? 2 : 15)) {
    model_ask (zone, MODEL_FINISH, 0, 0);
    req->r.op = ZDISK_FINISH;
  }
  else {
    at = wp;
    if (host_aware && sim_chance (15))
      at += some_length (capacity - wp - sim->geometry.granularity);
    end = at + some_length (capacity - at);
    op = model_ask (zone, MODEL_WRITE, at, end);
    model_fill (zone, op, req->r.buf);
    req->r.op = !host_aware && sim_chance (20) ? ZDISK_APPEND : ZDISK_WRITE;
    req->r.offset = zone * sim->zone_size +
      (req->r.op == ZDISK_APPEND ? 0 : at);
    req->r.length = end - at;
    return;
  }
  req->r.offset = zone * sim->zone_size;
  req->r.length = sim->zone_size;
}

/* From the model's word to zdisk_submit nothing else runs, so the disk
 * takes a zone's requests in the model's order. */
static void
one_request (struct worker *w)
{
  struct request *req = calloc (1, sizeof *req);
  uint32_t zone = sim_below (ZONES);

  if (sim->geometry.conventional > 0 && sim_chance (conventional))
    zone = sim_below (sim->geometry.conventional);
  req->r.buf = malloc (ZONE_MAX);
  req->zone = zone;
  if (sim_chance (small ? 15 : 8)) {
    req->r.op = ZDISK_FLUSH;
    req->zone = ZONES;
    model_flush_begin (&req->flush);
  }
  else if (model_is_conventional (zone))
    use_conventional (req, zone);
  else
    use_sequential (req, zone);
  if (req->r.op == ZDISK_READ)
    return;
  if (req->r.op != ZDISK_FLUSH && sim_chance (small ? 40 : 10))
    req->r.flags |= ZDISK_FUA;
  submit (w, req);
}

static void *
work (void *arg)
{
  struct worker *w = arg;
  unsigned i;

  w->thread = sim_self ();
  w->client = zdisk_client_new (disk, false);
  for (i = 0; i < w->requests && !sim->erred; i++) {
    one_request (w);
    wait_for (w, w->depth);
    sim_event ();
  }
  wait_for (w, 0);
  zdisk_client_close (w->client);
  return NULL;
}

/* One life, in a process of its own; does not return. */
static void
live (void)
{
  static struct worker workers[WORKERS];
  struct zdisk_options options = ZDISK_OPTIONS_DEFAULT;
  unsigned n = 1 + sim_below (WORKERS), i;
  struct zone_error err;
  struct store *store;

  alarm (60);
  sim_live ();
  store = image_open (sim_path, false, &err);
  options.reorder_timeout = 1;
  disk = store ? zdisk_new (store, &options, &err) : NULL;
  if (disk == NULL) {
    if (sim->flawed)
      _exit (0);
    sim_wrong ("it does not open: %s", err.text);
  }
  model_opened (disk);
  for (i = 0; i < n; i++) {
    workers[i].requests = 1 + sim_below (openings ? 20 : small ? 80 : 40);
    workers[i].depth = sim_below (8);
    workers[i].rings = sim_chance (small ? 75 : 50);
    if (i > 0)
      sim_spawn (work, &workers[i]);
  }
  work (&workers[0]);
  sim_join_all ();
  if (sim_chance (40)) {
    sim->closing = true;
    if (zdisk_close (disk, &err) == 0)
      model_closed ();
    else if (!sim->flawed)
      sim_wrong ("it does not close: %s", err.text);
  }
  _exit (0);
}

static void
new_seed (uint64_t seed, bool flawed)
{
  struct store_geometry g = STORE_GEOMETRY_DEFAULT;

  sim->rng = sim_mix (seed + 1);
  small = sim_chance (50);
  host_aware = sim_chance (small ? 10 : 30);
  conventional = sim_chance (20) ? 90 : 0;
  g.granularity = sim_chance (small ? 90 : 40) ? 512 : 4096;
  g.model = host_aware ? ZNBD_MODEL_HOST_AWARE : ZNBD_MODEL_HOST_MANAGED;
  g.zone_size = sim_chance (small ? 10 : 50) ? 32 << 10 : ZONE_MAX;
  g.size = ZONES * g.zone_size;
  g.zone_capacity = sim_chance (50) ? g.zone_size : g.zone_size - 8192;
  g.conventional = sim_below (3);
  g.max_open = sim_below (3);
  sim->geometry = g;
  sim->zone_size = g.zone_size;
  sim->capacity = g.zone_capacity;
  sim->version_1 = sim_chance (15);
  sim->no_zero_range = sim_chance (30);
  sim->no_dsync = sim_chance (20);
  sim->flawed = flawed;
  sim->sync_failed = false;
  sim_new_image (sim->rng);
  model_new ();
}

/* When it ends, and what fails until then. */
static void
plan_life (void)
{
  sim->events = 0;
  sim->crash_at = sim->crash_write = sim->crash_answer = 0;
  if (openings)
    sim->crash_write = 1 + sim_below (sim_chance (50) ? 4 : 24);
  else if (sim_chance (30))
    sim->crash_answer = 1 + sim_below (40);
  else if (!sim_chance (20))
    sim->crash_at = 1 + sim_below (1u << (4 + sim_below (8)));
  sim->switching = sim_below (80);
  sim->sync_fails = sim->io_fails = 0;
  if (sim->flawed && sim_chance (60))
    sim->sync_fails = 1 + sim_below (openings ? 8 : 12);
  else if (sim->flawed && !openings)
    sim->io_fails = 1 + sim_below (300);
}

static const char *
one_life (bool *power_lost, unsigned *crashes)
{
  static char text[64];
  const char *wrong;
  int status, i;
  pid_t pid;

  plan_life ();
  sim->erred = false;
  sim->opened = sim->closing = sim->closed = false;
  pid = fork ();
  if (pid == -1)
    return "fork fails";
  if (pid == 0)
    live ();
  while (waitpid (pid, &status, 0) == -1)
    ;
  if (WIFEXITED (status) && WEXITSTATUS (status) == SIM_WRONG)
    return sim->text;
  if (!WIFEXITED (status) || (WEXITSTATUS (status) != SIM_CRASHED &&
                              WEXITSTATUS (status) != 0)) {
    snprintf (text, sizeof text, "status %x", status);
    return text;
  }
  *crashes += WEXITSTATUS (status) == SIM_CRASHED;
  for (i = 0; i < LOSSES; i++) {
    *power_lost = true;
    wrong = model_peek ();
    if (wrong)
      return wrong;
  }
  *power_lost = sim_chance (openings ? 35 : 70);
  if (*power_lost)
    sim_lose_power ();
  else
    sim_kill ();
  return model_judge (*power_lost);
}

/* Sanitizers look at the same code again, four times as slowly. */
static unsigned
seeds_of (unsigned longer, unsigned shorter)
{
  return getenv ("ZNBD_LONG") ? longer
    : getenv ("ZNBD_SANITIZER") ? shorter / 4 : shorter;
}

static void
many_seeds (bool flawed, unsigned seeds)
{
  unsigned first = number_from ("ZNBD_SEED", 1), i, life, crashes = 0;
  unsigned lives = 0, powers = 0;
  bool power_lost = false;
  const char *wrong;

  seeds = number_from ("ZNBD_SEEDS", seeds);
  for (i = 0; i < seeds; i++) {
    new_seed (first + i, flawed);
    for (life = 0; life < (openings ? 2 * LIVES : LIVES); life++) {
      wrong = one_life (&power_lost, &crashes);
      if (getenv ("ZNBD_VERBOSE"))
        print_message ("# seed %u, life %u: %s after %" PRIu64 " events, "
                       "opened %d, closing %d, sync failed %d, erred %d, fails"
                       " %u %u\n", first + i,
                       life, power_lost ? "power lost" : "killed",
                       sim->events, sim->opened, sim->closing,
                       sim->sync_failed, sim->erred, sim->sync_fails,
                       sim->io_fails);
      if (wrong)
        fail_msg ("ZNBD_SEED=%u ZNBD_SEEDS=1: life %u, %s, after %" PRIu64
                  " events: %s", first + i, life,
                  power_lost ? "power lost" : "killed", sim->events, wrong);
      lives++;
      powers += power_lost;
    }
  }
  print_message ("# %u seeds: %u lives, %u cut off, %u lost power; judged %"
                 PRIu64 " KiB below pointers\n", seeds, lives, crashes,
                 powers, model_judged () >> 10);
  if (seeds > 20) {
    assert_true (crashes > lives / 4);
    assert_true (model_judged () > 0);
  }
}

static void
power_losses_and_kills (void **state)
{
  (void) state;
  many_seeds (false, seeds_of (10000, 300));
}

static void
failing_disks (void **state)
{
  (void) state;
  many_seeds (true, seeds_of (5000, 120));
}

/* An opening takes up what a server left that was killed, or which an opening
 * left that was cut off itself, and may have to do so several times.  Short
 * lives, ended behind one of their first writes. */
static void
openings_cut_off (void **state)
{
  (void) state;
  openings = true;
  many_seeds (false, seeds_of (2500, 40));
  many_seeds (true, seeds_of (2500, 40));
  openings = false;
}

#define SHARERS 16
#define SHARED_WRITES 20

/* A writer that has each write made durable before the next, by FUA or by a
 * FLUSH. */
static void *
work_durably (void *arg)
{
  struct worker *w = arg;
  uint32_t zone, i;
  struct request *req;
  struct model_op *op;

  w->thread = sim_self ();
  zone = w->thread % ZONES;
  w->client = zdisk_client_new (disk, false);
  for (i = 0; i < SHARED_WRITES; i++) {
    req = calloc (1, sizeof *req);
    req->zone = zone;
    req->index = sim->zone[zone].nops;
    req->r.op = ZDISK_APPEND;
    req->r.offset = zone * sim->zone_size;
    req->r.length = 512;
    req->r.buf = malloc (512);
    req->r.flags = w->requests ? ZDISK_FUA : 0;
    op = model_ask (zone, MODEL_WRITE, model_wp (zone),
                    model_wp (zone) + 512);
    model_fill (zone, op, req->r.buf);
    submit (w, req);
    wait_for (w, 0);
    if (req->r.flags)
      continue;
    req = calloc (1, sizeof *req);
    req->r.op = ZDISK_FLUSH;
    req->zone = ZONES;
    model_flush_begin (&req->flush);
    submit (w, req);
    wait_for (w, 0);
  }
  return NULL;
}

static void
share_syncs (bool rings)
{
  static struct worker workers[SHARERS];
  struct zone_error err;
  unsigned i;

  alarm (60);
  sim_live ();
  disk = zdisk_new (image_open (sim_path, false, &err), NULL, &err);
  model_opened (disk);
  sim->syncs = 0;
  for (i = 0; i < SHARERS; i++) {
    workers[i].rings = rings;
    workers[i].requests = i % 2;
    if (i > 0)
      sim_spawn (work_durably, &workers[i]);
  }
  work_durably (&workers[0]);
  sim_join_all ();
  _exit (0);
}

/* Many who want something durable share the syncs: one of a round, or two
 * where it takes a commit. */
static void
group_commit (void **state)
{
  unsigned rings;
  const char *wrong;
  int status;

  (void) state;
  for (rings = 0; rings < 2; rings++) {
    new_seed (1 + rings, false);
    sim->crash_at = sim->crash_answer = sim->sync_fails = sim->io_fails = 0;
    sim->closed = false;
    sim->version_1 = false;
    sim->geometry.granularity = 512;
    sim->geometry.conventional = 0;
    sim->geometry.model = ZNBD_MODEL_HOST_MANAGED;
    sim->switching = 50;
    sim_new_image (1);
    if (fork () == 0)
      share_syncs (rings);
    wait (&status);
    assert_int_equal (status, 0);
    sim_lose_power ();
    wrong = model_judge (true);
    if (wrong)
      fail_msg ("%s", wrong);
    print_message ("# %u durable writes by %u writers: %u syncs\n",
                   SHARERS * SHARED_WRITES, SHARERS, sim->syncs);
    assert_true (sim->syncs >= SHARED_WRITES);
    assert_true (sim->syncs * 4 <= SHARERS * SHARED_WRITES);
  }
}

/* usage: unit-powerloss [TEST] */
int
main (int argc, char **argv)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (group_commit),
    cmocka_unit_test (power_losses_and_kills),
    cmocka_unit_test (failing_disks),
    cmocka_unit_test (openings_cut_off),
  };

  sim_init ();
  if (argc > 1)
    cmocka_set_test_filter (argv[1]);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
