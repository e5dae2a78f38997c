/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd create: reads the options; what they must be to fit together is
 * checked by the store, for the plugin too.
 */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "image.h"

static const char help[] =
  "znbd create --size S --zone-size S [OPTION]... IMAGE\n"
  "\n"
  "Makes an image of an emulated zoned disk, in a sparse file or on a block\n"
  "device.\n"
  "\n"
  "  --size S              the disk's size\n"
  "  --zone-size S         from one zone's start to the next\n"
  "  --zone-capacity S     writable bytes of a sequential zone "
  "(zone size)\n"
  "  --conventional N      conventional zones, at the front (0)\n"
  "  --max-open N          zones open at once (0: no limit)\n"
  "  --max-active N        zones open or closed at once (0: no limit)\n"
  "  --model MODEL         host-managed (default) or host-aware\n"
  "  --block-size S        512 or 4096 (default)\n"
  "  --read-only-zones L   zones that are read-only, like 3 or 5-7,12\n"
  "  --offline-zones L     zones that are offline\n"
  "  --force               overwrite what is there\n"
  "  --help\n";

enum {
  OPT_SIZE = 256, OPT_ZONE_SIZE, OPT_ZONE_CAPACITY, OPT_CONVENTIONAL,
  OPT_MAX_OPEN, OPT_MAX_ACTIVE, OPT_MODEL, OPT_BLOCK_SIZE,
  OPT_READ_ONLY_ZONES, OPT_OFFLINE_ZONES, OPT_FORCE,
};

static const struct option options[] = {
  { "size", required_argument, NULL, OPT_SIZE },
  { "zone-size", required_argument, NULL, OPT_ZONE_SIZE },
  { "zone-capacity", required_argument, NULL, OPT_ZONE_CAPACITY },
  { "conventional", required_argument, NULL, OPT_CONVENTIONAL },
  { "max-open", required_argument, NULL, OPT_MAX_OPEN },
  { "max-active", required_argument, NULL, OPT_MAX_ACTIVE },
  { "model", required_argument, NULL, OPT_MODEL },
  { "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
  { "read-only-zones", required_argument, NULL, OPT_READ_ONLY_ZONES },
  { "offline-zones", required_argument, NULL, OPT_OFFLINE_ZONES },
  { "force", no_argument, NULL, OPT_FORCE },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

/* A size that must not be 0, where the store's 0 means its default. */
static int
parse_nonzero (const char *option, const char *arg, uint64_t *bytes)
{
  if (cli_size (option, arg, bytes) == -1)
    return -1;
  if (*bytes == 0) {
    cli_error ("%s must not be 0", option);
    return -1;
  }
  return 0;
}

static int
parse_model (const char *arg, struct store_geometry *g)
{
  if (strcmp (arg, "host-managed") == 0)
    g->model = ZNBD_MODEL_HOST_MANAGED;
  else if (strcmp (arg, "host-aware") == 0)
    g->model = ZNBD_MODEL_HOST_AWARE;
  else {
    cli_error ("--model %s is neither host-managed nor host-aware", arg);
    return -1;
  }
  return 0;
}

static int
parse_block_size (const char *arg, struct store_geometry *g)
{
  uint64_t bytes;

  if (cli_size ("--block-size", arg, &bytes) == -1)
    return -1;
  if (bytes != 512 && bytes != 4096) {
    cli_error ("--block-size %s is neither 512 nor 4096", arg);
    return -1;
  }
  g->granularity = bytes;
  return 0;
}

static int
parse_option (int c, struct store_geometry *g, bool *force)
{
  switch (c) {
  case OPT_SIZE:
    return parse_nonzero ("--size", optarg, &g->size);
  case OPT_ZONE_SIZE:
    return parse_nonzero ("--zone-size", optarg, &g->zone_size);
  case OPT_ZONE_CAPACITY:
    return parse_nonzero ("--zone-capacity", optarg, &g->zone_capacity);
  case OPT_CONVENTIONAL:
    return cli_number ("--conventional", optarg, &g->conventional);
  case OPT_MAX_OPEN:
    return cli_number ("--max-open", optarg, &g->max_open);
  case OPT_MAX_ACTIVE:
    return cli_number ("--max-active", optarg, &g->max_active);
  case OPT_MODEL:
    return parse_model (optarg, g);
  case OPT_BLOCK_SIZE:
    return parse_block_size (optarg, g);
  case OPT_READ_ONLY_ZONES:
    g->readonly_zones = optarg;
    return 0;
  case OPT_OFFLINE_ZONES:
    g->offline_zones = optarg;
    return 0;
  case OPT_FORCE:
    *force = true;
    return 0;
  }
  return -1;
}

int
cmd_create (int argc, char **argv)
{
  struct store_geometry geometry = STORE_GEOMETRY_DEFAULT;
  struct zone_error err;
  bool force = false;
  const char *path;
  int c;

  while ((c = cli_option (argc, argv, options, help)) != -1) {
    if (c == CLI_HELP)
      return EXIT_SUCCESS;
    if (c == CLI_BAD || parse_option (c, &geometry, &force) == -1)
      return EXIT_FAILURE;
  }
  path = cli_operand (argc, argv, "IMAGE");
  if (path == NULL)
    return EXIT_FAILURE;
  if (geometry.size == 0 || geometry.zone_size == 0) {
    cli_error ("%s is missing", geometry.size == 0 ? "--size"
                                                   : "--zone-size");
    return EXIT_FAILURE;
  }

  if (image_create (path, &geometry, force, &err) == -1) {
    cli_error ("%s", err.text);
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
