/* SPDX-License-Identifier: BSD-3-Clause */
/* Parses the plugin's parameters.  Each is remembered as it was typed, so
 * that whatever is wrong with it, also in the light of the others, can be
 * said in its own words.  That the numbers fit together is checked by
 * store_geometry_check, for every program of znbd alike.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "params.h"
#include "size.h"

const char params_help[] =
  "[file=]<IMAGE>          The image to serve (made by znbd create), or a\n"
  "                        block device: a zoned one has its own zones.\n"
  "readonly=true|false     Only read the image (default: false).\n"
  "Without an image, a disk in memory that is gone when nbdkit exits:\n"
  "size=<SIZE>             Size of the disk (required).\n"
  "zone-size=<SIZE>        Size of a zone (required).\n"
  "zone-capacity=<SIZE>    Writable bytes of a zone (default: all).\n"
  "conventional=<N>        Conventional zones at the front (default: 0).\n"
  "max-open=<N>            Zones open at once (default: 0, no limit).\n"
  "max-active=<N>          Zones open or closed at once (default: 0).\n"
  "model=<MODEL>           host-managed (default) or host-aware.\n"
  "block-size=512|4096     Smallest write (default: 4096).\n"
  "read-only-zones=<LIST>  Zones that refuse writes, like 3,8-11.\n"
  "offline-zones=<LIST>    Zones that refuse reads and writes.\n"
  "With either:\n"
  "reorder-timeout=<TIME>  How long a write ahead of its zone's pointer\n"
  "                        waits, like 500ms or 2s (default: 1s).\n"
  "gap=error|zero          What then: refuse it (default), or fill the\n"
  "                        gap with zeros.\n"
  "Serve with nbdkit -t 64: each write that waits takes a thread.";

/* The parameters in the order of the help.  The first keys belong to
 * images, the middle ones to disks in memory, the last ones to both. */
enum param {
  FILE_, READONLY,
  SIZE, ZONE_SIZE, ZONE_CAPACITY, CONVENTIONAL, MAX_OPEN, MAX_ACTIVE, MODEL,
  BLOCK_SIZE, READ_ONLY_ZONES, OFFLINE_ZONES,
  REORDER_TIMEOUT, GAP,
  NR_PARAMS
};
#define FIRST_OF_MEMORY SIZE
#define LAST_OF_MEMORY OFFLINE_ZONES

static const char *const names[NR_PARAMS] = {
  [FILE_] = "file",
  [READONLY] = "readonly",
  [SIZE] = "size",
  [ZONE_SIZE] = "zone-size",
  [ZONE_CAPACITY] = "zone-capacity",
  [CONVENTIONAL] = "conventional",
  [MAX_OPEN] = "max-open",
  [MAX_ACTIVE] = "max-active",
  [MODEL] = "model",
  [BLOCK_SIZE] = "block-size",
  [READ_ONLY_ZONES] = "read-only-zones",
  [OFFLINE_ZONES] = "offline-zones",
  [REORDER_TIMEOUT] = "reorder-timeout",
  [GAP] = "gap",
};

/* Values as typed, NULL where the parameter was not given. */
static const char *typed[NR_PARAMS];

/* A decimal number and nothing else.  strtoull alone would take signs,
 * spaces and, with base 0, octal. */
static int
parse_number (const char *str, uint64_t *n, const char **end)
{
  char *e;

  if (!isdigit ((unsigned char) *str))
    return -1;
  errno = 0;
  *n = strtoull (str, &e, 10);
  *end = e;
  return errno ? -1 : 0;
}

static int
set_size (enum param i, const char *value, uint64_t *bytes)
{
  const char *why;

  if (size_parse (value, bytes, &why) == -1) {
    nbdkit_error ("%s=%s %s", names[i], value, why);
    return -1;
  }
  if (*bytes == 0) {
    nbdkit_error ("%s=%s must be more than 0", names[i], value);
    return -1;
  }
  return 0;
}

static int
set_count (enum param i, const char *value, uint64_t *n)
{
  const char *end;

  if (parse_number (value, n, &end) == -1 || *end != '\0') {
    nbdkit_error ("%s=%s is not a number of zones", names[i], value);
    return -1;
  }
  return 0;
}

static int
set_timeout (enum param i, const char *value, unsigned *ms)
{
  uint64_t n, unit;
  const char *end;

  if (parse_number (value, &n, &end) == -1)
    goto wrong;
  if (strcmp (end, "ms") == 0)
    unit = 1;
  else if (strcmp (end, "s") == 0 || (*end == '\0' && n == 0))
    unit = 1000;
  else
    goto wrong;
  if (n > INT_MAX / unit) {
    nbdkit_error ("%s=%s is longer than the longest, %ds",
                  names[i], value, INT_MAX / 1000);
    return -1;
  }
  *ms = n * unit;
  return 0;

 wrong:
  nbdkit_error ("%s=%s is not a time like 500ms or 2s", names[i], value);
  return -1;
}

/* Takes one of two words.  Returns 0 for the first, 1 for the second. */
static int
set_word (enum param i, const char *value, const char *w0, const char *w1)
{
  if (strcmp (value, w0) == 0)
    return 0;
  if (strcmp (value, w1) == 0)
    return 1;
  nbdkit_error ("%s=%s is neither %s nor %s", names[i], value, w0, w1);
  return -1;
}

int
params_set (struct params *p, const char *key, const char *value)
{
  struct store_geometry *g = &p->geometry;
  enum param i;
  int r;

  for (i = 0; i < NR_PARAMS; ++i)
    if (strcmp (key, names[i]) == 0)
      break;
  if (i == NR_PARAMS) {
    nbdkit_error ("unknown parameter %s=; nbdkit zoned --help lists "
                  "the known ones", key);
    return -1;
  }
  if (typed[i]) {
    nbdkit_error ("%s= is given twice: %s and %s",
                  names[i], typed[i], value);
    return -1;
  }
  typed[i] = value;

  switch (i) {
  case FILE_:
    if (value[0] == '\0') {
      nbdkit_error ("file= names no image");
      return -1;
    }
    p->file = value;
    return 0;

  case READONLY:
    r = set_word (i, value, "false", "true");
    if (r == -1)
      return -1;
    p->readonly = r;
    return 0;

  case SIZE:
    return set_size (i, value, &g->size);
  case ZONE_SIZE:
    return set_size (i, value, &g->zone_size);
  case ZONE_CAPACITY:
    return set_size (i, value, &g->zone_capacity);
  case CONVENTIONAL:
    return set_count (i, value, &g->conventional);
  case MAX_OPEN:
    return set_count (i, value, &g->max_open);
  case MAX_ACTIVE:
    return set_count (i, value, &g->max_active);

  case MODEL:
    r = set_word (i, value, "host-managed", "host-aware");
    if (r == -1)
      return -1;
    g->model = r ? ZNBD_MODEL_HOST_AWARE : ZNBD_MODEL_HOST_MANAGED;
    return 0;

  case BLOCK_SIZE: {
    uint64_t bytes;

    if (set_size (i, value, &bytes) == -1)
      return -1;
    if (bytes != 512 && bytes != 4096) {
      nbdkit_error ("%s=%s is neither 512 nor 4096", names[i], value);
      return -1;
    }
    g->granularity = bytes;
    return 0;
  }

  case READ_ONLY_ZONES:
    g->readonly_zones = value;
    return 0;
  case OFFLINE_ZONES:
    g->offline_zones = value;
    return 0;

  case REORDER_TIMEOUT:
    return set_timeout (i, value, &p->options.reorder_timeout);
  case GAP:
    r = set_word (i, value, "error", "zero");
    if (r == -1)
      return -1;
    p->options.gap_zero = r;
    return 0;

  case NR_PARAMS:
    break;
  }
  abort ();
}

int
params_complete (struct params *p)
{
  struct zone_error err;
  enum param i;

  if (p->file) {
    for (i = FIRST_OF_MEMORY; i <= LAST_OF_MEMORY; ++i)
      if (typed[i]) {
        nbdkit_error ("%s= is for a disk in memory and cannot be given "
                      "together with file=%s", names[i], p->file);
        return -1;
      }
    return 0;
  }

  if (typed[READONLY]) {
    nbdkit_error ("readonly= needs an image, file=IMAGE: a disk in memory "
                  "that is only read would stay empty");
    return -1;
  }
  if (!typed[SIZE] && !typed[ZONE_SIZE]) {
    nbdkit_error ("give an image, file=IMAGE, or size= and zone-size= for a "
                  "disk in memory");
    return -1;
  }
  for (i = SIZE; i <= ZONE_SIZE; ++i)
    if (!typed[i]) {
      nbdkit_error ("a disk in memory needs %s= as well", names[i]);
      return -1;
    }

  if (store_geometry_check (&p->geometry, &err) == -1) {
    nbdkit_error ("%s", err.text);
    return -1;
  }
  return 0;
}
