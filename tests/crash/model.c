/* SPDX-License-Identifier: BSD-3-Clause */
/* See sim.h: what was asked of the disk, and the judgment of what is found.
 *
 * It knows nothing of the image's format and nothing of zonelib's state
 * machine.  A sequential zone is a row of writes, finishes and resets; after
 * a crash it must be as some beginning of the row leaves it, byte for byte.
 * A sector of a conventional zone holds one of the writes to it.  Both
 * reach at least to what was durable, or, where only the process died, to
 * what was answered.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "sim.h"

static char wrong[1200];
static uint64_t judged;

#define WRONG(...) \
  (snprintf (wrong, sizeof wrong, __VA_ARGS__), (const char *) wrong)

/* Every 8 bytes of a sector say where and when they were written. */
static uint64_t
value (uint32_t zone, uint32_t stamp, uint32_t sector)
{
  return sim_mix ((uint64_t) (zone + 1) << 48 | (uint64_t) stamp << 16 |
                  sector) | 1;
}

bool
model_is_conventional (uint32_t zone)
{
  return zone < sim->geometry.conventional;
}

void
model_new (void)
{
  memset (sim->zone, 0, sizeof sim->zone);
  sim->epoch = 1;
  sim->opened = sim->closing = sim->attempted = sim->lost = false;
  sim->closed = true;
}

uint32_t
model_wp (uint32_t zone)
{
  const struct model_zone *z = &sim->zone[zone];
  const struct model_op *op;

  if (z->nops == 0)
    return z->base_wp;
  op = &z->op[z->nops - 1];
  return op->kind == MODEL_WRITE ? op->end
    : op->kind == MODEL_FINISH ? sim->capacity : 0;
}

struct model_op *
model_ask (uint32_t zone, enum model_kind kind, uint32_t at, uint32_t end)
{
  struct model_zone *z = &sim->zone[zone];
  struct model_op *op = &z->op[z->nops++];

  if (z->nops == MODEL_OPS)
    sim_wrong ("the model has no room for its requests");
  op->kind = kind;
  op->failed = false;
  op->at = at;
  op->end = end;
  op->stamp = kind == MODEL_RESET || model_is_conventional (zone)
    ? ++z->stamp : z->stamp;
  return op;
}

void
model_fill (uint32_t zone, const struct model_op *op, uint8_t *buf)
{
  uint64_t *word = (uint64_t *) buf;
  uint32_t s, i;

  for (s = op->at / 512; s < op->end / 512; s++)
    for (i = 0; i < 64; i++)
      *word++ = value (zone, op->stamp, s) + i;
}

static void
raise_to (uint32_t *n, uint32_t to)
{
  if (*n < to)
    *n = to;
}

void
model_acked (uint32_t zone, uint32_t index, bool durable)
{
  raise_to (&sim->zone[zone].acked, index + 1);
  if (durable)
    raise_to (&sim->zone[zone].durable, index + 1);
}

void
model_failed (uint32_t zone, uint32_t index)
{
  sim->zone[zone].op[index].failed = true;
}

void
model_flush_begin (struct model_flush *flush)
{
  uint32_t i;

  for (i = 0; i < ZONES; i++)
    flush->acked[i] = sim->zone[i].acked;
}

void
model_flushed (const struct model_flush *flush)
{
  uint32_t i;

  for (i = 0; i < ZONES; i++)
    raise_to (&sim->zone[i].durable, flush->acked[i]);
}

/* From now on what was found is where things begin. */
static void
fold (struct model_zone *z)
{
  memcpy (z->base, z->found, sizeof z->base);
  z->base_wp = z->found_wp;
  z->nops = z->acked = z->durable = 0;
  z->busy = false;
}

void
model_opened (struct zdisk *disk)
{
  uint64_t epoch = zdisk_geometry (disk)->epoch;
  struct znbd_zone z;
  uint32_t i;

  for (i = 0; i < ZONES; i++) {
    zdisk_report (disk, i, 1, &z);
    if (!model_is_conventional (i) && z.cond != ZNBD_COND_FULL &&
        z.wp - z.start != sim->zone[i].found_wp)
      sim_wrong ("zone %u: opened again its pointer is at %" PRIu64
                 ", not at %u", i, z.wp - z.start, sim->zone[i].found_wp);
    fold (&sim->zone[i]);
  }
  if (sim->lost ? epoch <= sim->epoch : epoch < sim->epoch)
    sim_wrong ("the epoch was %" PRIu64 " and is %" PRIu64, sim->epoch,
               epoch);
  sim->epoch = epoch;
  sim->opened = true;
  sim->attempted = sim->lost = sim->sync_failed = false;
}

void
model_closed (void)
{
  uint32_t i;

  sim->closed = true;
  for (i = 0; i < ZONES; i++)
    sim->zone[i].durable = sim->zone[i].acked;
}

/* Reads a zone; sets what is found. */
static const char *
look (struct zdisk *disk, struct zdisk_client *client, uint32_t i)
{
  static uint64_t buf[ZONE_MAX / 8];
  struct model_zone *m = &sim->zone[i];
  struct zdisk_request req = {
    .op = ZDISK_READ, .offset = i * sim->zone_size,
    .length = sim->zone_size, .buf = buf,
  };
  struct znbd_zone z;
  uint32_t s, j;

  if (zdisk_run (client, &req))
    return WRONG ("zone %u: a read fails: %s", i, req.reason);
  zdisk_report (disk, i, 1, &z);
  m->found_wp = z.cond == ZNBD_COND_FULL ? sim->capacity : z.wp - z.start;
  if (!model_is_conventional (i) &&
      z.cond != (m->found_wp == 0 ? ZNBD_COND_EMPTY :
                 m->found_wp == sim->capacity ? ZNBD_COND_FULL
                 : ZNBD_COND_CLOSED))
    return WRONG ("zone %u: is %s with its pointer at %u", i,
                  znbd_cond_name (z.cond), m->found_wp);
  memset (m->found, 0, sizeof m->found);
  for (s = 0; s < sim->zone_size / 512; s++) {
    m->found[s] = buf[s * 64];
    for (j = 1; j < 64; j++)
      if (buf[s * 64 + j] != (m->found[s] ? m->found[s] + j : 0))
        return WRONG ("zone %u: sector %u: garbage", i, s);
  }
  judged += m->found_wp;
  return NULL;
}

static void
apply (uint32_t zone, const struct model_op *op, uint64_t *content,
       uint32_t *wp)
{
  uint32_t s, end = op->kind == MODEL_WRITE ? op->at
    : op->kind == MODEL_FINISH ? sim->capacity : *wp;

  for (s = *wp / 512; s < end / 512; s++)
    content[s] = 0;
  switch (op->kind) {
  case MODEL_WRITE:
    for (s = op->at / 512; s < op->end / 512; s++)
      content[s] = value (zone, op->stamp, s);
    *wp = op->end;
    break;
  case MODEL_FINISH:
    *wp = sim->capacity;
    break;
  case MODEL_RESET:
  case MODEL_ZERO:
    memset (content, 0, ZONE_SECTORS * sizeof *content);
    *wp = 0;
  }
}

/* Says how far the zone came at most; UINT32_MAX: it is wrong.  Of the
 * requests that failed those are taken to be there that omit does not
 * name: a bit for each. */
static uint32_t
judge_without (uint32_t zone, uint32_t least, unsigned omit)
{
  struct model_zone *z = &sim->zone[zone];
  uint64_t content[ZONE_SECTORS];
  uint32_t wp = z->base_wp, k, matches = UINT32_MAX;

  memcpy (content, z->base, sizeof content);
  for (k = 0; ; k++) {
    if (k >= least && wp == z->found_wp &&
        memcmp (content, z->found, sizeof content) == 0)
      matches = k;
    if (k == z->nops)
      break;
    if (z->op[k].failed) {
      omit >>= 1;
      if (omit & 1)
        continue;
    }
    apply (zone, &z->op[k], content, &wp);
  }
  return matches;
}

static uint32_t
judge_sequential (uint32_t zone, uint32_t least)
{
  struct model_zone *z = &sim->zone[zone];
  uint32_t k, matches = UINT32_MAX;
  unsigned failed = 0, omit;

  for (k = 0; k < z->nops; k++)
    failed += z->op[k].failed;
  if (failed > 10)
    failed = 10;
  for (omit = 0; omit < 1u << failed && matches == UINT32_MAX; omit++)
    matches = judge_without (zone, least, omit << 1);
  return matches;
}

static uint64_t
sector_value (uint32_t zone, const struct model_op *op, uint32_t s)
{
  return op->kind == MODEL_WRITE ? value (zone, op->stamp, s) : 0;
}

static bool
judge_sector (uint32_t zone, uint32_t s, uint32_t least)
{
  struct model_zone *z = &sim->zone[zone];
  uint64_t last = z->base[s];
  uint32_t k;

  for (k = 0; k < z->nops; k++) {
    const struct model_op *op = &z->op[k];

    if (s * 512 < op->at || s * 512 >= op->end)
      continue;
    if (k >= least && z->found[s] == last)
      return true;
    if (!op->failed || z->found[s] == sector_value (zone, op, s))
      last = sector_value (zone, op, s);
    if (k >= least && z->found[s] == last)
      return true;
  }
  return z->found[s] == last;
}

static const char *
describe (uint32_t zone, uint32_t least)
{
  struct model_zone *z = &sim->zone[zone];
  size_t n = snprintf (wrong, sizeof wrong, "zone %u: pointer at %u is not "
                       "what %u to %u of these leave, from %u on:", zone,
                       z->found_wp, least, z->nops, z->base_wp);
  uint32_t k;

  for (k = 0; k < z->nops && n < sizeof wrong; k++)
    n += snprintf (wrong + n, sizeof wrong - n, " %s %u-%u",
                   z->op[k].kind == MODEL_WRITE ? "write"
                   : z->op[k].kind == MODEL_FINISH ? "finish" : "reset",
                   z->op[k].at, z->op[k].end);
  return wrong;
}

static const char *
judge_zones (struct zdisk *disk, struct zdisk_client *client, bool power_lost)
{
  const char *text;
  uint32_t i, s, k, least;

  for (i = 0; i < ZONES; i++) {
    struct model_zone *z = &sim->zone[i];

    if ((text = look (disk, client, i)) != NULL)
      return text;
    least = power_lost ? z->durable : z->acked;
    if (model_is_conventional (i)) {
      for (s = 0; s < sim->zone_size / 512; s++)
        if (!judge_sector (i, s, least))
          return WRONG ("zone %u, conventional: sector %u is none of what "
                        "may be there", i, s);
      continue;
    }
    k = judge_sequential (i, least);
    if (k == UINT32_MAX)
      return describe (i, least);
    if (!power_lost)
      z->nops = z->acked = k;
  }
  return NULL;
}

static const char *
judge_epoch (uint64_t epoch)
{
  bool right = sim->lost ? epoch > sim->epoch
    : sim->attempted || sim->closing || sim->sync_failed
    ? epoch >= sim->epoch
    : epoch == sim->epoch;

  return right ? NULL : WRONG ("the epoch was %" PRIu64 " and is %" PRIu64
                               ", something %s lost", sim->epoch, epoch,
                               sim->lost ? "may be" : "is not");
}

/* That it opens, and is in order. */
static const char *
judge_copy (const char *path, bool power_lost)
{
  struct zone_error err;
  struct store *store;
  struct zdisk *disk;
  struct zdisk_client *client;
  const char *text;
  FILE *out;
  int faults;

  out = fopen ("/dev/null", "w");
  faults = image_check (path, false, out, &err);
  fclose (out);
  if (faults != 0)
    return WRONG ("check finds %d faults: %s", faults,
                  faults == -1 ? err.text : "");
  store = image_open (path, false, &err);
  disk = store ? zdisk_new (store, NULL, &err) : NULL;
  if (disk == NULL)
    return WRONG ("it does not open: %s", err.text);
  client = zdisk_client_new (disk, false);
  text = judge_zones (disk, client, power_lost);
  if (text == NULL)
    text = judge_epoch (zdisk_geometry (disk)->epoch);
  zdisk_client_close (client);
  if (zdisk_close (disk, &err) == -1 && text == NULL)
    return WRONG ("it does not close: %s", err.text);
  return text;
}

const char *
model_peek (void)
{
  const bool attempted = sim->attempted, lost = sim->lost;
  const char *text;

  sim->attempted = true;
  sim->lost = lost || (sim->opened && !sim->closed && !sim->closing);
  sim->boot_id[0]++;
  text = judge_copy (sim_peek (true), true);
  sim_peek (false);
  sim->boot_id[0]--;
  sim->attempted = attempted;
  sim->lost = lost;
  return text;
}

const char *
model_judge (bool power_lost)
{
  const char *text;
  uint32_t i;

  if (!sim->opened)
    sim->attempted = true;
  if ((power_lost || sim->sync_failed) && sim->opened && !sim->closed &&
      !sim->closing)
    sim->lost = true;
  text = judge_copy (sim_copy (), power_lost || sim->sync_failed);
  /* What a power loss left is all there is; what a kill left may yet be
   * lost with the power, before it is made durable by the next opening. */
  for (i = 0; i < ZONES && text == NULL && power_lost; i++)
    fold (&sim->zone[i]);
  return text;
}

uint64_t
model_judged (void)
{
  return judged;
}
