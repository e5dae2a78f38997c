/* SPDX-License-Identifier: BSD-3-Clause */
/* UTF-8, which strings of NBD and JSON are; what users name things with need
 * not be. */

#ifndef ZONE_UTF8_H
#define ZONE_UTF8_H

#include <stdint.h>

/* The length of the sequence at p, in a string that ends with NUL; 0 where
 * there is none.  Overlong forms, surrogates and what lies past U+10FFFF are
 * none. */
static inline unsigned
utf8_length (const unsigned char *p)
{
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  unsigned n, i;
  uint32_t c;

  if (p[0] < 0x80)
    return 1;
  n = p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 :
      p[0] >= 0xc0 && p[0] < 0xe0 ? 2 : 0;
  if (n == 0)
    return 0;
  c = p[0] & (0x7f >> n);
  for (i = 1; i < n; ++i) {
    if ((p[i] & 0xc0) != 0x80)
      return 0;
    c = c << 6 | (p[i] & 0x3f);
  }
  if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
    return 0;
  return n;
}

#endif /* ZONE_UTF8_H */
