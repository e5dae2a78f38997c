/* SPDX-License-Identifier: BSD-3-Clause */
/* Data that is sent from where the page cache has it: a mapping of the
 * image's data, of which parts are handed to the kernel and which this
 * program never reads itself.  So a file that is truncated below it ends a
 * send with EFAULT, and is no SIGBUS.  What has to be enciphered, or copied,
 * is read by this program from a mapping of its own (image-sigbus.c): one that
 * fails is never to be mistaken for data, and the kernel would not know.  In
 * memory alone data is written there too (image-copy.c).
 *
 * A part is given away only while all of it is in memory (mincore): a page
 * that has to be fetched would stop the event loop, and one that is a hole
 * would be allocated on tmpfs.  Both can still come to pass where the kernel
 * takes a page away, or a reset punches it, before it is sent; both are
 * rare, and harmless but for the time.  So what was in memory a moment ago
 * is taken to be there still: to ask for each small read took a quarter of
 * its time.
 *
 * What the kernel keeps for the mapping (4 KiB for every 2 MiB that were
 * touched) is bounded by spans, of which so many are in use at a time.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image-internal.h"

/* For each of which the kernel's tables take 2 MiB at most. */
#define SPAN (UINT64_C (1) << 30)

/* A span in use is given up for another one so often: that holds up who
 * does it, for some ms where all of it was in use. */
#define GIVE_UP_MS 100

/* The largest part. */
#define PART_MAX (UINT64_C (1) << 20)

/* What was in memory is known for chunks of 32 pages, one of which has each
 * place: a bit for each page, and above them which chunk it is and when that
 * was, in one word, so that threads need no lock. */
#define CHUNK_PAGES 32u
#define SEEN_PLACES 65536u
#define TIME_BITS 12
/* Known for no longer than that; on tmpfs, where nothing goes but to swap,
 * than this.  To ask is a tenth of what a read of 256 KiB takes. */
#define TIME_UNIT_MS 512
#define MEMORY_UNIT_MS 16384

/* mincore says of a file that the caller neither owns nor may write that all
 * of its pages are in memory. */
static bool
may_ask (int fd, bool readonly)
{
  struct stat st;

  return !readonly || (fstat (fd, &st) == 0 && geteuid () == st.st_uid);
}

/* The data in place of what is mapped there. */
static bool
map_over (const struct image *img, uint8_t *at, uint64_t offset,
          uint64_t length, int prot)
{
  if (mmap (at, length, prot, MAP_SHARED | MAP_FIXED, img->fd,
            img->sb.data_offset + offset) == MAP_FAILED)
    return false;
  /* Nobody is to read ahead: what is not there is not read by this way. */
  madvise (at, length, MADV_RANDOM);
  return true;
}

/* Bytes of a mapping, and of the pages around it that nobody may touch: what
 * goes astray in a neighbour does not end in the data. */
static size_t
room (const struct image *img)
{
  size_t page = img->map.page;

  return (img->sb.size + page - 1) / page * page + 2 * page;
}

static void
unmap (const struct image *img, uint8_t *data)
{
  munmap (data - img->map.page, room (img));
}

/* A mapping of the data, or NULL.  There may be no room for it, in a process
 * or a machine of 32 bits. */
static uint8_t *
map_data (const struct image *img, int prot)
{
  uint8_t *p = mmap (NULL, room (img), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
                     MAP_NORESERVE, -1, 0);

  if (p == MAP_FAILED)
    return NULL;
  p += img->map.page;
  if (map_over (img, p, 0, img->sb.size, prot))
    return p;
  unmap (img, p);
  return NULL;
}

static void
map_own (struct image *img)
{
  struct image_map *m = &img->map;

  m->own_prot = copy_may_write (img) ? PROT_READ | PROT_WRITE : PROT_READ;
  m->own = map_data (img, m->own_prot);
  if (m->own && sigbus_enter (m->own, img->sb.size, m->own_prot,
                              &img->store.map_failed) == -1) {
    unmap (img, m->own);
    m->own = NULL;
  }
  if (m->own && m->own_prot != PROT_READ)
    copy_start (img);
}

void
map_start (struct image *img)
{
  struct image_map *m = &img->map;
  uint64_t spans = (img->sb.size + SPAN - 1) / SPAN;

  m->page = sysconf (_SC_PAGESIZE);
  m->unit_ms = image_forgets (img->fd) ? MEMORY_UNIT_MS : TIME_UNIT_MS;
  /* What is only in the log is in no place of the file. */
  if (img->replay.nitems > 0 || img->sb.size > SIZE_MAX - 3 * m->page ||
      img->sb.data_offset % m->page != 0 ||
      !may_ask (img->fd, img->store.readonly))
    return;
  m->used = calloc (spans, sizeof *m->used);
  m->seen = calloc (SEEN_PLACES, sizeof *m->seen);
  if (m->used == NULL || m->seen == NULL)
    return;
  m->data = map_data (img, PROT_READ);
  if (m->data)
    map_own (img);
}

void
map_stop (struct image *img)
{
  struct image_map *m = &img->map;

  if (m->data)
    unmap (img, m->data);
  if (m->own) {
    sigbus_leave (m->own);
    unmap (img, m->own);
  }
  copy_stop (img);
  free (m->used);
  free (m->seen);
  pthread_mutex_destroy (&m->lock);
}

void
map_init (struct image *img)
{
  pthread_mutex_init (&img->map.lock, NULL);
}

static uint64_t
now_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &ts);
  return ts.tv_sec * UINT64_C (1000) + ts.tv_nsec / 1000000;
}

/* Maps a span anew, which drops what the kernel has for it. */
static bool
give_up (struct image *img, uint32_t span)
{
  struct image_map *m = &img->map;
  uint64_t at = span * SPAN;
  uint64_t length = img->sb.size - at < SPAN ? img->sb.size - at : SPAN;

  copy_unmapped (img, at, length);
  return map_over (img, m->data + at, at, length, PROT_READ) &&
    (m->own == NULL ||
     map_over (img, m->own + at, at, length, m->own_prot));
}

/* Takes a span into use; false: as many are as may be. */
static bool
take (struct image *img, uint32_t span)
{
  struct image_map *m = &img->map;
  uint32_t *place;
  uint64_t now;
  bool r = true;

  pthread_mutex_lock (&m->lock);
  if (!m->used[span]) {
    place = &m->span[m->next % SPANS_MAX];
    if (m->next >= SPANS_MAX) {
      now = now_ms ();
      r = now >= m->given_up + GIVE_UP_MS && give_up (img, *place);
      if (r) {
        m->given_up = now;
        m->used[*place] = false;
      }
    }
    if (r) {
      m->next++;
      *place = span;
      m->used[span] = true;
    }
  }
  pthread_mutex_unlock (&m->lock);
  return r;
}

bool
map_use (struct image *img, uint64_t offset, uint64_t length)
{
  uint64_t span = offset / SPAN;

  return (offset + length - 1) / SPAN == span &&
    (img->map.used[span] || take (img, span));
}

/* Which pages of a chunk are in memory, a bit each. */
static uint32_t
ask (const struct image *img, uint64_t chunk)
{
  const struct image_map *m = &img->map;
  uint64_t at = chunk * CHUNK_PAGES * m->page;
  unsigned char in_memory[CHUNK_PAGES] = { 0 };
  uint64_t length = img->sb.size - at;
  uint32_t bits = 0;
  unsigned i;

  if (length > CHUNK_PAGES * m->page)
    length = CHUNK_PAGES * m->page;
  if (mincore (m->data + at, length, in_memory) == 0)
    for (i = 0; i < CHUNK_PAGES; i++)
      bits |= (uint32_t) (in_memory[i] & 1) << i;
  return bits;
}

/* Whether the pages of a chunk that are wanted are in memory. */
static bool
is_in_memory (const struct image *img, uint64_t chunk, uint32_t wanted)
{
  _Atomic uint64_t *place = &img->map.seen[chunk % SEEN_PLACES];
  uint64_t when = now_ms () / img->map.unit_ms;
  /* 0 is no time, so that nothing is known of places never used. */
  uint64_t tag = (chunk / SEEN_PLACES << TIME_BITS |
                  (when % ((1u << TIME_BITS) - 1) + 1)) << 32;
  uint64_t seen = atomic_load_explicit (place, memory_order_relaxed);

  if ((seen ^ tag) >> 32 != 0 || (wanted & ~(uint32_t) seen)) {
    seen = tag | ask (img, chunk);
    atomic_store_explicit (place, seen, memory_order_relaxed);
  }
  return (wanted & ~(uint32_t) seen) == 0;
}

void
map_forget (struct image *img, uint64_t offset, uint64_t length)
{
  struct image_map *m = &img->map;
  uint64_t bytes = CHUNK_PAGES * m->page, chunk, end;

  if (m->data == NULL || length == 0)
    return;
  copy_forget (img, offset, length);
  chunk = offset / bytes;
  end = (offset + length - 1) / bytes + 1;
  if (end - chunk > SEEN_PLACES)
    end = chunk + SEEN_PLACES;
  for (; chunk < end; chunk++)
    atomic_store_explicit (&m->seen[chunk % SEEN_PLACES], 0,
                           memory_order_relaxed);
}

const void *
image_mapped (struct store *store, uint64_t offset, uint64_t length, bool own)
{
  struct image *img = image_of (store);
  struct image_map *m = &img->map;
  uint64_t page, end;
  uint32_t wanted;
  unsigned i, n;

  if ((own ? m->own : m->data) == NULL || (own && store->map_failed) ||
      length == 0 || length > PART_MAX || !map_use (img, offset, length))
    return NULL;
  end = (offset + length - 1) / m->page + 1;
  for (page = offset / m->page; page < end; page += n) {
    i = page % CHUNK_PAGES;
    n = CHUNK_PAGES - i;
    if (n > end - page)
      n = end - page;
    wanted = (uint32_t) ((UINT64_C (1) << n) - 1) << i;
    if (!is_in_memory (img, page / CHUNK_PAGES, wanted))
      return NULL;
  }
  return (own ? m->own : m->data) + offset;
}
