/* SPDX-License-Identifier: BSD-3-Clause */
/* The image's structs: bytes to numbers and back, and their checksums.
 * No I/O.
 */

#include <config.h>

#include <string.h>
#include <zlib.h>

#include "image-internal.h"

_Static_assert (ZONE_NON_SEQ == IMAGE_NON_SEQ &&
                ZONE_RESET_REC == IMAGE_RESET_REC, "flags are stored as is");

static uint32_t
crc (uint32_t seed, const void *p, size_t length)
{
  return crc32 (seed, p, length);
}

uint32_t
image_seed (const uint8_t uuid[16])
{
  return crc (crc32 (0, NULL, 0), uuid, 16);
}

bool
image_is_zero (const void *p, size_t length)
{
  const uint8_t *b = p;

  return length == 0 || (b[0] == 0 && memcmp (b, b + 1, length - 1) == 0);
}

static void
swap_superblock (struct image_superblock *sb)
{
  sb->version = le32toh (sb->version);
  sb->crc = le32toh (sb->crc);
  sb->size = le64toh (sb->size);
  sb->zone_size = le64toh (sb->zone_size);
  sb->zone_capacity = le64toh (sb->zone_capacity);
  sb->zones = le32toh (sb->zones);
  sb->conventional = le32toh (sb->conventional);
  sb->max_open = le32toh (sb->max_open);
  sb->max_active = le32toh (sb->max_active);
  sb->max_append = le32toh (sb->max_append);
  sb->granularity = le32toh (sb->granularity);
  sb->model = le32toh (sb->model);
  sb->volatile_offset = le64toh (sb->volatile_offset);
  sb->table_offset[0] = le64toh (sb->table_offset[0]);
  sb->table_offset[1] = le64toh (sb->table_offset[1]);
  sb->data_offset = le64toh (sb->data_offset);
  sb->file_size = le64toh (sb->file_size);
  sb->log_offset = le64toh (sb->log_offset);
  sb->log_size = le64toh (sb->log_size);
}

void
image_encode_superblock (const struct image_superblock *from, void *block)
{
  struct image_superblock *sb = block;

  *sb = *from;
  memcpy (sb->magic, IMAGE_MAGIC, 8);
  swap_superblock (sb);
  sb->crc = 0;
  sb->crc = htole32 (crc (0, sb, sizeof *sb));
}

uint32_t
image_peek_version (const void *block)
{
  const struct image_superblock *sb = block;

  return memcmp (sb->magic, IMAGE_MAGIC, 8) == 0 ? le32toh (sb->version) : 0;
}

bool
image_decode_superblock (const void *block, struct image_superblock *sb)
{
  uint32_t stored;

  memcpy (sb, block, sizeof *sb);
  stored = le32toh (sb->crc);
  sb->crc = 0;
  if (image_peek_version (block) < IMAGE_VERSION_NO_LOG ||
      image_peek_version (block) > IMAGE_VERSION ||
      crc (0, sb, sizeof *sb) != stored)
    return false;
  swap_superblock (sb);
  return true;
}

static void
swap_payload (struct image_payload *p)
{
  p->commit = le64toh (p->commit);
  p->wp = le64toh (p->wp);
}

static void
swap_commit (struct image_commit *c)
{
  c->flags = le32toh (c->flags);
  c->number = le64toh (c->number);
  c->epoch = le64toh (c->epoch);
  c->sum = le64toh (c->sum);
  swap_payload (&c->parity);
  c->session = le64toh (c->session);
}

void
image_encode_commit (const struct image_commit *from, uint32_t seed,
                     void *sector)
{
  struct image_commit *c = sector;

  *c = *from;
  memcpy (c->magic, IMAGE_COMMIT_MAGIC, 8);
  swap_commit (c);
  c->crc = 0;
  c->crc = htole32 (crc (seed, c, sizeof *c));
}

bool
image_decode_commit (const void *sector, uint32_t seed,
                     struct image_commit *c)
{
  uint32_t stored;

  memcpy (c, sector, sizeof *c);
  stored = le32toh (c->crc);
  c->crc = 0;
  if (memcmp (c->magic, IMAGE_COMMIT_MAGIC, 8) != 0 ||
      crc (seed, c, sizeof *c) != stored)
    return false;
  swap_commit (c);
  return true;
}

void
image_encode_record (uint32_t zone, const struct image_payload *p,
                     uint32_t seed, struct image_record *r)
{
  memset (r, 0, sizeof *r);
  r->zone = htole32 (zone);
  r->p = *p;
  swap_payload (&r->p);
  r->crc = htole32 (crc (seed, r, sizeof *r));
}

bool
image_decode_record (const struct image_record *from, uint32_t zone,
                     uint32_t seed, struct image_payload *p)
{
  struct image_record r = *from;

  memset (p, 0, sizeof *p);
  if (image_is_zero (from, sizeof *from))
    return true;
  r.crc = 0;
  if (crc (seed, &r, sizeof r) != le32toh (from->crc) ||
      le32toh (r.zone) != zone)
    return false;
  swap_payload (&r.p);
  *p = r.p;
  return true;
}

static void
swap_log (struct image_log_entry *e)
{
  unsigned i;

  e->commit = le64toh (e->commit);
  e->session = le64toh (e->session);
  e->number = le64toh (e->number);
  e->length = le64toh (e->length);
  e->durable = le64toh (e->durable);
  for (i = 0; i < e->items; i++) {
    e->item[i].zone = le32toh (e->item[i].zone);
    e->item[i].length = le32toh (e->item[i].length);
    e->item[i].offset = le64toh (e->item[i].offset);
    e->item[i].wp = le64toh (e->item[i].wp);
  }
}

static uint32_t
log_crc (const struct image_log_entry *e, uint32_t items, const void *data,
         uint64_t length, uint32_t seed)
{
  return crc (crc (seed, e, offsetof (struct image_log_entry, item) +
                   items * sizeof e->item[0]), data, length);
}

void
image_encode_log (struct image_log_entry *e, const void *data, uint32_t seed)
{
  uint32_t items = e->items;
  uint64_t length = e->length;

  memcpy (e->magic, IMAGE_LOG_MAGIC, 8);
  swap_log (e);
  e->items = htole32 (items);
  e->crc = 0;
  e->crc = htole32 (log_crc (e, items, data, length, seed));
}

bool
image_decode_log (const void *from, uint64_t size, uint32_t seed,
                  struct image_log_entry *e)
{
  uint32_t stored, items;

  memcpy (e, from, sizeof *e);
  items = le32toh (e->items);
  stored = le32toh (e->crc);
  e->crc = 0;
  if (memcmp (e->magic, IMAGE_LOG_MAGIC, 8) != 0 ||
      items > IMAGE_LOG_ITEMS || le64toh (e->length) > size - sizeof *e ||
      log_crc (e, items, (const uint8_t *) from + sizeof *e,
               le64toh (e->length), seed) != stored)
    return false;
  e->items = items;
  swap_log (e);
  return true;
}

/* The finalizer of splitmix64. */
static uint64_t
mix (uint64_t x)
{
  x += UINT64_C (0x9e3779b97f4a7c15);
  x = (x ^ x >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C (0x94d049bb133111eb);
  return x ^ x >> 31;
}

uint64_t
image_mix (uint32_t zone, const struct image_payload *p)
{
  if (p->commit == 0)
    return 0;
  return mix (mix (mix (mix (zone) ^ p->commit) ^ p->wp) ^
              (p->cond | (uint64_t) p->flags << 8));
}

void
image_xor (struct image_payload *to, const struct image_payload *p)
{
  const uint8_t *from = (const uint8_t *) p;
  uint8_t *b = (uint8_t *) to;
  size_t i;

  for (i = 0; i < sizeof *to; i++)
    b[i] ^= from[i];
}

/* CRC-16/CCITT of the low 48 bits: finds every flipped bit. */
static uint16_t
crc16 (uint64_t word)
{
  uint16_t c = 0, x;
  int shift;

  /* A byte at a time, by what its polynomial's few bits make of it. */
  for (shift = 40; shift >= 0; shift -= 8) {
    x = c >> 8 ^ (word >> shift & 0xff);
    x ^= x >> 4;
    c = c << 8 ^ x << 12 ^ x << 5 ^ x;
  }
  return c;
}

/* Sixteen bits over the word, and where and when it was written. */
static uint64_t
slot_check (uint64_t word, uint32_t zone, uint64_t session)
{
  return (uint16_t) (crc16 (word) ^ mix (session + zone) >> 48);
}

uint64_t
image_encode_slot (uint32_t zone, uint64_t wp, uint8_t flags,
                   uint64_t session)
{
  uint64_t word = wp / 512 | IMAGE_SLOT_VALID |
    (uint64_t) flags << IMAGE_SLOT_FLAGS_SHIFT;

  return word | slot_check (word, zone, session) << IMAGE_SLOT_CHECK_SHIFT;
}

bool
image_decode_slot (uint64_t slot, uint32_t zone, uint64_t session,
                   uint64_t *wp, uint8_t *flags)
{
  uint64_t word = slot & ((UINT64_C (1) << IMAGE_SLOT_CHECK_SHIFT) - 1);

  if (!(word & IMAGE_SLOT_VALID) || word >> (IMAGE_SLOT_FLAGS_SHIFT + 2) ||
      slot >> IMAGE_SLOT_CHECK_SHIFT != slot_check (word, zone, session))
    return false;
  *wp = (word & ((UINT64_C (1) << IMAGE_SLOT_WP_BITS) - 1)) * 512;
  *flags = word >> IMAGE_SLOT_FLAGS_SHIFT & 3;
  return true;
}

static uint64_t
round_up (uint64_t n, uint64_t to)
{
  return (n + to - 1) / to * to;
}

static uint64_t
log_size (const struct image_superblock *sb)
{
  uint64_t size = sb->size / IMAGE_LOG_SHARE / IMAGE_LOG_MIN * IMAGE_LOG_MIN;

  if (sb->version == IMAGE_VERSION_NO_LOG)
    return 0;
  if (size < IMAGE_LOG_MIN)
    return IMAGE_LOG_MIN;
  return size < IMAGE_LOG_MAX ? size : IMAGE_LOG_MAX;
}

void
image_layout (struct image_superblock *sb)
{
  uint64_t table = round_up ((uint64_t) sb->zones *
                             sizeof (struct image_record), IMAGE_BLOCK);

  sb->volatile_offset = IMAGE_VOLATILE_OFFSET;
  sb->table_offset[0] = sb->volatile_offset +
    round_up (((uint64_t) sb->zones + 1) * 8, IMAGE_BLOCK);
  sb->table_offset[1] = sb->table_offset[0] + table;
  sb->log_size = log_size (sb);
  sb->log_offset = sb->log_size ? sb->table_offset[1] + table : 0;
  sb->data_offset = round_up (sb->table_offset[1] + table + sb->log_size,
                              IMAGE_ALIGN);
  sb->file_size = sb->data_offset + sb->size;
}

uint8_t
image_cond (const struct zones *zs, uint32_t zone, uint8_t cond, uint64_t wp)
{
  if (cond == ZNBD_COND_READ_ONLY || cond == ZNBD_COND_OFFLINE)
    return cond;
  if (wp == zones_capacity (zs, &zs->zone[zone]))
    return ZNBD_COND_FULL;
  return wp > 0 ? ZNBD_COND_CLOSED : ZNBD_COND_EMPTY;
}
