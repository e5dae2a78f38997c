/* SPDX-License-Identifier: BSD-3-Clause */
/* The sockets that clients connect to. */

#ifndef SERVER_LISTEN_H
#define SERVER_LISTEN_H

#include <sys/types.h>

#include "error.h"
#include "options.h"

#define LISTEN_MAX 64

struct listener {
  int fds[LISTEN_MAX];
  unsigned n;
  bool activated;               /* sockets came with the process */
  char *unix_path;              /* to be removed in the end, or NULL */
  dev_t unix_dev;               /* which file that is, */
  ino_t unix_ino;               /* while nobody has put another one there */
  char *folder;                 /* of a temporary socket, or NULL */
  bool vsock;
  char *port;                   /* as a number, where it has one */
  char *uri;                    /* of the disk, for --run */
};

/* Takes the sockets of socket activation where there are any, or makes them
 * as the options say.  Returns 0, or -1 with the error. */
int listener_open (struct listener *l, const struct options *o,
                   struct zone_error *err);

/* Gives a Unix socket to whom the server is going to run as. */
int listener_give (const struct listener *l, const struct identity *id,
                   struct zone_error *err);

/* Takes a connection of a socket that is ready; -1 where there is none. */
int listener_accept (int fd);

/* Nobody connects any more. */
void listener_close (struct listener *l);

#endif /* SERVER_LISTEN_H */
