/* SPDX-License-Identifier: BSD-3-Clause */
/* How the server tells others that it is there: its pid file, whoever waits
 * for it to go into the background, and a service manager.
 */

#ifndef SERVER_BACKGROUND_H
#define SERVER_BACKGROUND_H

#include <stdbool.h>

#include "error.h"

/* Forks and returns in the child.  The parent ends with status 0 when
 * background_ready is called, and with 1 if the child ends before that, so
 * whatever fails meanwhile is still seen on the terminal. */
int background_enter (struct zone_error *err);

/* Lets the parent and the terminal go; nothing in the foreground. */
void background_ready (void);

/* Opens the pid file early, for it may not be writable. */
int pidfile_open (const char *path, struct zone_error *err);
int pidfile_write (int fd, const char *path, struct zone_error *err);

/* Takes systemd's NOTIFY_SOCKET out of the environment; true where there is
 * one.  notify sends a state such as READY=1 there; nothing where there is
 * none. */
bool notify_begin (void);
void notify (const char *state);

#endif /* SERVER_BACKGROUND_H */
