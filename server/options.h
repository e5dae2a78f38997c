/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line. */

#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>

#include "disk.h"
#include "identity.h"
#include "log.h"
#include "store.h"

enum tls_mode { TLS_OFF, TLS_ON, TLS_REQUIRE };

struct options {
  const char *image;            /* a path, or NULL: */
  const char *uri;              /* another server's, or NULL: */
  char **command;               /* another server to start, to be freed; or
                                 * NULL: a disk in memory */
  unsigned reconnect;           /* ms: to another server that went */
  struct store_geometry geometry;       /* of the disk in memory */
  struct zdisk_options disk;
  const char *unix_path;        /* "-": a temporary one */
  const char *port;
  const char *address;
  bool vsock;
  const char *name;             /* of the disk's export */
  const char *pidfile;
  const char *run;
  enum tls_mode tls;
  const char *tls_certificates; /* a folder, or NULL: the default one */
  const char *tls_psk;          /* a file of keys, in place of certificates */
  bool tls_verify_peer;
  bool readonly;
  bool foreground;
  bool exit_with_parent;
  enum log_where log;
  struct identity identity;
  unsigned threads;
  uint64_t request_memory;      /* bytes, see budget.h */
};

/* Fills *o, or ends the program: with 0 where --help or --version asked for
 * it, with 1 and a message where something is wrong. */
void options_parse (int argc, char *argv[], struct options *o);

/* disk-spec.c: "SIZE,zone-size=SIZE,..." of a disk in memory.  Returns 0,
 * or -1 with a text. */
int disk_spec_parse (const char *spec, struct store_geometry *g,
                     struct zone_error *err);

#endif /* SERVER_OPTIONS_H */
