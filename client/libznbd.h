/* SPDX-License-Identifier: BSD-3-Clause */
/* libznbd: the zones of a zoned disk that is served over NBD.
 *
 * Data goes through libnbd as with any disk; this library adds what a
 * zoned disk has besides: its geometry, the report of its zones, opening,
 * closing, finishing and resetting them, and appends.
 *
 * It uses the server's x-zbd metadata contexts where they are offered, and
 * the zone table export otherwise.
 *
 * Units: offsets and lengths are bytes, zones are numbered from 0.  The
 * structs and constants are those of <znbd-types.h>.
 *
 * Errors: a function that fails returns -1 (or NULL) and leaves a text and
 * an errno for its thread; see znbd_get_error.  Others leave both alone.
 *
 * Threads: a disk may be used from several threads at once.  Calls may wait
 * for each other.  znbd_close comes last.  The library starts no threads,
 * so what is in flight makes progress only while some thread is in a call
 * that waits, or in znbd_aio_poll.  It changes no signal's handling; with
 * TCP a program will want to ignore SIGPIPE, as with libnbd.
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

/* Connects to the disk that uri names, as nbd_connect_uri(3) knows it: nbd,
 * nbds, nbd+unix, nbds+unix, nbd+vsock, nbds+vsock.  Where the export
 * offers the x-zbd contexts they are used, else its zone table export,
 * which is found from it ("zones" for the default export, "NAME/zones" for
 * NAME).  A URI that names a zone table export is taken as well, and then
 * the table alone is used.  More connections are made when they are needed
 * (the first append, the first reset...) and kept.  flags: 0 or
 * ZNBD_ALLOW_LOCAL_FILES. */
struct znbd_disk *znbd_connect_uri (const char *uri, unsigned flags);

/* The same over a connection which the caller has made with libnbd:
 *
 * - in option mode (nbd_set_opt_mode, and nbd_aio_is_negotiating is true)
 *   with the export's name set: contexts or zone table are chosen as above;
 * - ready, to the zone table export;
 * - ready, to the disk's export with x-zbd:zones negotiated.
 *
 * More connections are made by what nbd_get_uri(3) says of the handle;
 * where that cannot be had, or does not do (a server on a socket pair, TLS
 * with certificates of its own), what needs them fails with ENOTSUP or
 * libnbd's error; the third form needs one to begin with.
 *
 * The handle stays the caller's: it must outlive the disk and be closed
 * after znbd_close, which waits for what is in flight.  It may be used for
 * data, and by other threads; see znbd_get_nbd_handle.  flags: 0. */
struct znbd_disk *znbd_connect_handle (struct nbd_handle *nbd,
                                       unsigned flags);

/* Ends the connections that were made here and frees the disk.  Commands
 * in flight are forgotten: their callbacks are not called, their free is.
 * NULL is allowed. */
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

/* 1 where one of its connections has ended (seen by a call that failed), so
 * that calls which need it fail from now on, or where the last one that a
 * call needed could not be made: connect again.  Else 0, also where the
 * server has refused something. */
int znbd_is_broken (struct znbd_disk *disk);

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

/* The libnbd handle of the connection to the disk's own export, for its
 * data: made now where the zone table was all that was needed.  NULL with
 * an error where that fails.  It stays the disk's: do not close it, shut it
 * down or change its options.  Every thread may use it at any time.  Where
 * commands are in flight on it (asynchronous reports), a program's own
 * nbd_poll(3) drives them too, and znbd_aio_poll drives what the program
 * has in flight.  Use nbd_poll and no nbd_aio_notify_read(3) on it: libnbd
 * stalls when it is told to read what another thread has read already. */
struct nbd_handle *znbd_get_nbd_handle (struct znbd_disk *disk);

/* Which way the last report, zone management or append went, and why: a
 * static line for people, NULL where there was none yet. */
enum znbd_way {
  ZNBD_WAY_REPORT = 0,
  ZNBD_WAY_MANAGE = 1,
  ZNBD_WAY_APPEND = 2,
};
const char *znbd_get_way (struct znbd_disk *disk, enum znbd_way what);

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
 * znbd_explain.  By contexts *done is exact.  Over the zone table, which of
 * several zones refused is found from the report: exact unless others
 * change the same zones at the same time, when *done may be too small. */
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

/* ---- appends ---- */

/* Appends length bytes to a zone: the server puts them at the zone's write
 * pointer, whole or not at all, and *offset (unless NULL) is set to the
 * place on the disk where they are.  Any number of clients may append to
 * one zone.  length is a multiple of the granularity and at most max_append
 * of the geometry.  flags: 0 or ZNBD_FUA.
 *
 * The first append to a zone looks at the report, for conventional zones
 * take none.
 *
 * errno: ENOTSUP the server has no appends (of stock nbdkit, the zone
 * table's, none has), ENOSPC a full zone, EINVAL one that has too little
 * left, or a wrong argument, else as znbd_manage; the text is that of
 * znbd_explain_append.  EPROTO: it was appended, but the server does not
 * say where.  If the connection breaks, it may have been appended. */
int znbd_append (struct znbd_disk *disk, uint32_t zone, const void *buf,
                 size_t length, unsigned flags, uint64_t *offset);

/* ---- many in flight ---- */

/* As libnbd's: what is called when a command is done.  callback gets the
 * command's result, -1 for an error, which znbd_get_error and
 * znbd_get_errno then tell inside the callback.  It is called once, by
 * znbd_aio_poll, on the thread that called that, with no lock held: it may
 * call anything on the disk but znbd_close.  The command's cookie is void
 * from then on.  callback may be NULL: the command is then asked for with
 * znbd_aio_command_completed.  free, unless NULL, is called when user_data
 * is needed no more: after the callback, or when the command could not be
 * started, or was forgotten by znbd_close. */
typedef struct {
  void (*callback) (void *user_data, int64_t result);
  void *user_data;
  void (*free) (void *user_data);
} znbd_completion;

#define ZNBD_NULL_COMPLETION \
  ((znbd_completion) { NULL, NULL, NULL })

/* Start a command and return its cookie, a number from 1 on, or -1 where it
 * could not be started.  What it needs to know or to connect to first it
 * waits for: the first append (to a zone), a report's first way over the
 * table.  The caller's buffers are the library's until the command is done.
 *
 * Appends to one zone are put into it in the order in which the server
 * takes them up, which is not always that in which they were started.
 * Results: of an append the place on the disk; of a report the number of
 * zones.  Errors are not explained; see below. */
int64_t znbd_aio_append (struct znbd_disk *disk, uint32_t zone,
                         const void *buf, size_t length, unsigned flags,
                         znbd_completion completion);
int64_t znbd_aio_report (struct znbd_disk *disk, uint32_t first,
                         uint32_t count, struct znbd_zone *zones,
                         znbd_completion completion);

/* Works on what is in flight and calls back for what is done.  Waits until
 * something happens, at most timeout milliseconds; -1: as long as it takes,
 * which is for ever where nothing is in flight.  Returns 1 after something
 * happened (perhaps nothing of the caller's), 0 when the time was over, -1
 * on error. */
int znbd_aio_poll (struct znbd_disk *disk, int timeout);

/* A file descriptor for the program's own event loop, the same as long as
 * the disk is there: when it is readable call znbd_aio_poll (disk, 0), and
 * go on while that returns 1.  Wait for reading only, whatever is in
 * flight. */
int znbd_aio_get_fd (struct znbd_disk *disk);

/* Commands that were started and are not done. */
int znbd_aio_in_flight (struct znbd_disk *disk);

/* Of a command without callback: 0 it is not done, 1 it is and *result
 * (unless NULL) is set, -1 it failed (or there is no such command, EINVAL).
 * After 1 or -1 the cookie is void.  Does not work on what is in flight. */
int znbd_aio_command_completed (struct znbd_disk *disk, int64_t cookie,
                                int64_t *result);

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
  ZNBD_REFUSAL_APPEND_SIZE = 13,/* an append larger than max_append */
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

/* The same for an append of length bytes. */
int znbd_explain_append (struct znbd_disk *disk, uint32_t zone,
                         uint64_t length, int error, char *text,
                         size_t size);

#ifdef __cplusplus
}
#endif

#endif /* LIBZNBD_H */
