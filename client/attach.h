/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of znbd attach:
 *
 *   cmd-attach.c      options, the background, messages
 *   attach-device.c   a device's life
 *   attach-control.c  commands to the ublk driver
 *   attach-state.c    what another process may need to know: /run/znbd
 *   attach-link.c     connecting, and whether it is the same disk
 *   attach-conn.c     a connection: commands go, answers come
 *   attach-wire.c     what is said over one without TLS, on the loop's ring
 *   attach-reply.c    the server's replies
 *   attach-loop.c     the loop: requests come and go, connections are driven
 *   attach-io.c       what becomes of a request
 *   attach-append.c   appends, one at a time in each zone
 *   attach-orphan.c   appends of a process that was killed
 *   attach-resume.c   what becomes of requests when a connection was lost
 *   attach-helper.c   jobs that wait for the server
 *
 * Threads: the main one starts and ends the device and waits for signals;
 * the loop serves it, and all that is not said to be another's is the
 * loop's alone; the helper does what waits, a job at a time, which the loop
 * posts to it and gets back.  So the loop never waits for the server.
 */

#ifndef ATTACH_H
#define ATTACH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <libnbd.h>

#include "attach-reply.h"
#include "error.h"
#include "libznbd.h"
#include "ring.h"
#include "ublk.h"

/* Bytes of one request of the kernel at most. */
#define ATTACH_IO_MAX (1u << 20)

#define ATTACH_CONNECTIONS_MAX 16

struct attach_options {
  const char *uri;
  int id;                       /* -1: any */
  unsigned queues, depth, connections;
  unsigned limit;               /* s that requests wait for a connection; 0:
                                 * for ever */
  bool readonly;
};

/* ---- attach-control.c ---- */

struct control {
  int fd;
  struct io_uring ring;
};

int control_open (struct control *c, struct zone_error *err);
void control_close (struct control *c);
/* Whether the kernel has what is needed. */
int control_features (struct control *c, bool zoned, struct zone_error *err);
/* -errno, without a text. */
int control_info (struct control *c, int id, struct ublk_dev_info *info);
int control_stop (struct control *c, int id);
/* Hangs as long as a process has /dev/ublkcN open or mapped. */
int control_delete (struct control *c, int id);
/* id -1: any.  *info says then what there is. */
int control_add (struct control *c, struct ublk_dev_info *info, int id,
                 struct zone_error *err);
int control_params (struct control *c, int id, struct ublk_parameters *p,
                    struct zone_error *err);
int control_start (struct control *c, int id, struct zone_error *err);
int control_start_recovery (struct control *c, int id,
                            struct zone_error *err);
int control_end_recovery (struct control *c, int id, struct zone_error *err);

/* ---- attach-state.c ---- */

#define STATE_DIR "/run/znbd"

/* A zone's pointer that is not known. */
#define WP_UNKNOWN UINT64_MAX

/* Of each zone, what finds an append of which the kernel does not know yet
 * that it was done; see attach-append.c. */
struct state_zone {
  uint64_t wp;                  /* the pointer was not below this */
  uint64_t place;               /* of the append; WP_UNKNOWN: not answered */
  uint32_t appending;           /* its bytes; 0: there is none */
  uint32_t pad;
};
_Static_assert (sizeof (struct state_zone) == 24, "");

/* Such an append of a process that was killed: its data may be somewhere in
 * a range.  See attach-orphan.c. */
struct state_orphan {
  uint64_t from, to;            /* bytes from the disk's start */
  uint32_t zone;
  uint32_t length;              /* 0: there is none here */
};
_Static_assert (sizeof (struct state_orphan) == 24, "");

#define STATE_ORPHANS 512u

/* A file that is mapped: what outlives the process, but not the machine.
 * Written by the loop but for what is said. */
struct state {
  char magic[8];
  uint32_t id;
  uint32_t pid;
  uint32_t zones;               /* 0: an ordinary disk */
  uint32_t readonly;
  uint64_t size;
  uint64_t epoch;
  uint8_t uuid[16];
  _Atomic uint32_t connected;
  _Atomic uint32_t reconnects;
  _Atomic uint32_t dirty;       /* what was answered and is not flushed */
  _Atomic uint32_t detaching;   /* enum state_detach, the main thread's */
  char uri[2048];
  struct state_orphan orphan[STATE_ORPHANS];
  struct state_zone zone[];
};

#define STATE_MAGIC "znbdatt2"

/* How the last request to detach went, for who made it. */
enum state_detach {
  DETACH_NONE,
  DETACH_BUSY,                  /* refused: it is in use */
  DETACH_LOST,                  /* done, but what was written last could not
                                 * be made durable */
};

/* Makes a device's file, for this process until it ends; NULL with a text.
 * With recover the file that is there is kept: errno EBUSY where another
 * process has it. */
struct state *state_create (int id, const char *uri,
                            const struct znbd_geometry *g, bool zoned,
                            struct zone_error *err);
struct state *state_recover (int id, struct zone_error *err);
void state_close (struct state *s);
/* That, and no file is left. */
void state_remove (struct state *s);

/* One file as others see it, while it changes and when it is gone: *alive, a
 * process has the device.  NULL: there is none, or it makes no sense.  Ends
 * by state_unlook. */
struct state *state_look (int id, bool *alive);
void state_unlook (struct state *s);
void state_forget (int id);
/* The devices that have a file, in order: returns how many, *ids to be
 * freed; -1 with a text. */
int state_list (int **ids, struct zone_error *err);

/* ---- attach-link.c ---- */

/* Connections for data and appends, all made at once. */
struct link {
  struct nbd_handle *data[ATTACH_CONNECTIONS_MAX];
  unsigned n;
  struct nbd_handle *append;    /* NULL: it is not offered, or not needed */
  struct znbd_disk *disk;       /* reports and zone management; NULL: it has
                                 * no zones */
  struct znbd_geometry geometry;
  bool zoned;                   /* as a kernel takes zones */
  const char *unzoned;          /* why not */
  bool readonly;
  bool can_flush, can_fua, can_trim, can_zero, multi_conn;
  uint32_t max_block, min_block, preferred;
};

/* NULL with a text.  known: it must be that disk; NULL: it is the first
 * time.  errno ENODEV: it is another one. */
struct link *link_open (const struct attach_options *o,
                        const struct znbd_geometry *known, bool zoned,
                        struct zone_error *err);
/* Ends its connections: no callback is called.  polite: the server is told;
 * else nothing is sent any more, not even what the kernel has of it.  The
 * disk is left to the caller. */
void link_free (struct link *l, bool polite);

/* ---- requests ---- */

struct attach;

enum request_state {
  REQUEST_KERNEL,               /* waits for one */
  REQUEST_WAITING,              /* for a connection, or its turn */
  REQUEST_SENT,                 /* commands are in flight */
  REQUEST_JOB,                  /* the helper has it */
};

enum job_kind {
  JOB_NONE,
  JOB_REPORT,                   /* of zones for the kernel */
  JOB_MANAGE,
  JOB_LEARN,                    /* the pointer of an append's zone */
  JOB_JUDGE,                    /* how much of it was done */
  JOB_SEEK,                     /* whether it is r->sought */
  JOB_EXPLAIN,                  /* which limit refused it */
};

/* A command to the server. */
struct command {
  struct reply_command reply;   /* its type is in there */
  struct request *request;      /* whose it is, always */
  struct conn *conn;            /* that it is, or was, sent over */
  struct wire *wire;            /* that has it; NULL: none */
  struct command *next;         /* that the wire sends */
  uint16_t flags;               /* NBD_CMD_FLAG_..., or libnbd's */
  uint32_t length;
  uint64_t offset;
  uint8_t *buf;                 /* what is written, or where libnbd puts what
                                 * is read */
};

/* An append takes two. */
#define REQUEST_COMMANDS 2

struct request {
  struct ring_op op_done;       /* of its command to the driver; first */
  struct attach *a;
  struct request *next;         /* of the list that it is in */
  uint16_t queue, tag;
  uint8_t op;                   /* enum ublk_op */
  enum request_state state;
  uint32_t nbd_flags;
  uint64_t offset, length;      /* bytes; of a report: zones */
  uint64_t skip;                /* bytes that are done */
  uint64_t changes;             /* of a flush: what it makes durable */
  uint8_t *buf;
  bool lost;                    /* was in flight when a connection broke */
  bool doubtful;                /* it may have been done before, so a refusal
                                 * has to be judged */
  bool sync;                    /* a part was done without an answer: with FUA
                                 * it takes a flush before it ends */
  uint8_t judged;               /* times */
  int error;                    /* errno for the kernel */

  /* Appends. */
  uint64_t expected;            /* the pointer was not below this */
  uint64_t place;               /* bytes from the disk's start */
  unsigned orphan;              /* from this one on they were not looked at */
  struct state_orphan sought;

  struct command command[REQUEST_COMMANDS];
  unsigned outstanding;         /* commands in flight */

  /* For the helper, and from it. */
  enum job_kind job;
  int64_t result;               /* -1: failed with error */
  bool broken;                  /* no connection: to be done again */
  struct znbd_zone zone;        /* learnt */
};

struct request_list {
  struct request *first, **tail;
};

static inline void
list_init (struct request_list *l)
{
  l->first = NULL;
  l->tail = &l->first;
}

static inline void
list_add (struct request_list *l, struct request *r)
{
  r->next = NULL;
  *l->tail = r;
  l->tail = &r->next;
}

static inline struct request *
list_take (struct request_list *l)
{
  struct request *r = l->first;

  if (r && (l->first = r->next) == NULL)
    l->tail = &l->first;
  return r;
}

/* Appends of a zone. */
struct append_zone {
  bool busy;                    /* one is under way */
  struct request_list waiting;  /* behind it */
};

/* ---- attach-conn.c ---- */

struct conn {
  struct attach *a;
  struct nbd_handle *nbd;       /* the link's; NULL: unused */
  struct wire *wire;            /* NULL: libnbd drives it */
  struct watch *watch;          /* of its socket, where libnbd does; NULL:
                                 * none */
  unsigned in_flight;           /* commands */
};

void conn_begin (struct conn *c, struct attach *a, struct nbd_handle *nbd);
/* Before a turn's end: what there is to send goes, and what comes is waited
 * for. */
void conn_turn (struct conn *c);
/* Sends a command that is filled in, its reply's type included.  From here on
 * it is answered, for certain, once, by io_answered, which may be at once; but
 * not if the connection is dropped. */
void conn_send (struct conn *conn, struct command *c);
bool conn_ended (const struct conn *c);
/* Before the link's end. */
void conn_drop (struct conn *c);

/* ---- attach-wire.c ---- */

/* NULL: no memory.  The file descriptor stays the caller's; nobody else may
 * use it before the wire is dropped. */
struct wire *wire_new (struct attach *a, int fd, bool structured);
void wire_turn (struct wire *w);
/* False: it has ended. */
bool wire_send (struct wire *w, struct command *c);
bool wire_ended (const struct wire *w);
void wire_drop (struct wire *w);
/* Frees what was dropped and has nothing in the ring any more. */
void wire_free_old (struct attach *a);

/* ---- the whole ---- */

struct attach {
  struct attach_options options;
  void (*log) (const char *line);
  int id;
  unsigned queues, depth;
  uint32_t io_max;              /* bytes */
  struct znbd_geometry geometry;        /* as the kernel was told */
  bool zoned, readonly;
  bool recovered;               /* another process had it before */
  int ublkc;
  struct state *state;

  pthread_t loop, helper;
  bool loop_there, helper_there;
  pthread_t main_thread;        /* told by SIGUSR1 that the loop ended */
  int wake_fd;                  /* an eventfd, for the loop */
  _Atomic bool hurry;           /* nothing waits for a connection */
  _Atomic bool loop_failed;     /* it never began, or broke */
  _Atomic bool taken_over;      /* the kernel sends what was under way */

  /* The loop's. */
  struct ring ring;
  bool ring_there;
  struct ublk_io_desc **desc;   /* by queue */
  struct request *requests;     /* queue by queue */
  unsigned fetching;            /* commands that the driver has */
  struct link *link;            /* NULL: not connected */
  struct conn conns[ATTACH_CONNECTIONS_MAX + 1];        /* last: for appends */
  struct conn *sending;         /* of data, in this turn; NULL: none has */
  struct wire *old_wires;       /* of which something may be in the ring */
  struct ring_op woken;
  uint64_t wake_value;
  struct request_list waiting;  /* for a connection */
  struct request_list answered; /* all of their commands were */
  uint64_t changes, flushed;    /* changes answered; those durable */
  bool lost;                    /* the next flush has to say so */
  uint64_t give_up_at;          /* ms; 0: never, or connected */
  struct append_zone *appends;  /* by zone */
  uint32_t *ended;              /* zones whose append has ended, but the driver
                                 * was not told yet */
  unsigned nended;
  uint8_t *touched;             /* by zone: written since the recovery */
  unsigned busy;                /* requests that the kernel waits for */
  unsigned norphans;            /* in state */
  uint64_t idle_since;          /* ms; 0: it is not, or nobody wants to know */

  /* Between loop and helper. */
  pthread_mutex_t lock;
  pthread_cond_t posted;
  struct request_list jobs, done;
  bool connect;                 /* wanted */
  struct link *connected;       /* made; the loop takes it */
  struct znbd_disk *disk;       /* the helper's; posted before it starts */
  bool stop;
};

static inline uint64_t
zone_of (const struct attach *a, uint64_t offset)
{
  return offset / a->geometry.zone_size;
}

/* Tells a line for people, to the end of err if it is there. */
void attach_log (struct attach *a, const char *fs, ...)
  __attribute__ ((format (printf, 2, 3)));

uint64_t attach_now (void);     /* ms */

/* ---- attach-device.c ---- */

/* Makes the device and serves it until it is detached.  ready is called once
 * with its name.  Returns the exit status. */
int attach_run (const struct attach_options *o,
                void (*log) (const char *line),
                void (*ready) (const char *name));

/* ---- attach-loop.c ---- */

void *loop_thread (void *a);
/* Makes the driver a present of a request's end: r->error, r->place. */
void loop_commit (struct attach *a, struct request *r);
/* Begins to drive the link's connections, or forgets them. */
void loop_take_link (struct attach *a);
void loop_drop_link (struct attach *a);
void loop_wake (struct attach *a);

/* ---- attach-io.c ---- */

void io_begin (struct attach *a, struct request *r);
/* Sends it, or puts it where it waits. */
void io_issue (struct attach *a, struct request *r);
/* Works off what is answered, and what that brings. */
void io_work_off (struct attach *a);
/* A job has come back. */
void io_job_done (struct attach *a, struct request *r);
/* Its end, whatever it was; error is an errno. */
void io_end (struct attach *a, struct request *r, int error);
/* The end of what the zone's pointer says was done. */
void io_end_judged (struct attach *a, struct request *r);
/* A command has its reply; what it brings, io_work_off does. */
void io_answered (struct command *c);
bool io_is_sequential (const struct attach *a, const struct request *r);
/* Lets the helper look at what the server refused with r->error, where that
 * tells more; false: it is as it is. */
bool io_look_into (struct attach *a, struct request *r);

/* ---- attach-append.c ---- */

void append_begin (struct attach *a, struct request *r);
/* It is its zone's turn, and not in flight. */
void append_issue (struct attach *a, struct request *r);
void append_answered (struct attach *a, struct request *r);
void append_learned (struct attach *a, struct request *r,
                     const struct znbd_zone *zone);
void append_judged (struct attach *a, struct request *r);
/* It was in flight when the connection broke. */
void append_lost (struct attach *a, struct request *r);
/* It was done at r->place. */
void append_done (struct attach *a, struct request *r);
/* It has ended; and the driver was told of all that have. */
void append_ended (struct attach *a, struct request *r);
void append_told (struct attach *a);
/* What is known of zones after other requests: a write that ended at end, a
 * zone where anything may have happened. */
void append_moved (struct attach *a, uint64_t end);
void append_reset (struct attach *a, uint64_t zone);
void append_forget (struct attach *a, uint64_t zone);
void append_failed (struct attach *a, struct request *r);
void append_forget_all (struct attach *a);

/* ---- attach-orphan.c ---- */

/* When a device is taken over: finds appends that may have been done. */
int orphans_find (struct attach *a, struct znbd_disk *disk,
                  struct zone_error *err);
/* Has it looked up whether r is one of them; false: it is none. */
bool orphan_seek (struct attach *a, struct request *r);
void orphan_sought (struct attach *a, struct request *r);
/* Those of a zone, or with UINT64_MAX of all, are of no use any more. */
void orphans_drop (struct attach *a, uint64_t zone);
/* Drops all once nobody can want them.  How many ms until then; -1. */
int orphans_expire (struct attach *a);

/* ---- attach-resume.c ---- */

/* The connections are of no use any more. */
void resume_break (struct attach *a);
/* There are others: a->link. */
void resume_link (struct attach *a);
/* Fails what waits where the time for that is up. */
void resume_give_up (struct attach *a);

/* ---- attach-helper.c ---- */

void *helper_thread (void *a);
void helper_post (struct attach *a, struct request *r, enum job_kind job);
void helper_connect (struct attach *a);

#endif /* ATTACH_H */
