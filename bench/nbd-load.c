/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-load: keeps an NBD server busy and says how busy it was.  See load.h
 * for what it is built for.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "load.h"
#include "size.h"

static const char help[] =
  "usage: nbd-load [OPTION...] (--unix PATH | --tcp HOST:PORT)\n"
  "\n"
  "Loads an NBD server and prints what came of it as JSON.\n"
  "\n"
  "  --export NAME          what to ask for (default: the empty name)\n"
  "  --write                write (default: read)\n"
  "  --fua                  writes are durable when answered\n"
  "  --flush                each write is followed by a flush, and done when\n"
  "                         that is answered\n"
  "  --append               writes go to where a zone's pointer is, and tell\n"
  "                         where that was: all connections to the same\n"
  "                         zone, to the next one when it is full\n"
  "  --random               anywhere (default: each connection goes through\n"
  "                         its share in order; writes end there)\n"
  "  --zone-size SIZE       connections take zones in turn and go through\n"
  "                         each in order\n"
  "  --zone-part SIZE       so much of each zone (default: all)\n"
  "  --block-size SIZE      of a request (default: 4k)\n"
  "  --offset SIZE, --length SIZE   the part of the disk (default: all)\n"
  "  --depth N              requests in flight a connection (default: 32)\n"
  "  --connections N        (default: 1)\n"
  "  --seconds S            how long (default: 1, if there is no --count)\n"
  "  --count N              so many requests in all\n"
  "  --structured           ask for structured replies\n"
  "  --tls                  by STARTTLS; the server's certificate is not\n"
  "                         looked at\n"
  "  --tls-certificates FOLDER   with client-cert.pem and client-key.pem,\n"
  "                         for servers that ask for one\n";

/* A histogram of latencies: 64 steps for each power of two of ns, which is
 * within 1.6 %. */
#define STEPS 64
static uint64_t histogram[64 * STEPS];
static uint64_t longest;

void
load_count (uint64_t ns)
{
  unsigned power;

  if (ns > longest)
    longest = ns;
  if (ns < STEPS) {
    histogram[ns]++;
    return;
  }
  power = 63 - __builtin_clzll (ns) - 6;
  histogram[(power + 1) * STEPS + (ns >> power) - STEPS]++;
}

/* us */
static double
percentile (uint64_t done, double part)
{
  uint64_t wanted = done * part, sum = 0, ns;
  unsigned i;

  for (i = 0; i < 64 * STEPS; i++) {
    sum += histogram[i];
    if (sum > wanted)
      break;
  }
  if (i < STEPS)
    ns = i;
  else
    ns = (uint64_t) (STEPS + i % STEPS) << (i / STEPS - 1);
  return ns / 1000.0;
}

static uint64_t
parse_size (const char *name, const char *text)
{
  const char *why;
  uint64_t n;

  if (size_parse (text, &n, &why) == -1)
    load_die ("--%s %s %s", name, text, why);
  return n;
}

static unsigned
parse_number (const char *name, const char *text, unsigned max)
{
  char *end;
  unsigned long n = strtoul (text, &end, 10);

  if (*text < '0' || *text > '9' || *end || n < 1 || n > max)
    load_die ("--%s %s is not a number from 1 to %u", name, text, max);
  return n;
}

static double
parse_seconds (const char *text)
{
  char *end;
  double s = strtod (text, &end);

  if (*end || end == text || !(s > 0 && s < 1e6))
    load_die ("--seconds %s is not a time in seconds", text);
  return s;
}

static void
parse_tcp (struct load *load, char *text)
{
  char *colon = strrchr (text, ':');

  if (colon == NULL)
    load_die ("--tcp %s is not HOST:PORT", text);
  *colon = '\0';
  load->host = text;
  load->port = colon + 1;
}

static void
parse (int argc, char *argv[], struct load *load)
{
  enum { UNIX, TCP, EXPORT, WRITE, FUA, FLUSH, APPEND, RANDOM, ZONE_SIZE,
         ZONE_PART, BLOCK_SIZE, OFFSET, LENGTH, DEPTH, CONNECTIONS, SECONDS,
         COUNT, STRUCTURED, TLS, TLS_CERTIFICATES, HELP };
  static const struct option options[] = {
    [UNIX] = { "unix", required_argument, NULL, 1 + UNIX },
    [TCP] = { "tcp", required_argument, NULL, 1 + TCP },
    [EXPORT] = { "export", required_argument, NULL, 1 + EXPORT },
    [WRITE] = { "write", no_argument, NULL, 1 + WRITE },
    [FUA] = { "fua", no_argument, NULL, 1 + FUA },
    [FLUSH] = { "flush", no_argument, NULL, 1 + FLUSH },
    [APPEND] = { "append", no_argument, NULL, 1 + APPEND },
    [RANDOM] = { "random", no_argument, NULL, 1 + RANDOM },
    [ZONE_SIZE] = { "zone-size", required_argument, NULL, 1 + ZONE_SIZE },
    [ZONE_PART] = { "zone-part", required_argument, NULL, 1 + ZONE_PART },
    [BLOCK_SIZE] = { "block-size", required_argument, NULL, 1 + BLOCK_SIZE },
    [OFFSET] = { "offset", required_argument, NULL, 1 + OFFSET },
    [LENGTH] = { "length", required_argument, NULL, 1 + LENGTH },
    [DEPTH] = { "depth", required_argument, NULL, 1 + DEPTH },
    [CONNECTIONS] = { "connections", required_argument, NULL,
                      1 + CONNECTIONS },
    [SECONDS] = { "seconds", required_argument, NULL, 1 + SECONDS },
    [COUNT] = { "count", required_argument, NULL, 1 + COUNT },
    [STRUCTURED] = { "structured", no_argument, NULL, 1 + STRUCTURED },
    [TLS] = { "tls", no_argument, NULL, 1 + TLS },
    [TLS_CERTIFICATES] = { "tls-certificates", required_argument, NULL,
                           1 + TLS_CERTIFICATES },
    [HELP] = { "help", no_argument, NULL, 1 + HELP },
    { NULL, 0, NULL, 0 },
  };
  int c, i;

  *load = (struct load) {
    .export = "", .block_size = 4096, .depth = 32, .connections = 1,
  };
  while ((c = getopt_long (argc, argv, "", options, &i)) != -1)
    switch (c - 1) {
    case UNIX: load->unix_path = optarg; break;
    case TCP: parse_tcp (load, optarg); break;
    case EXPORT: load->export = optarg; break;
    case WRITE: load->write = true; break;
    case FUA: load->fua = true; break;
    case FLUSH: load->write = load->flush = true; break;
    case APPEND:
      load->write = load->append = load->structured = true;
      load->context = "x-zbd:append";
      break;
    case RANDOM: load->random = true; break;
    case ZONE_SIZE: load->zone_size = parse_size ("zone-size", optarg); break;
    case ZONE_PART: load->zone_part = parse_size ("zone-part", optarg); break;
    case BLOCK_SIZE:
      load->block_size = parse_size ("block-size", optarg);
      break;
    case OFFSET: load->offset = parse_size ("offset", optarg); break;
    case LENGTH: load->length = parse_size ("length", optarg); break;
    case DEPTH: load->depth = parse_number ("depth", optarg, 65536); break;
    case CONNECTIONS:
      load->connections = parse_number ("connections", optarg, 65536);
      break;
    case SECONDS: load->seconds = parse_seconds (optarg); break;
    case COUNT: load->count = parse_number ("count", optarg, UINT32_MAX);
      break;
    case STRUCTURED: load->structured = true; break;
    case TLS: load->tls = true; break;
    case TLS_CERTIFICATES: load->tls = true; load->certificates = optarg;
      break;
    case HELP:
      fputs (help, stdout);
      exit (0);
    default:
      exit (1);
    }
  if (optind < argc)
    load_die ("%s is no option, see --help", argv[optind]);
  if (!load->unix_path == !load->host)
    load_die ("one of --unix and --tcp is needed, see --help");
  if (load->block_size < 512 || load->block_size > NBD_MAX_DATA)
    load_die ("--block-size is not from 512 to 32M");
  if (load->count == 0 && load->seconds == 0)
    load->seconds = 1;
  if (load->append && (load->flush || load->random))
    load_die ("--append goes with neither --flush nor --random");
  if (load->append && load->zone_size < load->depth * load->block_size)
    load_die ("--append needs a --zone-size of at least --depth times "
              "--block-size");
}

/* The part of the disk that is to be used. */
static void
check_range (struct load *load, uint64_t size)
{
  if (load->offset > size || load->length > size - load->offset)
    load_die ("--offset and --length reach past the disk's end, %" PRIu64,
              size);
  if (load->length == 0)
    load->length = size - load->offset;
  if (load->length / load->connections < load->block_size)
    load_die ("there is less than one block for each connection");
  if (load->zone_size && load->zone_size < load->block_size)
    load_die ("--zone-size is less than --block-size");
  if (load->zone_size && !load->append && !load->random &&
      load->length / load->zone_size < load->connections)
    load_die ("there are fewer zones than connections");
  if (load->zone_part == 0)
    load->zone_part = load->zone_size;
  if (load->zone_part > load->zone_size ||
      load->zone_part < (load->zone_size ? load->block_size : 0))
    load_die ("--zone-part is not from --block-size to --zone-size");
  if (load->zone_size > load->length)
    load_die ("there is less than one zone");
}

static void
watch (int ep, struct load_conn *c, uint32_t events)
{
  struct epoll_event event = { .events = events, .data.ptr = c };

  if (events == c->poll)
    return;
  if (epoll_ctl (ep, c->poll == 0 ? EPOLL_CTL_ADD
                 : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, c->fd,
                 &event) == -1)
    load_die ("epoll_ctl: %s", strerror (errno));
  c->poll = events;
}

static void
run (struct load *load, struct load_conn *conns)
{
  int ep = epoll_create1 (EPOLL_CLOEXEC), n, i;
  struct epoll_event events[64];
  unsigned k, left = load->connections;

  if (ep == -1)
    load_die ("epoll_create1: %s", strerror (errno));
  load->started = load_now ();
  if (load->seconds > 0)
    load->stop_at = load->started + (uint64_t) (load->seconds * 1e9);
  for (k = 0; k < load->connections; k++) {
    watch (ep, &conns[k], lc_run (&conns[k]));
    if (conns[k].poll == 0)
      left--;
  }
  while (left > 0) {
    n = epoll_wait (ep, events, 64, 30000);
    if (n == 0)
      load_die ("the server has not answered for 30 seconds");
    if (n == -1 && errno != EINTR)
      load_die ("epoll_wait: %s", strerror (errno));
    for (i = 0; i < n; i++) {
      struct load_conn *c = events[i].data.ptr;

      watch (ep, c, lc_run (c));
      if (c->poll == 0)
        left--;
    }
  }
  close (ep);
}

static void
print (const struct load *load, const struct load_conn *conns, double s)
{
  uint64_t slowest = UINT64_MAX;
  char *tls = load->tls ? lt_describe (conns[0].tls) : NULL;
  struct rusage usage;
  double cpu;
  unsigned i;

  for (i = 0; i < load->connections; i++)
    if (conns[i].done < slowest)
      slowest = conns[i].done;
  getrusage (RUSAGE_SELF, &usage);
  cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
    (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  printf ("{ \"requests\": %" PRIu64 ", \"seconds\": %.6f, "
          "\"requests_per_second\": %.1f, \"mib_per_second\": %.2f,\n"
          "  \"client_cpu_us\": %.3f, \"slowest_connection\": %.3f,\n"
          "  \"latency_us\": { \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, "
          "\"p99.9\": %.1f, \"max\": %.1f },\n  \"connections\": [",
          load->done, s, load->done / s,
          load->done * load->block_size / s / (1 << 20),
          cpu * 1e6 / load->done,
          (double) slowest * load->connections / load->done,
          percentile (load->done, 0.5), percentile (load->done, 0.9),
          percentile (load->done, 0.99), percentile (load->done, 0.999),
          longest / 1000.0);
  for (i = 0; i < load->connections; i++)
    printf ("%s%" PRIu64, i > 0 ? ", " : "", conns[i].done);
  printf ("]");
  if (tls)
    printf (",\n  \"tls\": \"%s\"", tls);
  printf (" }\n");
  free (tls);
}

/* Says goodbye, as far as the server takes it. */
static void
disconnect (struct load_conn *c)
{
  struct proto_request disc = { .magic = htobe32 (NBD_REQUEST_MAGIC),
                                .type = htobe16 (NBD_CMD_DISC) };
  struct iovec iov = { &disc, sizeof disc };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

  if ((c->tls ? lt_send (c->tls, &msg) : sendmsg (c->fd, &msg, MSG_NOSIGNAL))
      != sizeof disc)
    load_die ("goodbye: %s", strerror (errno));
  close (c->fd);
}

int
main (int argc, char *argv[])
{
  struct load_conn *conns;
  struct load load;
  uint64_t size = 0;
  unsigned i;
  double s;

  parse (argc, argv, &load);
  conns = calloc (load.connections, sizeof *conns);
  load.data = malloc (load.block_size);
  if (conns == NULL || load.data == NULL)
    load_die ("no memory");
  memset (load.data, 'z', load.block_size);
  for (i = 0; i < load.connections; i++) {
    lc_init (&conns[i], &load, i);
    size = load_connect (&load, &conns[i]);
  }
  check_range (&load, size);
  load.taken = calloc (load.length / load.block_size / 8 + 1, 1);
  if (load.taken == NULL)
    load_die ("no memory");
  run (&load, conns);
  s = (load_now () - load.started) / 1e9;
  for (i = 0; i < load.connections; i++)
    disconnect (&conns[i]);
  if (load.done == 0)
    load_die ("there was nothing to do");
  print (&load, conns, s);
  for (i = 0; i < load.connections; i++)
    lc_free (&conns[i]);
  free (conns);
  free (load.data);
  free (load.taken);
  return 0;
}
