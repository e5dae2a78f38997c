/* SPDX-License-Identifier: BSD-3-Clause */
/* See options.h. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "budget.h"
#include "debug.h"
#include "log.h"
#include "nbd-store.h"
#include "options.h"
#include "protocol.h"
#include "size.h"
#include "table.h"
#include "utf8.h"

static const char help[] =
  "usage: znbd-server [OPTION...] IMAGE|DEVICE\n"
  "       znbd-server [OPTION...] memory:SIZE,zone-size=SIZE[,KEY=VALUE...]\n"
  "       znbd-server [OPTION...] NBD-URI\n"
  "       znbd-server [OPTION...] --nbdkit -- NBDKIT-ARGUMENT...\n"
  "\n"
  "Serves a zoned disk over NBD: an image that znbd create has made, a zoned\n"
  "block device, a disk in memory, or that of another NBD server.\n"
  "\n"
  "Where to listen:\n"
  "  -U, --unix PATH          a Unix socket (-: a temporary one)\n"
  "  -p, --port PORT          TCP port (default: 10809)\n"
  "  -i, --ipaddr ADDRESS     of this address alone (default: all)\n"
  "      --vsock              AF_VSOCK instead of TCP, for virtual machines\n"
  "What to serve:\n"
  "  -e, --exportname NAME    the disk's name (default: none); the zone table\n"
  "                           is NAME/zones, or zones\n"
  "  -r, --readonly           refuse every change\n"
  "      --reorder-timeout T  how long a write ahead of its zone's pointer\n"
  "                           waits, like 500ms or 2s (default: 1s)\n"
  "      --gap error|zero     what then: refuse it (default), or fill the gap\n"
  "      --nbdkit             start nbdkit with the arguments behind --, and\n"
  "                           serve its disk, in the foreground\n"
  "      --reconnect T        how long requests wait for another server that\n"
  "                           went (default: 30s; 0: it is not sought again)\n"
  "TLS, see the man page:\n"
  "      --tls off|on|require whether clients may or must use it\n"
  "      --tls-certificates DIR with ca-cert.pem, server-cert.pem and\n"
  "                           server-key.pem\n"
  "      --tls-psk FILE       keys that psktool made, and no certificates\n"
  "      --tls-verify-peer    clients need a certificate too\n"
  "How to run:\n"
  "  -f, --foreground         do not go into the background\n"
  "  -P, --pidfile FILE       write the process id there, once ready\n"
  "  -t, --threads N          event loops (default: one a processor)\n"
  "      --request-memory SIZE  what requests under way may hold, all\n"
  "                           together (default: 1G)\n"
  "      --run COMMAND        serve while a shell command runs, with $uri,\n"
  "                           $unixsocket and $port\n"
  "      --exit-with-parent   end when the parent process does\n"
  "  -u, --user USER          become this user once the disk and the sockets\n"
  "  -g, --group GROUP        are open, and this group (default: the user's)\n"
  "      --log stderr|syslog|null\n"
  "                           where messages go (default: stderr; in the\n"
  "                           background syslog)\n"
  "  -v, --verbose            say what happens\n"
  "  -D, --debug NAME.FLAG=N  say more of something (-D help: of what)\n"
  "  -V, --version\n"
  "      --help\n"
  "\n"
  "KEYs of a disk in memory: zone-capacity=SIZE, conventional=N, max-open=N,\n"
  "max-active=N, model=host-managed|host-aware, block-size=512|4096,\n"
  "read-only-zones=LIST and offline-zones=LIST (like 3+8-11).\n";

enum {
  OPT_REORDER_TIMEOUT = CHAR_MAX + 1, OPT_REQUEST_MEMORY, OPT_GAP, OPT_RUN,
  OPT_EXIT_WITH_PARENT, OPT_HELP, OPT_LOG, OPT_VSOCK, OPT_TLS,
  OPT_TLS_CERTIFICATES, OPT_TLS_PSK, OPT_TLS_VERIFY_PEER,
  OPT_NBDKIT, OPT_RECONNECT,
};

static const struct option long_options[] = {
  { "unix", required_argument, NULL, 'U' },
  { "port", required_argument, NULL, 'p' },
  { "ipaddr", required_argument, NULL, 'i' },
  { "vsock", no_argument, NULL, OPT_VSOCK },
  { "exportname", required_argument, NULL, 'e' },
  { "export-name", required_argument, NULL, 'e' },
  { "readonly", no_argument, NULL, 'r' },
  { "read-only", no_argument, NULL, 'r' },
  { "reorder-timeout", required_argument, NULL, OPT_REORDER_TIMEOUT },
  { "gap", required_argument, NULL, OPT_GAP },
  { "tls", required_argument, NULL, OPT_TLS },
  { "tls-certificates", required_argument, NULL, OPT_TLS_CERTIFICATES },
  { "tls-psk", required_argument, NULL, OPT_TLS_PSK },
  { "tls-verify-peer", no_argument, NULL, OPT_TLS_VERIFY_PEER },
  { "foreground", no_argument, NULL, 'f' },
  { "pidfile", required_argument, NULL, 'P' },
  { "threads", required_argument, NULL, 't' },
  { "request-memory", required_argument, NULL, OPT_REQUEST_MEMORY },
  { "run", required_argument, NULL, OPT_RUN },
  { "nbdkit", no_argument, NULL, OPT_NBDKIT },
  { "reconnect", required_argument, NULL, OPT_RECONNECT },
  { "exit-with-parent", no_argument, NULL, OPT_EXIT_WITH_PARENT },
  { "user", required_argument, NULL, 'u' },
  { "group", required_argument, NULL, 'g' },
  { "log", required_argument, NULL, OPT_LOG },
  { "debug", required_argument, NULL, 'D' },
  { "verbose", no_argument, NULL, 'v' },
  { "version", no_argument, NULL, 'V' },
  { "help", no_argument, NULL, OPT_HELP },
  { NULL, 0, NULL, 0 },
};

#define die(...) \
  do { \
    log_error (__VA_ARGS__); \
    exit (1); \
  } while (0)

static unsigned
parse_timeout (const char *option, const char *value)
{
  unsigned long long n, unit = 0;
  char *end;

  errno = 0;
  n = strtoull (value, &end, 10);
  if (isdigit ((unsigned char) *value) && errno == 0) {
    if (strcmp (end, "ms") == 0)
      unit = 1;
    else if (strcmp (end, "s") == 0 || (*end == '\0' && n == 0))
      unit = 1000;
  }
  if (unit == 0)
    die ("--%s %s is not a time like 500ms or 2s", option, value);
  if (n > INT_MAX / unit)
    die ("--%s %s is longer than the longest, %ds", option, value,
         INT_MAX / 1000);
  return n * unit;
}

static uint64_t
parse_request_memory (const char *value)
{
  const char *why;
  uint64_t n;

  if (size_parse (value, &n, &why) == -1)
    die ("--request-memory %s %s", value, why);
  if (n < BUDGET_MIN || n > INT64_MAX / 2)
    die ("--request-memory %s is less than 256M, or far too large", value);
  return n;
}

static unsigned
parse_threads (const char *value)
{
  unsigned long n;
  char *end;

  errno = 0;
  n = strtoul (value, &end, 10);
  if (!isdigit ((unsigned char) *value) || *end || errno || n < 1 ||
      n > 1024)
    die ("--threads %s is not a number from 1 to 1024", value);
  return n;
}

static enum tls_mode
parse_tls (const char *value)
{
  if (strcmp (value, "off") == 0)
    return TLS_OFF;
  if (strcmp (value, "on") == 0)
    return TLS_ON;
  if (strcmp (value, "require") != 0)
    die ("--tls %s is neither off nor on nor require", value);
  return TLS_REQUIRE;
}

static void
check_tls (struct options *o, bool mode_given)
{
  if (o->tls_psk && o->tls_certificates)
    die ("--tls-psk and --tls-certificates exclude each other");
  if (o->tls_psk && o->tls_verify_peer)
    die ("--tls-verify-peer is for certificates: with --tls-psk every client "
         "has shown that it has a key");
  /* As nbdkit has it: who names keys wants them used. */
  if (!mode_given && (o->tls_psk || o->tls_certificates))
    o->tls = TLS_ON;
  if (!mode_given && o->tls_verify_peer && o->tls == TLS_OFF)
    die ("--tls-verify-peer needs --tls=on or --tls=require");
}

static void
check_name (const char *name)
{
  size_t n = strlen (name), m = strlen (TABLE_EXPORT_SUFFIX), i, k;

  for (i = 0; i < n; i += k)
    if ((k = utf8_length ((const unsigned char *) name + i)) == 0)
      die ("--exportname is not UTF-8 from its byte %zu on, which names of "
           "NBD are", i + 1);
  if (n + m > NBD_MAX_STRING)
    die ("--exportname is longer than %zu bytes", NBD_MAX_STRING - m);
  if (strcmp (name, TABLE_EXPORT_NAME) == 0 ||
      (n >= m && strcmp (name + n - m, TABLE_EXPORT_SUFFIX) == 0))
    die ("--exportname %s is what a zone table is called", name);
}

static void
check_together (const struct options *o)
{
  if (o->unix_path && (o->port || o->address || o->vsock))
    die ("--unix and --%s exclude each other",
         o->port ? "port" : o->address ? "ipaddr" : "vsock");
  if (o->vsock && o->address)
    die ("--vsock and --ipaddr exclude each other");
  if (o->unix_path && strcmp (o->unix_path, "-") == 0 && o->run == NULL)
    die ("--unix - is for --run: nobody else would know where the socket is");
}

/* What was asked for is printed. */
static _Noreturn void
end (void)
{
  if (fflush (stdout) == EOF || ferror (stdout))
    die ("standard output: %s", strerror (errno));
  exit (0);
}

static void
parse_debug (const char *arg)
{
  struct zone_error err;

  if (strcmp (arg, "help") == 0) {
    debug_help (stdout);
    end ();
  }
  if (debug_set (arg, &err) == -1)
    die ("%s", err.text);
}

static enum log_where
parse_log (const char *value)
{
  if (strcmp (value, "stderr") == 0)
    return LOG_TO_STDERR;
  if (strcmp (value, "syslog") == 0)
    return LOG_TO_SYSLOG;
  if (strcmp (value, "null") != 0)
    die ("--log %s is neither stderr nor syslog nor null", value);
  return LOG_TO_NULL;
}

/* Such as of a script's variable that was not set.  An export may have no
 * name, and a command may do nothing. */
static void
check_argument (int c)
{
  const struct option *o;

  if (optarg == NULL || *optarg || c == ':' || c == 'e' || c == OPT_RUN)
    return;
  for (o = long_options; o->name; o++)
    if (o->val == c)
      die ("--%s has an empty argument", o->name);
}

/* One of each: the last one alone would be a surprise. */
static const char *
only (const char *option, const char *before, const char *value)
{
  if (before)
    die ("--%s %s and --%s %s: give one", option, before, option, value);
  return value;
}

static void
parse_disk (const char *arg, struct options *o)
{
  struct zone_error err;

  if (strncmp (arg, "memory:", 7) != 0) {
    if (*arg == '\0')
      die ("the image has no name");
    if (nbd_store_is_uri (arg)) {
      o->uri = arg;
      return;
    }
    o->image = arg;
    return;
  }
  if (disk_spec_parse (arg + 7, &o->geometry, &err) == -1)
    die ("%s", err.text);
}

/* nbdkit, told what it needs for being our server: to end with us, and a
 * thread for each write that it may have to park. */
static void
parse_nbdkit (char *args[], int n, struct options *o)
{
  static char *const first[] = {
    (char *) "nbdkit", (char *) "--exit-with-parent", (char *) "-t",
    (char *) "64",
  };
  const int nfirst = sizeof first / sizeof first[0];
  char **command = calloc (nfirst + n + 1, sizeof *command);

  if (n == 0)
    die ("--nbdkit: give nbdkit's arguments behind --, such as: zoned "
         "disk.zbd");
  if (command == NULL)
    die ("no memory for nbdkit's arguments");
  memcpy (command, first, sizeof first);
  memcpy (command + nfirst, args, n * sizeof *command);
  o->command = command;
  /* It is our child, and its files may be named from this folder. */
  o->foreground = true;
}

void
options_parse (int argc, char *argv[], struct options *o)
{
  static const struct zdisk_options disk = ZDISK_OPTIONS_DEFAULT;
  long cpus = sysconf (_SC_NPROCESSORS_ONLN);
  struct zone_error err;
  bool tls_given = false, reconnect_given = false;
  bool nbdkit = false;
  int c;

  memset (o, 0, sizeof *o);
  o->disk = disk;
  o->request_memory = BUDGET_DEFAULT;
  o->name = "";
  o->reconnect = 30000;
  o->threads = cpus > 0 && cpus < 1024 ? cpus : 1;
  opterr = 0;
  while ((c = getopt_long (argc, argv, ":U:p:i:e:rfP:t:u:g:D:vV", long_options,
                           NULL)) != -1) {
    check_argument (c);
    switch (c) {
    case 'U': o->unix_path = only ("unix", o->unix_path, optarg); break;
    case 'p': o->port = only ("port", o->port, optarg); break;
    case 'i': o->address = only ("ipaddr", o->address, optarg); break;
    case OPT_VSOCK: o->vsock = true; break;
    case 'e':
      check_name (optarg);
      o->name = optarg;
      break;
    case 'r': o->readonly = true; break;
    case OPT_TLS:
      o->tls = parse_tls (optarg);
      tls_given = true;
      break;
    case OPT_TLS_CERTIFICATES: o->tls_certificates = optarg; break;
    case OPT_TLS_PSK: o->tls_psk = optarg; break;
    case OPT_TLS_VERIFY_PEER: o->tls_verify_peer = true; break;
    case 'f': o->foreground = true; break;
    case 'P': o->pidfile = optarg; break;
    case 't': o->threads = parse_threads (optarg); break;
    case 'u': o->identity.user = optarg; break;
    case 'g': o->identity.group = optarg; break;
    case OPT_LOG: o->log = parse_log (optarg); break;
    case 'D': parse_debug (optarg); break;
    case 'v': log_is_verbose = true; break;
    case 'V':
      printf ("znbd-server %s\n", PACKAGE_VERSION);
      end ();
    case OPT_REORDER_TIMEOUT:
      o->disk.reorder_timeout = parse_timeout ("reorder-timeout", optarg);
      break;
    case OPT_NBDKIT: nbdkit = true; break;
    case OPT_RECONNECT:
      o->reconnect = parse_timeout ("reconnect", optarg);
      reconnect_given = true;
      break;
    case OPT_REQUEST_MEMORY:
      o->request_memory = parse_request_memory (optarg);
      break;
    case OPT_GAP:
      if (strcmp (optarg, "zero") != 0 && strcmp (optarg, "error") != 0)
        die ("--gap %s is neither error nor zero", optarg);
      o->disk.gap_zero = strcmp (optarg, "zero") == 0;
      break;
    case OPT_RUN: o->run = optarg; break;
    case OPT_EXIT_WITH_PARENT: o->exit_with_parent = true; break;
    case OPT_HELP:
      fputs (help, stdout);
      end ();
    case ':':
      die ("%s needs an argument, see --help", argv[optind - 1]);
    default:
      die ("unknown option %s, see --help", argv[optind - 1]);
    }
  }
  if (nbdkit)
    parse_nbdkit (argv + optind, argc - optind, o);
  else if (argc - optind != 1)
    die (argc == optind ? "what is to be served? Give an IMAGE, an NBD-URI or "
         "memory:SIZE,zone-size=SIZE"
         : "give one IMAGE, NBD-URI or memory:SIZE,zone-size=SIZE, not "
         "several");
  else
    parse_disk (argv[optind], o);
  if (o->disk.park_total_max > BUDGET_PARKED (o->request_memory))
    o->disk.park_total_max = BUDGET_PARKED (o->request_memory);
  if (reconnect_given && o->uri == NULL && o->command == NULL)
    die ("--reconnect is for the disk of another server: an NBD-URI or "
         "--nbdkit");
  check_together (o);
  check_tls (o, tls_given);
  if (identity_find (&o->identity, &err) == -1)
    die ("%s", err.text);
}
