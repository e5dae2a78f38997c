/* SPDX-License-Identifier: BSD-3-Clause */
/* The zoned disk: what front-ends (plugin, server, command line) call.
 *
 * A disk stands over a store, which it owns.  Clients (one for each NBD
 * connection) submit requests.  Submission never blocks on other requests:
 * a write ahead of its zone's pointer is parked, one behind a management
 * operation waits, and done() is called when the answer is known, on
 * whatever thread came to know it, perhaps before zdisk_submit returns.
 * zdisk_run is the same and waits.
 *
 * Threads: every function may be called from any thread at any time,
 * except that zdisk_close comes last, and a client is closed once, after
 * its last submission.
 */

#ifndef ZONE_DISK_H
#define ZONE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "disk-work.h"
#include "error.h"
#include "store.h"
#include "znbd-types.h"

struct ring;
struct zdisk;
struct zdisk_client;

enum zdisk_op {
  ZDISK_READ,
  ZDISK_WRITE,
  ZDISK_ZERO,           /* NBD's WRITE_ZEROES */
  ZDISK_TRIM,           /* resets sequential zones covered whole, discards
                         * in conventional ones */
  ZDISK_CACHE,
  ZDISK_FLUSH,
  ZDISK_APPEND,         /* offset: anywhere inside the zone, such that
                         * length does not reach past its end */
  ZDISK_OPEN,           /* zone management: offset and length name zones, */
  ZDISK_CLOSE,          /* from a zone's start, whole zones or to the */
  ZDISK_FINISH,         /* disk's end; with ZDISK_ALL both are 0 */
  ZDISK_RESET,
  ZDISK_REFRESH,        /* before a report: the zones that offset and length
                         * touch are as the store has them, where it keeps
                         * its own; otherwise done at once */
};

#define ZDISK_FUA       1u
#define ZDISK_MAY_TRIM  2u      /* ZERO: holes are welcome */
#define ZDISK_FAST_ZERO 4u      /* ZERO: fail with ENOTSUP rather than write */
#define ZDISK_ALL       8u      /* management: the ALL form */
#define ZDISK_ASIDE     16u     /* WRITE: better done by another thread, as
                                 * this one has more to do; a hint */

struct zdisk_request {
  /* The caller sets these. */
  enum zdisk_op op;
  unsigned flags;
  uint64_t offset;              /* bytes */
  uint64_t length;
  void *buf;                    /* READ, WRITE, APPEND: length bytes, the
                                 * caller's until done */
  void (*done) (struct zdisk_request *req);
  void *opaque;

  /* Set when done is called. */
  int error;                    /* 0 or an errno */
  uint64_t result;              /* APPEND: where it went, absolute;
                                 * management: bytes of zones done */
  char reason[200];             /* where error != 0: one line for people */

  struct zdisk_work work;       /* the disk's own */
};

struct zdisk_options {
  unsigned reorder_timeout;     /* ms a parked write waits for a pointer
                                 * that does not move */
  bool gap_zero;                /* then fill the gap with zeros, rather
                                 * than fail */
  uint64_t park_client_max;     /* bytes of parked writes: one client's, */
  uint64_t park_total_max;      /* and all clients'; each write counts as
                                 * 4096 at least */
  void (*log) (const char *line);       /* hears of zones that had to be
                                 * fetched from the store again, and once a
                                 * minute of a store that fails; NULL: nobody
                                 * does.  On any thread. */
};
#define ZDISK_OPTIONS_DEFAULT \
  { .reorder_timeout = 1000, .gap_zero = false, \
    .park_client_max = 32u << 20, .park_total_max = 256u << 20 }

/* Makes a disk over a store, which becomes the disk's.  On error the store
 * is closed.  options may be NULL. */
struct zdisk *zdisk_new (struct store *store,
                         const struct zdisk_options *options,
                         struct zone_error *err);

/* To be called once the process has forked for the last time, before the
 * first request; 0, or -1 where threads cannot be started. */
int zdisk_start (struct zdisk *disk, struct zone_error *err);

/* To be called when nothing more is to be waited for than I/O takes, before
 * the last requests end. */
void zdisk_hurry (struct zdisk *disk);

/* Flushes and closes disk and store.  No request may be unanswered.
 * Returns 0, or -1 where the last flush failed; closed in any case. */
int zdisk_close (struct zdisk *disk, struct zone_error *err);

/* Lives as long as the disk.  Of what it says only the epoch may be another
 * one later. */
const struct znbd_geometry *zdisk_geometry (const struct zdisk *disk);
bool zdisk_is_readonly (const struct zdisk *disk);

/* Whether write-zeroes is never as slow as writing zeros. */
bool zdisk_can_fast_zero (const struct zdisk *disk);

/* Whether data that lies in memory fixed by a ring is transferred faster. */
bool zdisk_wants_fixed (const struct zdisk *disk);

/* Whether the zones are the store's own, so that a report for others is to
 * be preceded by ZDISK_REFRESH. */
bool zdisk_mirrors (const struct zdisk *disk);

/* What a ZDISK_REFRESH may take of memory while it is under way. */
#define ZDISK_REFRESH_MEMORY (512u << 10)

/* Fills up to count zones from number first on; returns how many. */
uint32_t zdisk_report (struct zdisk *disk, uint32_t first, uint32_t count,
                       struct znbd_zone *zones);

/* How many zones from number first on, of at most so many, are empty and have
 * nothing else to tell, see zones_empty_run: for reports, which would mostly
 * consist of taking their locks. */
uint32_t zdisk_empty_run (const struct zdisk *disk, uint32_t first,
                          uint32_t most);

/* How many bytes from offset on (inside the disk) are data, up to the
 * zone's pointer or its end; the rest of the zone reads as zeros.  Takes no
 * lock: for a look before a read. */
uint64_t zdisk_data_ahead (const struct zdisk *disk, uint64_t offset);

/* Where the bytes are that a read would read, if they are data of one zone
 * and in memory: for the kernel to send them from there, soon; nobody else
 * may touch them.  NULL: they are to be read.  They change if the zone is
 * reset or overwritten before they are sent, as those of any read do that has
 * not been answered. */
const void *zdisk_mapped (struct zdisk *disk, uint64_t offset,
                          uint64_t length, bool own);
/* With own they are for the calling thread, which reads them itself.  If this
 * says true then, what it read may be wrong (the file was cut off), and there
 * will be no more of it. */
bool zdisk_map_failed (const struct zdisk *disk);
/* Whether there may be any such. */
bool zdisk_may_map (const struct zdisk *disk, uint64_t offset,
                    uint64_t length);

/* A client: one NBD connection.  readonly refuses every change with EPERM.
 * Closing one fails its writes that are parked or would be from then on;
 * what else is under way is finished and answered.  NULL: out of memory.
 * zdisk_client_leave does the same and leaves the closing for later.
 * After zdisk_client_abandon requests end where they are, between two zones,
 * with ESHUTDOWN: for clients that no answer can reach. */
struct zdisk_client *zdisk_client_new (struct zdisk *disk, bool readonly);
void zdisk_client_leave (struct zdisk_client *client);
void zdisk_client_abandon (struct zdisk_client *client);
void zdisk_client_close (struct zdisk_client *client);
struct zdisk *zdisk_client_disk (const struct zdisk_client *client);
bool zdisk_client_is_readonly (const struct zdisk_client *client);

/* ring: the calling thread's, or NULL to do I/O on the calling thread.  What
 * others' requests wait for may be on that ring, too: its thread runs it until
 * nothing is in flight there, though its own requests are answered, and only
 * then may the disk be closed. */
void zdisk_submit (struct zdisk_client *client, struct zdisk_request *req,
                   struct ring *ring);

/* Between the two, what the calling thread submits to the disk's zones is
 * held back up to 256 KiB: writes that continue each other, whoever submits
 * them, then go to the store as one.  ring as for those requests.  What is
 * released must not hold by itself: no done may. */
void zdisk_hold (struct zdisk *disk, struct ring *ring);
void zdisk_release (void);

/* Submits without a ring and waits for the answer; done is the disk's to
 * set.  Returns req->error. */
int zdisk_run (struct zdisk_client *client, struct zdisk_request *req);

/* Fails parked writes whose time has come.  An event loop that uses
 * zdisk_submit calls this after zdisk_next_expiry ms (-1: nothing is
 * parked); zdisk_run does so by itself. */
void zdisk_expire (struct zdisk *disk, struct ring *ring);
int zdisk_next_expiry (struct zdisk *disk);

/* The zone table export over a disk.  offset and length are checked: EINVAL
 * off TABLE_MIN_BLOCK or past the end.  Return 0, or an errno with a text
 * of up to reason_max bytes. */
int zdisk_table_read (struct zdisk *disk, void *buf, uint32_t length,
                      uint64_t offset, char *reason, size_t reason_max);
int zdisk_table_write (struct zdisk_client *client, const void *buf,
                       uint32_t length, uint64_t offset, bool fua,
                       char *reason, size_t reason_max);

/* Where a read of the table is to be preceded by ZDISK_REFRESH, sets *req to
 * that and returns true. */
bool zdisk_table_refresh (struct zdisk *disk, uint32_t length,
                          uint64_t offset, struct zdisk_request *req);

/* A write of the table, one request after the other, for who must not wait:
 * sets op, flags, offset and length of *req for the next one.  *pos begins
 * as 0.  Returns 1, 0 at the end, or a negative errno with a text. */
int zdisk_table_next (struct zdisk_client *client, const void *buf,
                      uint32_t length, uint64_t offset, size_t *pos,
                      struct zdisk_request *req, char *reason,
                      size_t reason_max);

#endif /* ZONE_DISK_H */
