/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd list: the devices of znbd attach on this machine. */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "attach.h"
#include "cli.h"
#include "show.h"
#include "size.h"

static const char help[] =
  "znbd list [--json]\n"
  "\n"
  "Shows the devices of znbd attach: \"connected\", \"reconnecting\" while "
  "the\n"
  "server is gone, \"dead\" where the process was killed and may be started\n"
  "again.\n"
  "\n"
  "  --json\n"
  "  --help\n";

enum { OPT_JSON = 256 };

static const struct option options[] = {
  { "json", no_argument, NULL, OPT_JSON },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

static const char *
state_name (struct state *s, bool alive)
{
  if (!alive)
    return "dead";
  return atomic_load (&s->connected) ? "connected" : "reconnecting";
}

static void
print_json (struct state *s, bool alive, bool first)
{
  printf ("%s  {\n    \"device\": \"/dev/ublkb%" PRIu32 "\",\n",
          first ? "" : ",\n", s->id);
  printf ("    \"state\": \"%s\",\n", state_name (s, alive));
  printf ("    \"uri\": ");
  show_json_string (s->uri);
  printf (",\n    \"size\": %" PRIu64 ",\n", s->size);
  printf ("    \"zones\": %" PRIu32 ",\n", s->zones);
  printf ("    \"read_only\": %s,\n", s->readonly ? "true" : "false");
  printf ("    \"reconnects\": %" PRIu32 ",\n",
          atomic_load (&s->reconnects));
  printf ("    \"pid\": %" PRIu32 "\n  }", s->pid);
}

static void
print_text (struct state *s, bool alive)
{
  char size[SIZE_TEXT_MAX];

  printf ("/dev/ublkb%-3" PRIu32 "  %-12s  %s", s->id,
          state_name (s, alive), size_text (size, s->size));
  if (s->zones)
    printf (" in %" PRIu32 " zones", s->zones);
  printf ("%s  %s\n", s->readonly ? ", read-only" : "", s->uri);
}

int
cmd_list (int argc, char **argv)
{
  struct zone_error err;
  bool json = false, first = true;
  int *ids, n, i, c;

  while ((c = cli_option (argc, argv, options, help)) != -1) {
    if (c == CLI_HELP)
      return EXIT_SUCCESS;
    if (c == CLI_BAD)
      return EXIT_FAILURE;
    json = true;
  }
  if (optind < argc) {
    cli_error ("extra operand '%s'", argv[optind]);
    return EXIT_FAILURE;
  }
  n = state_list (&ids, &err);
  if (n == -1) {
    cli_error ("%s", err.text);
    return EXIT_FAILURE;
  }
  if (json)
    printf ("[\n");
  for (i = 0; i < n; i++) {
    bool alive;
    struct state *s = state_look (ids[i], &alive);

    if (s == NULL)
      continue;
    if (json)
      print_json (s, alive, first);
    else
      print_text (s, alive);
    first = false;
    state_unlook (s);
  }
  if (json)
    printf ("%s]\n", first ? "" : "\n");
  free (ids);
  return EXIT_SUCCESS;
}
