/* SPDX-License-Identifier: BSD-3-Clause */
/* What libznbd's files share.  Callers see libznbd.h only.
 *
 * A disk has several connections, for a context that acts must be the only
 * one of its connection: that of the disk's export with x-zbd:zones, one
 * for appends, one for each kind of management, and that of the zone table.
 * All but the first are made when they are needed and then kept.
 *
 * What may be in flight goes through lib-aio.c: a command (what a caller
 * asked for) sends wires (NBD requests) and is advanced when they are
 * answered.  Locks, outermost first:
 *
 *   open_lock      making connections, which takes round trips
 *   lock           commands, and what epoll waits for
 *   libnbd's own   of each handle
 *   answered_lock  the list of answered wires, which libnbd's callbacks add
 *                  to: on any thread that uses the handle, ours or not
 *
 * Nothing but libnbd's asynchronous calls is done under lock.
 */

#ifndef LIB_INTERNAL_H
#define LIB_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libnbd.h>

#include "libznbd.h"

/* Bytes of one read of the zone table.  Servers take up to 32 MiB; smaller
 * ones keep the caller's memory in the cache. */
#define LIB_READ_MAX (4u << 20)

/* Zones of one write of management requests: the most that has to be
 * looked at to find the one that refused. */
#define LIB_MANAGE_MAX 4096u

/* Large enough for any text that lib-explain.c writes. */
#define LIB_TEXT_MAX 400

/* Bytes that a 32-bit block status can ask for. */
#define LIB_COMPACT_MAX UINT32_MAX

/* Requests by contexts beyond which the zone table is the shorter way.  A
 * report keeps LIB_SPANS of them in flight, so this many are 4 round trips,
 * and to connect to the table takes about as many.  Ranges of management
 * go one after the other. */
#define LIB_REPORT_REQUESTS 64u
#define LIB_MANAGE_REQUESTS 8u

/* ---- connections ---- */

enum lib_conn_kind {
  LIB_DISK,                     /* the disk's export, x-zbd:zones if any */
  LIB_TABLE,                    /* its zone table */
  LIB_APPEND,                   /* x-zbd:append */
  LIB_MANAGE,                   /* + op - ZNBD_ZONE_OPEN: x-zbd:open...;
                                 * with filters the first is all of them */
  LIB_MANAGE_ALL = LIB_MANAGE + 4,      /* likewise: x-zbd:open-all... */
  LIB_CONNS = LIB_MANAGE_ALL + 4,
};

#define LIB_BIT(kind) (1u << (kind))

struct lib_conn {
  struct nbd_handle *nbd;       /* NULL: not made yet */
  bool owned;                   /* made here */
  int fd;                       /* what epoll knows of it; -1: nothing */
  uint32_t events;
};

struct lib_command;
struct lib_append;

#define LIB_BUCKETS 256         /* of commands by cookie */
#define LIB_SEQUENTIAL 256      /* zones of which we know that they are */

struct znbd_disk {
  /* Set when the disk is connected; constant then. */
  struct znbd_geometry geometry;
  bool readonly;
  bool extended;                /* block status of 64 bits */
  bool filters;                 /* a request can name its contexts: one
                                 * connection, LIB_MANAGE, does all zone
                                 * management */
  const char *table_way;        /* why the table, where nothing is offered */
  uint32_t offered;             /* contexts: LIB_BIT of their connection */
  char *export, *table_export;  /* names */
  char *uri;                    /* to connect again; NULL: cannot */
  bool local_files;             /* what the URI may name */
  int tls;                      /* at least this, LIBNBD_TLS_... */

  pthread_mutex_t open_lock;
  bool table_failed;            /* open_lock: do not try again */
  bool cut_off;                 /* open_lock: the server could not be reached
                                 * for another connection */

  pthread_mutex_t lock;
  pthread_cond_t changed;       /* lock: commands were done */
  bool polling;                 /* lock: a thread waits in epoll */
  struct lib_conn conns[LIB_CONNS];     /* nbd: written under both */
  uint32_t read_max, write_max; /* table: bytes of a read, a write */
  const char *ways[3];          /* lock: znbd_get_way's */
  int epoll, event;             /* fds */
  int64_t cookie;               /* lock: the last one given */
  struct lib_command *bucket[LIB_BUCKETS];      /* lock */
  struct lib_command *ready, **ready_end;       /* lock: to call back */
  unsigned in_flight;           /* lock: commands not done */
  struct lib_append *sent;      /* lock: appends in flight, any order */
  unsigned nsent;
  struct lib_append *queue, **queue_end;        /* lock: waiting for a tag */
  struct znbd_zone sequential[LIB_SEQUENTIAL];  /* lock: by number */

  pthread_mutex_t answered_lock;
  struct lib_wire *answered, **answered_end;
  bool collecting;              /* who set it takes the list: no wake-up */
};

/* The handle of a connection, made if need be; NULL with an error.  Any
 * thread, no locks held. */
struct nbd_handle *lib_conn_get (struct znbd_disk *disk,
                                 enum lib_conn_kind kind);

/* Whether the connection still stands after a failed request, so that it
 * was the request that the server refused. */
bool lib_was_refused (struct nbd_handle *nbd);

/* The zone table for what contexts could do too: true where it can be
 * had.  No locks held. */
bool lib_table_usable (struct znbd_disk *disk);

/* ---- lib-contexts.c: what a negotiating handle's export offers ---- */

/* Lists the contexts of the handle's export: sets *offered and, where there
 * is a geometry, its name (malloc'd).  -1 where the server misbehaves. */
int lib_list_contexts (struct nbd_handle *nbd, uint32_t *offered,
                       char **geometry_name);

/* Writes a context's name, and returns it. */
#define LIB_CONTEXT_MAX 32
const char *lib_context_name (enum lib_conn_kind kind,
                              char name[LIB_CONTEXT_MAX]);

/* ---- lib-aio.c: commands and wires ---- */

/* One NBD request in flight. */
struct lib_wire {
  struct lib_wire *next;        /* of the answered */
  struct lib_command *cmd;
  int error;                    /* the answer: 0 or an errno */
};

struct lib_command {
  struct znbd_disk *disk;
  int64_t cookie;               /* 0: a synchronous call's own */
  struct lib_command *next;     /* of the bucket */
  struct lib_command *next_ready;
  znbd_completion completion;
  bool done;
  int64_t result;               /* when done: -1 with an error */
  int error;
  char text[200];

  /* A wire was answered.  Under lock. */
  void (*advance) (struct lib_command *cmd, struct lib_wire *wire);
};

/* A completion for libnbd that gets the wire to advance.  From here on the
 * wire is answered, for certain, once. */
nbd_completion_callback lib_wire_completion (struct lib_wire *wire);

/* Starts a command that no wire is sent for yet, and gives it a cookie
 * where it is asynchronous.  lib_command_done ends it.  Under lock. */
void lib_command_begin (struct lib_command *cmd, bool async);
void lib_command_done (struct lib_command *cmd, int64_t result);

/* The error of a command, before it is done. */
void lib_command_error (struct lib_command *cmd, int error, const char *fs,
                        ...) __attribute__ ((format (printf, 3, 4)));

/* After wires were sent: lets epoll wait for what they need.  Under
 * lock. */
void lib_update_fds (struct znbd_disk *disk);

/* Waits for a synchronous command.  Under lock, given up meanwhile.  What
 * it returns is the result; the thread's error is set. */
int64_t lib_command_wait (struct lib_command *cmd);

int lib_aio_init (struct znbd_disk *disk);
void lib_aio_close (struct znbd_disk *disk);

/* Waits until nothing is in flight. */
void lib_aio_drain (struct znbd_disk *disk);


/* ---- lib-manage-context.c ---- */

/* Does op to count zones over the connection of its context; *done is
 * exact, also on error.  The error is not explained. */
int lib_manage_context (struct znbd_disk *disk, struct nbd_handle *nbd,
                        enum znbd_zone_op op, uint32_t first, uint32_t count,
                        uint32_t *done);
int lib_manage_context_all (struct znbd_disk *disk, struct nbd_handle *nbd,
                            enum znbd_zone_op op);

/* How many requests lib_manage_context would take. */
uint64_t lib_manage_context_requests (const struct znbd_disk *disk,
                                      uint32_t count);

/* ---- ways, for znbd_get_way ---- */
void lib_set_way (struct znbd_disk *disk, enum znbd_way what,
                  const char *text);

/* ---- errors ---- */

/* Records the thread's error; returns -1. */
int lib_error (int num, const char *fs, ...)
  __attribute__ ((format (printf, 2, 3)));

/* The same with what libnbd said last behind it. */
int lib_error_nbd (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));

#endif /* LIB_INTERNAL_H */
