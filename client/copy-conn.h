/* SPDX-License-Identifier: BSD-3-Clause */
/* One thread's way to the data of one side of a copy: an NBD connection of
 * its own, or the disk that is open in this process.
 *
 * Requests are asynchronous.  Those that are done come out of a mailbox,
 * one of each thread for both sides, in which whoever completes them puts
 * them: libnbd's callbacks on the thread itself, a disk on any thread.
 */

#ifndef COPY_CONN_H
#define COPY_CONN_H

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk.h"
#include "ring.h"

struct copy_side;

struct copy_io {
  void (*done) (struct copy_io *io);
  int error;                    /* when done: 0 or an errno */
  struct copy_io *next;
  struct copy_mail *mail;
  struct zdisk_request z;       /* of a disk; z.reason says why */
};

struct copy_mail {
  pthread_mutex_t lock;         /* protects first and tail */
  struct copy_io *first, **tail;
  pthread_t owner;
  int event;                    /* wakes the owner */
  struct ring ring;             /* for disks */
  bool have_ring;
};

int copy_mail_init (struct copy_mail *mail);
void copy_mail_free (struct copy_mail *mail);
/* The owner's: takes all that is done, calls back.  Returns whether there
 * was anything, or somebody has woken it: what it waits for may be there. */
bool copy_mail_deliver (struct copy_mail *mail);
void copy_mail_wake (struct copy_mail *mail);
/* The owner's: whether something is on its way on the ring. */
bool copy_mail_is_busy (const struct copy_mail *mail);

struct copy_conn;

/* NULL with an error text. */
struct copy_conn *copy_conn_new (struct copy_side *side,
                                 struct copy_mail *mail, char *error,
                                 size_t size);
void copy_conn_free (struct copy_conn *conn);

/* Fills *fd with what to wait for, then works on what has come. */
void copy_conn_poll (struct copy_conn *conn, struct pollfd *fd);
void copy_conn_work (struct copy_conn *conn, const struct pollfd *fd);

/* io->done is set by the caller.  Buffers are aligned to pages. */
void copy_conn_read (struct copy_conn *conn, struct copy_io *io, void *buf,
                     uint32_t length, uint64_t offset);
void copy_conn_write (struct copy_conn *conn, struct copy_io *io,
                      const void *buf, uint32_t length, uint64_t offset);
void copy_conn_zero (struct copy_conn *conn, struct copy_io *io,
                     uint64_t length, uint64_t offset);
void copy_conn_flush (struct copy_conn *conn, struct copy_io *io);

/* Asks which bytes are known to be zeros.  extent is called with pieces
 * that follow each other from offset on, before io is done; they may end
 * before length is reached. */
struct copy_extents {
  void (*extent) (struct copy_extents *e, uint64_t length, bool zero);
};
void copy_conn_status (struct copy_conn *conn, struct copy_io *io,
                       struct copy_extents *extents, uint64_t length,
                       uint64_t offset);

/* What the first connection says of the side. */
void copy_conn_describe (struct copy_conn *conn, struct copy_side *side);

#endif /* COPY_CONN_H */
