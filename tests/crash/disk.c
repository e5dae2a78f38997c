/* SPDX-License-Identifier: BSD-3-Clause */
/* See sim.h: the page cache and the disk below it.
 *
 * Every write and every hole is put on record with what it made of each
 * sector.  A sync makes the last of those durable that were there when it
 * began.  A power loss chooses for each sector of 512 bytes among what is
 * durable and all that it was since: writes are so held back, reordered,
 * dropped and torn.
 */

#define _GNU_SOURCE
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "image-internal.h"
#include "sim.h"
#include "version-1.h"
#include "wraps.h"

char sim_path[64];
static char copy_path[64];
static int file = -1, copy = -1;

static int
new_file (char *path, size_t size)
{
  int fd = memfd_create ("image", MFD_CLOEXEC);

  if (fd == -1) {
    perror ("memfd_create");
    exit (1);
  }
  snprintf (path, size, "/proc/self/fd/%d", fd);
  return fd;
}

void
sim_init (void)
{
  sim = mmap (NULL, sizeof *sim, PROT_READ | PROT_WRITE,
              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (sim == MAP_FAILED) {
    perror ("mmap");
    exit (1);
  }
  file = new_file (sim_path, sizeof sim_path);
  copy = new_file (copy_path, sizeof copy_path);
}

static void
read_file (void *to)
{
  if (__real_pread (file, to, sim->size, 0) != (ssize_t) sim->size)
    abort ();
}

static void
write_file (int fd, const void *from)
{
  if (ftruncate (fd, sim->size) == -1 ||
      __real_pwrite (fd, from, sim->size, 0) != (ssize_t) sim->size)
    abort ();
}

static void
forget_ops (void)
{
  sim->nops = sim->arena_used = 0;
  memset (sim->durable_seq, 0, sizeof sim->durable_seq);
}

/* All is durable. */
void
sim_sync_all (void)
{
  read_file (sim->durable);
  forget_ops ();
}

void
sim_new_image (uint64_t seed)
{
  struct zone_error err;
  struct stat st;

  memset (sim->boot_id, 0, sizeof sim->boot_id);
  sim->seq = 1;
  sim->rng = seed;
  if (ftruncate (file, 0) == -1)
    abort ();
  if (image_create (sim_path, &sim->geometry, true, &err) == -1) {
    fprintf (stderr, "%s\n", err.text);
    abort ();
  }
  if (sim->version_1 && !make_version_1 (sim_path))
    abort ();
  if (fstat (file, &st) == -1 || st.st_size > FILE_MAX)
    abort ();
  sim->size = st.st_size;
  sim_sync_all ();
}

const char *
sim_copy (void)
{
  static uint8_t buf[FILE_MAX];

  read_file (buf);
  write_file (copy, buf);
  return copy_path;
}

#define TABLES (IMAGE_VOLATILE_OFFSET + IMAGE_BLOCK)

static bool
is_volatile (uint32_t sector)
{
  return sector >= IMAGE_VOLATILE_OFFSET / IMAGE_SECTOR &&
    sector < TABLES / IMAGE_SECTOR;
}

/* A sync that fails leaves some sectors that it was to write as they are on
 * the disk, and what is in the page cache counts as written from then on.
 * (The mark that says so is taken to stay in the page cache.) */
static bool
is_lost (const struct sim_op *op, uint32_t sector)
{
  return op->lossy && !is_volatile (sector) &&
    (sim_mix (op->lossy ^ (uint64_t) sector << 32) & 1);
}

/* Whether the op is still one of those of which the sector may come. */
static bool
may_have (const struct sim_op *op, uint32_t sector)
{
  return op->seq > sim->durable_seq[sector] && !is_lost (op, sector);
}

static const uint8_t *
content (const struct sim_op *op, uint32_t sector)
{
  return sim->arena + op->data + (sector - op->first) * IMAGE_SECTOR;
}

enum how {
  HOW_ANY,                      /* each sector for itself */
  HOW_OPS,                      /* some ops, in order */
  HOW_NOTHING,
  HOW_ALL,
  HOW_FIRST,                    /* the first ones, the last of them torn */
  HOW_LAST,                     /* the others */
  HOW_METADATA,
  HOW_DATA,
  HOW_ONE,                      /* a single op */
  HOW_BUT_ONE,
  HOW_END,
};

static void
choose (enum how how)
{
  static const uint8_t *chosen[SECTORS_MAX];
  static uint16_t seen[SECTORS_MAX];
  uint32_t data = sim->size - ZONES * sim->zone_size;
  uint32_t one = sim->nops ? sim_below (sim->nops) : 0, i, s;

  memset (chosen, 0, sizeof chosen);
  memset (seen, 0, sizeof seen);
  for (i = 0; i < sim->nops; i++) {
    const struct sim_op *op = &sim->op[i];
    bool is_data = op->first * IMAGE_SECTOR >= data;
    bool some = sim_chance (50);

    for (s = op->first; s < op->first + op->count; s++) {
      bool take;

      if (!may_have (op, s))
        continue;
      switch (how) {
      case HOW_ANY: take = sim_below (++seen[s] + 1) == 0; break;
      case HOW_OPS: take = some; break;
      case HOW_ALL: take = true; break;
      case HOW_FIRST: take = i < one || (i == one && sim_chance (50)); break;
      case HOW_LAST: take = i > one; break;
      case HOW_METADATA: take = !is_data; break;
      case HOW_DATA: take = is_data; break;
      case HOW_ONE: take = i == one; break;
      case HOW_BUT_ONE: take = i != one; break;
      default: take = false;
      }
      if (take)
        chosen[s] = content (op, s);
    }
  }
  for (s = 0; s < sim->size / IMAGE_SECTOR; s++)
    if (chosen[s])
      memcpy (sim->durable + s * IMAGE_SECTOR, chosen[s], IMAGE_SECTOR);
}

/* Makes of what is durable what a power loss leaves. */
static void
lose (void)
{
  static uint8_t cache[FILE_MAX];
  uint32_t s;

  read_file (cache);
  choose (sim_below (HOW_END));
  /* A mapping's stores reach the disk at any time, or never. */
  for (s = IMAGE_VOLATILE_OFFSET; s < TABLES; s += IMAGE_SECTOR)
    if (sim_chance (60))
      memcpy (sim->durable + s, cache + s, IMAGE_SECTOR);
}

void
sim_lose_power (void)
{
  lose ();
  write_file (file, sim->durable);
  forget_ops ();
  sim->boot_id[sim_below (16)]++;
  sim->sync_failed = sim->erred = false;
}

static bool peeking;            /* the copy is of a disk, and has no cache */

const char *
sim_peek (bool begin)
{
  static uint8_t durable[FILE_MAX];

  peeking = begin;
  if (begin) {
    memcpy (durable, sim->durable, sim->size);
    lose ();
    write_file (copy, sim->durable);
    memcpy (sim->durable, durable, sim->size);
  }
  return copy_path;
}

/* Sectors that are lost and only in the page cache any more go from there,
 * so many percent of them. */
static void
drop_cache (int fd, uint32_t first, uint32_t end, unsigned percent)
{
  static const struct sim_op *last[SECTORS_MAX];
  uint32_t i, s;

  memset (last, 0, sizeof last);
  for (i = 0; i < sim->nops; i++)
    for (s = sim->op[i].first; s < sim->op[i].first + sim->op[i].count; s++)
      last[s] = &sim->op[i];
  for (s = first; s < end; s++)
    if (last[s] && is_lost (last[s], s) && sim_chance (percent) &&
        __real_pwrite (fd, sim->durable + s * IMAGE_SECTOR, IMAGE_SECTOR,
                       (off_t) s * IMAGE_SECTOR) != IMAGE_SECTOR)
      abort ();
}

/* The page cache stays, but for what it need not keep. */
void
sim_kill (void)
{
  drop_cache (file, 0, SECTORS_MAX, 50);
}

/* The sectors from offset on, as they are in the page cache now. */
static uint64_t
record (off_t offset, size_t length)
{
  struct sim_op *op = &sim->op[sim->nops];
  uint32_t end = (offset + length + IMAGE_SECTOR - 1) / IMAGE_SECTOR;
  size_t bytes;

  if (length == 0)
    return 0;
  op->seq = ++sim->seq;
  op->first = offset / IMAGE_SECTOR;
  op->count = end - op->first;
  op->data = sim->arena_used;
  op->lossy = 0;
  bytes = op->count * IMAGE_SECTOR;
  if (sim->nops + 1 == OPS_MAX || op->data + bytes > ARENA_MAX ||
      end > SECTORS_MAX)
    sim_wrong ("the simulation has no room for its writes");
  if (__real_pread (file, sim->arena + op->data, bytes,
                    (off_t) op->first * IMAGE_SECTOR) != (ssize_t) bytes)
    sim_wrong ("a write at %lld is outside the image", (long long) offset);
  sim->arena_used += bytes;
  sim->nops++;
  if (sim->crash_write && --sim->crash_write == 0)
    sim->crash_at = sim->events + 1;
  return op->seq;
}

/* What was recorded up to seq is durable; between first and end alone. */
static void
settle (uint64_t seq, uint32_t first, uint32_t end)
{
  uint32_t i, s, n = 0;

  for (i = 0; i < sim->nops; i++) {
    struct sim_op *op = &sim->op[i];

    if (op->seq > seq)
      continue;
    for (s = op->first; s < op->first + op->count; s++)
      if (s >= first && s < end && may_have (op, s)) {
        memcpy (sim->durable + s * IMAGE_SECTOR, content (op, s),
                IMAGE_SECTOR);
        sim->durable_seq[s] = op->seq;
      }
  }
  if (first > 0)
    return;
  /* Those are not needed any more; lost ones are, for a kill. */
  for (i = 0; i < sim->nops; i++)
    if (sim->op[i].seq > seq || sim->op[i].lossy)
      sim->op[n++] = sim->op[i];
  sim->nops = n;
  if (n == 0)
    sim->arena_used = 0;
}

static bool
sync_fails (uint64_t seq)
{
  uint32_t i;

  sim->syncs++;
  if (sim->sync_fails == 0 || --sim->sync_fails > 0)
    return false;
  for (i = 0; i < sim->nops; i++)
    if (sim->op[i].seq <= seq && !sim->op[i].lossy)
      sim->op[i].lossy = sim->seq;
  sim->sync_failed = true;
  errno = EIO;
  return true;
}

/* Whether a call fails that is no sync.  Where it is of the metadata the
 * commit fails that it is of. */
static bool
io_fails (off_t offset)
{
  if (sim->io_fails == 0 || --sim->io_fails > 0)
    return false;
  if (offset < (off_t) (sim->size - ZONES * sim->zone_size))
    sim->sync_failed = true;
  /* The log does without space. */
  errno = sim_chance (70) || offset < (off_t) (sim->size - ZONES *
                                               sim->zone_size)
    ? EIO : ENOSPC;
  return true;
}

int
sim_sync_range (uint64_t offset, uint64_t length)
{
  uint64_t seq;

  sim_event ();
  seq = sim->seq;
  sim_event ();
  if (sync_fails (seq))
    return -1;
  settle (seq, offset / IMAGE_SECTOR,
          length ? (offset + length) / IMAGE_SECTOR : SECTORS_MAX);
  sim_event ();
  return 0;
}

int
__wrap_fdatasync (int fd)
{
  (void) fd;
  return sim_is_live () ? sim_sync_range (0, 0) : 0;
}

int
__wrap_fsync (int fd)
{
  return __wrap_fdatasync (fd);
}

ssize_t
__wrap_pread (int fd, void *buf, size_t length, off_t offset)
{
  if (sim_is_live ()) {
    sim_event ();
    if (io_fails (offset))
      return -1;
  }
  return __real_pread (fd, buf, length, offset);
}

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int n, off_t offset)
{
  if (sim_is_live ()) {
    sim_event ();
    if (io_fails (offset))
      return -1;
  }
  return __real_preadv (fd, iov, n, offset);
}

/* Now and then only a part of it is written.  What is written where pointers
 * are, and not stored, is the mark: a process that ends
 * between a sync that fails and its mark is left out (docs/image-format.md,
 * "What it does not know"). */
ssize_t
__wrap_pwrite (int fd, const void *buf, size_t length, off_t offset)
{
  ssize_t r;

  if (!sim_is_live ())
    return __real_pwrite (fd, buf, length, offset);
  if (!is_volatile (offset / IMAGE_SECTOR))
    sim_event ();
  if (io_fails (offset))
    return -1;
  if (length >= 2 * IMAGE_SECTOR && sim_chance (5))
    length = length / 2 / IMAGE_SECTOR * IMAGE_SECTOR;
  r = __real_pwrite (fd, buf, length, offset);
  if (r > 0)
    record (offset, r);
  sim_event ();
  return r;
}

/* Likewise. */
ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int n, off_t offset)
{
  ssize_t r;

  if (!sim_is_live ())
    return __real_pwritev (fd, iov, n, offset);
  sim_event ();
  if (io_fails (offset))
    return -1;
  if (iov->iov_len >= 2 * IMAGE_SECTOR && sim_chance (5)) {
    struct iovec part = { iov->iov_base, iov->iov_len / 2 / IMAGE_SECTOR *
      IMAGE_SECTOR };

    r = __real_pwritev (fd, &part, 1, offset);
  }
  else
    r = __real_pwritev (fd, iov, n, offset);
  if (r > 0)
    record (offset, r);
  sim_event ();
  return r;
}

ssize_t
__wrap_pwritev2 (int fd, const struct iovec *iov, int n, off_t offset,
                 int flags)
{
  uint64_t seq;
  ssize_t r;

  if (!sim_is_live ())
    return __real_pwritev (fd, iov, n, offset);
  sim_event ();
  if (sim->no_dsync) {
    errno = EOPNOTSUPP;
    return -1;
  }
  if (io_fails (offset))
    return -1;
  r = __real_pwritev (fd, iov, n, offset);
  if (r <= 0)
    return r;
  seq = record (offset, r);
  sim_event ();
  if (!(flags & RWF_DSYNC))
    return r;
  if (sync_fails (seq))
    return -1;
  settle (seq, offset / IMAGE_SECTOR, (offset + r) / IMAGE_SECTOR);
  sim_event ();
  return r;
}

int
__wrap_fallocate (int fd, int mode, off_t offset, off_t length)
{
  bool zero = mode & FALLOC_FL_ZERO_RANGE;
  int r;

  if (!sim_is_live ())
    return __real_fallocate (fd, mode, offset, length);
  sim_event ();
  if (zero && sim->no_zero_range) {
    errno = EOPNOTSUPP;
    return -1;
  }
  if (io_fails (sim->size))
    return -1;
  if (!zero && !(mode & FALLOC_FL_PUNCH_HOLE))
    return 0;                   /* space, of which there is enough */
  r = __real_fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        offset, length);
  if (r == 0)
    record (offset, length);
  sim_event ();
  return r;
}

int
__wrap_posix_fadvise (int fd, off_t offset, off_t length, int advice)
{
  (void) fd;
  if (sim_is_live ())
    sim_event ();
  if (advice == POSIX_FADV_DONTNEED && !peeking)
    drop_cache (sim_is_live () ? file : copy, offset / IMAGE_SECTOR,
                length ? (offset + length) / IMAGE_SECTOR : SECTORS_MAX,
                100);
  return 0;
}

/* What is random is the seed's. */
int
__wrap_getentropy (void *buf, size_t length)
{
  uint8_t *b = buf;

  while (length-- > 0)
    *b++ = sim_random ();
  return 0;
}

/* The file is one of tmpfs. */
bool
__wrap_image_forgets (int fd)
{
  (void) fd;
  return false;
}

bool
__wrap_image_boot_id (uint8_t boot_id[16])
{
  memcpy (boot_id, sim->boot_id, 16);
  return true;
}
