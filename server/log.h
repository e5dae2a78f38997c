/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages for people: on standard error, one line each. */

#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>

extern bool log_is_verbose;     /* set before there are threads */

void log_error (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));
/* With -v alone. */
void log_verbose (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));

#endif /* SERVER_LOG_H */
