/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages for people, one line each: on standard error, or where --log
 * says.
 */

#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>

/* All of it is set before there are threads. */
extern bool log_is_verbose;

enum log_where {
  LOG_DEFAULT,                  /* stderr; syslog in the background */
  LOG_TO_STDERR, LOG_TO_SYSLOG, LOG_TO_NULL,
};

/* Messages go there from now on; LOG_DEFAULT is standard error.  Where that
 * is systemd's journal, lines carry their priority. */
void log_to (enum log_where where);
bool log_is_on_stderr (void);

void log_error (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));
void log_line (const char *line);       /* the same, of one whole line */
/* With -v alone. */
void log_verbose (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));
/* A line of -D's. */
void log_debug (const char *line);

#endif /* SERVER_LOG_H */
