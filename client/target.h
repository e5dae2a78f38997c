/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk that a subcommand's operand names: behind an NBD URI, through
 * libznbd, or an image that is opened here and now.
 *
 * Functions that fail have said why on standard error.
 */

#ifndef TARGET_H
#define TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libznbd.h"

struct target;
struct zdisk_client;

/* Whether an operand is an NBD URI: nbd: or nbds:, perhaps with
 * +TRANSPORT. */
bool target_is_uri (const char *operand);

/* Opens what operand names.  NULL on error. */
struct target *target_open (const char *operand, bool readonly);

/* From now on says on standard error which way things are done (contexts
 * or zone table, and why): once for each way. */
void target_set_verbose (struct target *t);

/* The disk behind a URI, for libznbd's asynchronous calls; NULL: it is an
 * image.  target_changed is to be called after those: closing is to flush,
 * and the way is to be told. */
struct znbd_disk *target_remote (struct target *t);
void target_changed (struct target *t, enum znbd_way what);

/* The disk of an image or a device; NULL: it is a URI. */
struct zdisk_client *target_client (struct target *t);

/* Makes changes durable and closes.  0 or -1. */
int target_close (struct target *t);

/* Closes after an error that has been told: what cannot be made durable any
 * more is nothing new. */
void target_abandon (struct target *t);

const struct znbd_geometry *target_geometry (const struct target *t);

/* Whether changes would be refused; of an image that was opened for
 * reading it says what the file's mode says. */
bool target_is_read_only (const struct target *t);

/* As znbd_report. */
int64_t target_report (struct target *t, uint32_t first, uint32_t count,
                       struct znbd_zone *zones);

/* Does op to count zones from first on; *done counts those done, also on
 * error. */
int target_manage (struct target *t, enum znbd_zone_op op, uint32_t first,
                   uint32_t count, uint32_t *done);
int target_manage_all (struct target *t, enum znbd_zone_op op);

/* Data.  Like the above these return 0, or -1 with errno set after a
 * message that explains it.  length is at most what NBD takes, 32 MiB.
 * target_append sets *offset to where the data went. */
int target_read (struct target *t, void *buf, size_t length,
                 uint64_t offset);
int target_write (struct target *t, const void *buf, size_t length,
                  uint64_t offset);
int target_append (struct target *t, uint32_t zone, const void *buf,
                   size_t length, uint64_t *offset);
int target_flush (struct target *t);

#endif /* TARGET_H */
