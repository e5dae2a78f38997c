/* SPDX-License-Identifier: BSD-3-Clause */
/* Data copied by this program, to and from its own mapping of the image: to
 * have the kernel do it takes as long again, for it has to find each page.
 *
 * Reads are, wherever the data is in memory.  Writes are only where it is
 * nowhere else, on tmpfs: elsewhere the kernel wants to know of each page that
 * is written to, which costs more.  What writes to a hole is the kernel's, who
 * has no need to clear the page first.  What is written again is copied, once
 * the kernel has been told to map those pages, many at a time: as if they were
 * read, for then it maps those around too, and on tmpfs they may be written to
 * just the same.  That is as quick as the write would have been, and each
 * further one takes a third of it.
 *
 * Which pages exist, and which are mapped, is remembered, a bit each.  That is
 * a hint: where it is wrong (somebody else punched the file) the kernel gives
 * the page when it is touched; or it cannot, for want of space, and then the
 * mapping has failed, and what was written there counts for nothing and is
 * written the other way.
 */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "image-internal.h"

#ifndef MADV_POPULATE_READ      /* Linux 5.14 */
#define MADV_POPULATE_READ 22
#endif

/* Of so many pages in a row, a bit each. */
#define ROW 64
struct copy_pages {
  _Atomic uint64_t exist, mapped;
};

bool
copy_may_write (const struct image *img)
{
  return !img->store.readonly && image_forgets (img->fd);
}

static size_t
pages_size (const struct image *img)
{
  return (img->sb.size / img->map.page / ROW + 1) *
    sizeof (struct copy_pages);
}

/* For the largest disk, too: there is memory only for parts that are written
 * to. */
void
copy_start (struct image *img)
{
  void *p = mmap (NULL, pages_size (img), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  img->map.pages = p == MAP_FAILED ? NULL : p;
}

void
copy_stop (struct image *img)
{
  if (img->map.pages)
    munmap (img->map.pages, pages_size (img));
}

/* Goes through the pages of a part of the data, a row at a time. */
struct walk {
  uint64_t page, end;
  struct copy_pages *row;       /* these are in, */
  uint64_t bits;                /* with those bits */
  uint64_t first;               /* and from that one on */
};

/* False where nothing is copied. */
static inline bool
walk_begin (const struct image *img, struct walk *w, uint64_t offset,
            uint64_t length)
{
  uint64_t page = img->map.page;

  if (img->map.pages == NULL)
    return false;
  w->page = offset / page;
  w->end = (offset + length + page - 1) / page;
  return true;
}

static bool
walk_on (const struct image *img, struct walk *w)
{
  unsigned i = w->page % ROW, n = ROW - i;

  if (w->page == w->end)
    return false;
  if (n > w->end - w->page)
    n = w->end - w->page;
  w->row = &img->map.pages[w->page / ROW];
  w->bits = UINT64_MAX >> (ROW - n) << i;
  w->first = w->page;
  w->page += n;
  return true;
}

static bool
has (_Atomic uint64_t *of, uint64_t bits)
{
  return (bits & ~atomic_load_explicit (of, memory_order_relaxed)) == 0;
}

void
copy_exists (struct image *img, uint64_t offset, uint64_t length)
{
  struct walk w;

  if (length == 0 || !walk_begin (img, &w, offset, length))
    return;
  while (walk_on (img, &w))
    if (!has (&w.row->exist, w.bits))
      atomic_fetch_or (&w.row->exist, w.bits);
}

/* They are not mapped any more; nor are they there, perhaps. */
static void
clear (struct image *img, uint64_t offset, uint64_t length, bool gone)
{
  struct walk w;

  if (!walk_begin (img, &w, offset, length))
    return;
  while (walk_on (img, &w))
    if (atomic_load_explicit (&w.row->exist, memory_order_relaxed) & w.bits) {
      if (gone)
        atomic_fetch_and (&w.row->exist, ~w.bits);
      atomic_fetch_and (&w.row->mapped, ~w.bits);
    }
}

void
copy_unmapped (struct image *img, uint64_t offset, uint64_t length)
{
  clear (img, offset, length, false);
}

void
copy_forget (struct image *img, uint64_t offset, uint64_t length)
{
  clear (img, offset, length, true);
}

/* Has the kernel map pages that exist, and those behind them in their row
 * that do, which are written to next. */
static bool
populate (struct image *img, struct walk w)
{
  struct image_map *m = &img->map;
  uint64_t from = w.page;
  int r;

  while (w.end % ROW > 0 && (w.end + 1) * m->page <= img->sb.size &&
         has (&m->pages[w.end / ROW].exist, UINT64_C (1) << w.end % ROW))
    w.end++;
  do
    r = madvise (m->own + from * m->page, (w.end - from) * m->page,
                 MADV_POPULATE_READ);
  while (r == -1 && errno == EINTR);
  if (r == -1) {
    m->cannot_populate = errno == EINVAL;
    return false;
  }
  while (walk_on (img, &w))
    atomic_fetch_or (&w.row->mapped, w.bits);
  return true;
}

/* Whether the pages of a write are mapped, or can be now. */
static bool
are_mapped (struct image *img, const struct store_io *io)
{
  struct walk w, rest;
  bool r = true;

  if (!walk_begin (img, &w, io->offset, io->length))
    return false;
  rest = w;
  while (walk_on (img, &w)) {
    if (!has (&w.row->exist, w.bits))
      return false;
    if (r && !has (&w.row->mapped, w.bits)) {
      rest.page = w.first;
      r = false;
    }
  }
  return r || populate (img, rest);
}

#ifdef __SSE2__
/* As memcpy, and as pages are: but past the processor's caches, where what is
 * written would be read from memory first, only to be in the way. */
static __attribute__ ((noinline)) void
memcpy_past_cache (uint8_t *to, const uint8_t *from, size_t length)
{
  size_t i;
  unsigned k;

  for (i = 0; i < length; i += 4 * sizeof (__m128i)) {
    __m128i part[4];

    for (k = 0; k < 4; k++)
      part[k] = _mm_loadu_si128 ((const __m128i *) (from + i) + k);
    for (k = 0; k < 4; k++)
      _mm_stream_si128 ((__m128i *) (to + i) + k, part[k]);
  }
}

static void
copy_piece (uint8_t *to, const uint8_t *from, size_t length)
{
  if (((uintptr_t) to | length) % (4 * sizeof (__m128i)) == 0)
    memcpy_past_cache (to, from, length);
  else
    memcpy (to, from, length);
}

/* Before somebody is told that it is there. */
static void
copies_end (void)
{
  _mm_sfence ();
}
#else
#define copy_piece memcpy
#define copies_end() ((void) 0)
#endif

bool
copy_write (struct image *img, const struct store_io *io)
{
  struct image_map *m = &img->map;
  uint8_t *at;
  unsigned i;

  if (m->pages == NULL || m->cannot_populate || img->store.map_failed ||
      !map_use (img, io->offset, io->length) || !are_mapped (img, io))
    return false;
  at = m->own + io->offset;
  for (i = 0; i < io->niov; i++) {
    copy_piece (at, io->iov[i].iov_base, io->iov[i].iov_len);
    at += io->iov[i].iov_len;
  }
  copies_end ();
  return !img->store.map_failed;
}

bool
copy_read (struct image *img, void *buf, uint64_t length, uint64_t offset)
{
  const void *from = image_mapped (&img->store, offset, length, true);

  if (from == NULL)
    return false;
  memcpy (buf, from, length);
  return !img->store.map_failed;
}
