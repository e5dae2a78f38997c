/* SPDX-License-Identifier: BSD-3-Clause */
/* The nbd store: the disk of another NBD server, with its zones where it has
 * them.  The zones are that server's; the machine mirrors them. */

#ifndef ZONE_NBD_STORE_H
#define ZONE_NBD_STORE_H

#include <stdbool.h>

#include "error.h"
#include "store.h"

struct nbd_store_options {
  const char *uri;              /* the server's, or NULL: */
  char *const *command;         /* its command line, ending with NULL; it is
                                 * started by socket activation */
  unsigned reconnect;           /* ms: how long requests wait for a server
                                 * that went; 0: it is never sought again */
  void (*log) (const char *line);       /* lost, found again; may be NULL */
};

/* Whether an operand is a URI of NBD's. */
bool nbd_store_is_uri (const char *s);

/* Connects, and fetches the geometry and the report of all zones.  Nothing
 * is done for requests before the store's start. */
struct store *nbd_store_open (const struct nbd_store_options *options,
                              bool readonly, struct zone_error *err);

#endif /* ZONE_NBD_STORE_H */
