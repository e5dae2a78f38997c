/* SPDX-License-Identifier: BSD-3-Clause */
/* libznbd: the zones of a zoned disk that is served over NBD.
 *
 * Data goes through libnbd as with any disk; this library adds what a
 * zoned disk has besides: its geometry, the report of its zones, and
 * opening, closing, finishing and resetting them.
 *
 * Units: offsets and lengths are bytes, zones are numbered from 0.  The
 * structs and constants are those of <znbd-types.h>.
 *
 * Errors: a function that fails returns -1 (or NULL) and leaves a text and
 * an errno for its thread; see znbd_get_error.  Others leave both alone.
 *
 * Threads: a disk may be used from several threads; calls on one disk wait
 * for each other.  znbd_close comes last.  The library starts no threads
 * and changes no signal's handling; with TCP a program will want to ignore
 * SIGPIPE, as with libnbd.
 *
 * Link with `pkg-config --cflags --libs libznbd`.
 */

#ifndef LIBZNBD_H
#define LIBZNBD_H

#include <stddef.h>
#include <stdint.h>

#include <znbd-types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nbd_handle;              /* <libnbd.h> */
struct znbd_disk;

/* ---- errors ---- */

/* What went wrong in the calling thread's last call that failed: one line
 * without a newline, or NULL.  Valid until the thread's next call. */
const char *znbd_get_error (void);

/* Its errno, 0 where there is none: EPROTO where the server's zone table
 * makes no sense, EINVAL for wrong arguments, for refusals those of the
 * zone model (see znbd_manage), else what libnbd said. */
int znbd_get_errno (void);

/* ---- connecting ---- */

/* Allow the URI to name local files (tls-certificates, tls-psk-file).  Not
 * for URIs that come from strangers: see nbd_set_uri_allow_local_file(3). */
#define ZNBD_ALLOW_LOCAL_FILES 1u

/* Connects to the zones of the disk that uri names, as nbd_connect_uri(3)
 * knows it: nbd, nbds, nbd+unix, nbds+unix, nbd+vsock, nbds+vsock.  The
 * URI is the disk's own; its zone table export ("zones" for the default
 * export, "NAME/zones" for NAME) is found from it.  One that names a zone
 * table export is taken as well.  flags: 0 or ZNBD_ALLOW_LOCAL_FILES. */
struct znbd_disk *znbd_connect_uri (const char *uri, unsigned flags);

/* The same over a connection which the caller has made with libnbd to the
 * zone table export, and is ready.  The handle stays the caller's: it must
 * outlive the disk and be closed after znbd_close.  While a call is under
 * way no other thread may poll the handle.  flags: 0. */
struct znbd_disk *znbd_connect_handle (struct nbd_handle *nbd,
                                       unsigned flags);

/* Ends the connection that znbd_connect_uri made and frees the disk.  NULL
 * is allowed. */
void znbd_close (struct znbd_disk *disk);

/* ---- the disk ---- */

/* Fills *geometry with what the server said when the connection was made.
 * zone_capacity is 0 over the zone table: look at each zone's.  A client
 * that connects again compares uuid (the same disk?) and epoch (was what
 * was not flushed lost?).  Returns 0. */
int znbd_get_geometry (struct znbd_disk *disk,
                       struct znbd_geometry *geometry);

/* 1 where the server takes no changes from us, else 0. */
int znbd_is_read_only (struct znbd_disk *disk);

/* Fills zones[0] up to zones[count - 1] from zone number first on.
 * Returns how many were filled: fewer than count at the disk's end, 0 where
 * first is the number of zones or more; -1 on error, and then what is in
 * zones is undefined.
 *
 * Each zone is a snapshot; neighbours may be of different moments.  The
 * numbers have been checked: zones follow each other without gaps, and
 * start <= wp <= start + capacity where the condition is empty, open or
 * closed. */
int64_t znbd_report (struct znbd_disk *disk, uint32_t first, uint32_t count,
                     struct znbd_zone *zones);

/* ---- zone management ---- */

/* Make it durable before answering.  Otherwise an operation is durable
 * after the next flush, on this or any other connection to the disk. */
#define ZNBD_FUA 1u

/* Does op to count zones (1 or more) from zone number first on, in order.
 * The first zone that refuses ends it with -1; earlier ones stay done.
 * *done, unless done is NULL, is set to the number of zones done.  flags:
 * 0 or ZNBD_FUA.
 *
 * An operation waits for writes to its zone which the server has taken.
 * Explicitly open zones stay open when the connection ends.
 *
 * errno of refusals: EPERM read-only export or zone, EIO offline zone,
 * EOVERFLOW the active or open limit, EINVAL all else (the zone's type or
 * condition forbids it, wrong arguments).  The text is that of
 * znbd_explain.  Where several zones are asked for, which of them refused
 * is found from the report: exact unless others change the same zones at
 * the same time, when *done may be too small. */
int znbd_manage (struct znbd_disk *disk, enum znbd_zone_op op,
                 uint32_t first, uint32_t count, unsigned flags,
                 uint32_t *done);

/* The ALL forms: opens all closed zones, closes all open ones, finishes
 * all open and closed ones (not the empty), resets all sequential zones;
 * read-only and offline zones are left out. */
int znbd_manage_all (struct znbd_disk *disk, enum znbd_zone_op op,
                     unsigned flags);

/* Makes everything durable that was answered before, data and zones. */
int znbd_flush (struct znbd_disk *disk);

/* ---- explaining refusals ---- */

/* Why a request was refused, as far as the report tells now. */
enum znbd_refusal {
  ZNBD_REFUSAL_UNKNOWN = 0,     /* nothing in the report forbids it (now) */
  ZNBD_REFUSAL_EXPORT_READ_ONLY = 1,
  ZNBD_REFUSAL_BOUNDS = 2,      /* past the disk's end */
  ZNBD_REFUSAL_ALIGNMENT = 3,   /* no multiple of the granularity */
  ZNBD_REFUSAL_OFFLINE = 4,
  ZNBD_REFUSAL_ZONE_READ_ONLY = 5,
  ZNBD_REFUSAL_CONVENTIONAL = 6,/* the zone has no pointer to manage */
  ZNBD_REFUSAL_FULL = 7,
  ZNBD_REFUSAL_CAPACITY = 8,    /* past the zone's capacity */
  ZNBD_REFUSAL_POINTER = 9,     /* a write that is not at the pointer */
  ZNBD_REFUSAL_ACTIVE_LIMIT = 10,
  ZNBD_REFUSAL_OPEN_LIMIT = 11,
  ZNBD_REFUSAL_EMPTY = 12,      /* an empty zone has nothing to close */
};

/* Explains why op on a zone failed with error (an errno, 0: unknown).
 * NBD carries little more than an errno, and stock nbdkit not even all of
 * them, so this looks at the report: the zone's condition, where its
 * pointer stands, which limit is reached (both: the active limit).
 * Writes one line into text[size], cut to fit.  Returns an enum
 * znbd_refusal, or -1 where the report cannot be had.
 *
 * Asks for the report of the whole disk where limits matter. */
int znbd_explain (struct znbd_disk *disk, enum znbd_zone_op op,
                  uint32_t zone, int error, char *text, size_t size);

/* The same for a write of length bytes at offset which the caller sent to
 * the disk's own export. */
int znbd_explain_write (struct znbd_disk *disk, uint64_t offset,
                        uint64_t length, int error, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* LIBZNBD_H */
