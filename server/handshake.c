/* SPDX-License-Identifier: BSD-3-Clause */
/* The fixed newstyle handshake.  An option is answered when all of it is
 * there, so that its length is known to be right before anything of it is
 * looked at.
 */

#include <config.h>

#include <ctype.h>
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "conn-tls.h"
#include "debug.h"
#include "handshake.h"
#include "log.h"
#include "loop.h"
#include "tls.h"
#include "trace.h"

/* An option's data.  More is skipped, up to what is beyond all reason. */
#define OPTION_MAX (64u << 10)
#define OPTION_SKIP_MAX (16u << 20)

/* Options of one connection. */
#define OPTIONS_MAX 1000

void
handshake_greet (struct conn *c)
{
  struct proto_greeting greeting = {
    .magic = htobe64 (NBD_MAGIC),
    .option_magic = htobe64 (NBD_OPTION_MAGIC),
    .flags = htobe16 (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
  };

  conn_out (c, &greeting, sizeof greeting);
}

void
option_reply (struct conn *c, uint32_t option, uint32_t type,
              const void *data, size_t length)
{
  struct proto_option_reply reply = {
    .magic = htobe64 (NBD_OPTION_REPLY_MAGIC),
    .option = htobe32 (option),
    .type = htobe32 (type),
    .length = htobe32 (length),
  };

  conn_out (c, &reply, sizeof reply);
  if (length > 0)
    conn_out (c, data, length);
}

/* Ends a text of n bytes that was cut off before a character, not in one. */
static void
mend_end (char *text, size_t n)
{
  while (n > 0 && ((unsigned char) text[n - 1] & 0xc0) == 0x80)
    n--;
  if (n > 0 && (unsigned char) text[n - 1] >= 0xc0)
    text[n - 1] = '\0';
}

void
option_error (struct conn *c, uint32_t option, uint32_t type,
              const char *fs, ...)
{
  char text[256];
  va_list args;
  int n;

  va_start (args, fs);
  n = vsnprintf (text, sizeof text, fs, args);
  va_end (args);
  if (n >= (int) sizeof text)
    mend_end (text, sizeof text - 1);
  log_verbose ("connection %d: option %u: %s", c->fd, option, text);
  option_reply (c, option, type, text, strlen (text));
}

bool
option_u16 (struct option_data *d, uint16_t *v)
{
  if (d->left < sizeof *v)
    return false;
  memcpy (v, d->p, sizeof *v);
  *v = be16toh (*v);
  d->p += sizeof *v;
  d->left -= sizeof *v;
  return true;
}

bool
option_u32 (struct option_data *d, uint32_t *v)
{
  if (d->left < sizeof *v)
    return false;
  memcpy (v, d->p, sizeof *v);
  *v = be32toh (*v);
  d->p += sizeof *v;
  d->left -= sizeof *v;
  return true;
}

bool
option_string (struct option_data *d, const char **s, size_t *length)
{
  uint32_t n;

  if (!option_u32 (d, &n) || n > d->left || n > NBD_MAX_STRING ||
      memchr (d->p, '\0', n))
    return false;
  *s = (const char *) d->p;
  *length = n;
  d->p += n;
  d->left -= n;
  return true;
}

static void
no_export (struct conn *c, uint32_t option, const char *name, size_t length)
{
  char shown[65];
  size_t i;

  for (i = 0; i < sizeof shown - 1 && i < length; i++)
    shown[i] = isprint ((unsigned char) name[i]) ? name[i] : '?';
  shown[i] = '\0';
  if (nexports > 1)
    option_error (c, option, NBD_REP_ERR_UNKNOWN, "no export \"%s\"%s: there "
                  "are \"%s\", the disk, and \"%s\", its zone table", shown,
                  i < length ? "..." : "", exports[0].name, exports[1].name);
  else
    option_error (c, option, NBD_REP_ERR_UNKNOWN, "no export \"%s\"%s: there "
                  "is \"%s\"", shown, i < length ? "..." : "",
                  exports[0].name);
}

/* The same for INFO and GO: what a client is told it may count on. */
static uint16_t
flags_of (const struct conn *c, const struct export *e)
{
  uint16_t flags = export_flags (e);

  if (c->structured || c->extended)
    flags |= NBD_FLAG_SEND_DF;
  if (c->extended && c->contexts && c->contexts_export == e)
    flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
  return flags;
}

/* Requests come next.  False where there is no memory for that. */
static bool
begin (struct conn *c, const struct export *e)
{
  c->client = zdisk_client_new (e->disk, e->readonly);
  if (c->client == NULL) {
    conn_kill (c, "no memory for a client");
    return false;
  }
  if (c->contexts_export != e)
    c->contexts = 0;
  c->export = e;
  c->phase = CONN_TRANSMISSION;
  c->loop->nwatched--;
  log_verbose ("connection %d: export \"%s\"%s", c->fd, e->name,
               c->extended ? ", extended headers"
               : c->structured ? ", structured replies" : "");
  return true;
}

static void
option_export_name (struct conn *c, struct option_data d)
{
  const struct export *e = export_find ((const char *) d.p, d.left);
  static const uint8_t zeroes[124];
  struct {
    uint64_t size;
    uint16_t flags;
  } __attribute__ ((packed)) reply;

  if (e == NULL) {
    /* This option has no way to say so. */
    conn_kill (c, "asks for an export that there is not");
    return;
  }
  reply.size = htobe64 (e->size);
  reply.flags = htobe16 (flags_of (c, e));
  if (!begin (c, e))
    return;
  conn_out (c, &reply, sizeof reply);
  if (!c->no_zeroes)
    conn_out (c, zeroes, sizeof zeroes);
}

static void
option_list (struct conn *c, struct option_data d)
{
  unsigned i;

  if (d.left > 0) {
    option_error (c, NBD_OPT_LIST, NBD_REP_ERR_INVALID,
                  "NBD_OPT_LIST has no data");
    return;
  }
  for (i = 0; i < nexports; i++) {
    const struct export *e = &exports[i];
    size_t n = strlen (e->name), m = strlen (e->description);
    uint8_t buf[sizeof (uint32_t) + NBD_MAX_STRING + 512];
    uint32_t be = htobe32 (n);

    memcpy (buf, &be, sizeof be);
    memcpy (buf + sizeof be, e->name, n);
    if (sizeof be + n + m > sizeof buf)
      m = 0;
    memcpy (buf + sizeof be + n, e->description, m);
    option_reply (c, NBD_OPT_LIST, NBD_REP_SERVER, buf, sizeof be + n + m);
  }
  option_reply (c, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static void
info_string (struct conn *c, uint32_t option, uint16_t info, const char *s)
{
  uint8_t buf[sizeof info + NBD_MAX_STRING];
  uint16_t be = htobe16 (info);
  size_t n = strnlen (s, NBD_MAX_STRING);

  memcpy (buf, &be, sizeof be);
  memcpy (buf + sizeof be, s, n);
  option_reply (c, option, NBD_REP_INFO, buf, sizeof be + n);
}

static void
info_block_size (struct conn *c, uint32_t option, const struct export *e)
{
  struct {
    uint16_t info;
    uint32_t min, preferred, max;
  } __attribute__ ((packed)) reply = {
    .info = htobe16 (NBD_INFO_BLOCK_SIZE),
    .min = htobe32 (e->min_block),
    .preferred = htobe32 (e->preferred_block),
    .max = htobe32 (e->max_block),
  };

  option_reply (c, option, NBD_REP_INFO, &reply, sizeof reply);
}

/* INFO and GO. */
static void
option_info (struct conn *c, uint32_t option, struct option_data d)
{
  struct {
    uint16_t info;
    uint64_t size;
    uint16_t flags;
  } __attribute__ ((packed)) reply = { .info = htobe16 (NBD_INFO_EXPORT) };
  bool name = false, description = false;
  const struct export *e;
  const char *s;
  size_t length;
  uint16_t n, info;

  if (!option_string (&d, &s, &length) || !option_u16 (&d, &n) ||
      d.left != n * sizeof info) {
    option_error (c, option, NBD_REP_ERR_INVALID, "%s: its lengths do not "
                  "fit together", option == NBD_OPT_GO ? "NBD_OPT_GO"
                  : "NBD_OPT_INFO");
    return;
  }
  e = export_find (s, length);
  if (e == NULL) {
    no_export (c, option, s, length);
    return;
  }
  while (option_u16 (&d, &info)) {
    name = name || info == NBD_INFO_NAME;
    description = description || info == NBD_INFO_DESCRIPTION;
  }

  reply.size = htobe64 (e->size);
  reply.flags = htobe16 (flags_of (c, e));
  option_reply (c, option, NBD_REP_INFO, &reply, sizeof reply);
  info_block_size (c, option, e);
  if (name)
    info_string (c, option, NBD_INFO_NAME, e->name);
  if (description)
    info_string (c, option, NBD_INFO_DESCRIPTION, e->description);
  if (option == NBD_OPT_GO && !begin (c, e))
    return;
  option_reply (c, option, NBD_REP_ACK, NULL, 0);
}

static void
option_replies (struct conn *c, uint32_t option, struct option_data d)
{
  if (d.left > 0)
    option_error (c, option, NBD_REP_ERR_INVALID, "this option has no data");
  else if (c->extended)
    option_error (c, option, NBD_REP_ERR_INVALID,
                  "extended headers are negotiated already");
  else if (option == NBD_OPT_STRUCTURED_REPLY && c->structured)
    option_error (c, option, NBD_REP_ERR_INVALID,
                  "structured replies are negotiated already");
  else {
    if (option == NBD_OPT_EXTENDED_HEADERS)
      c->extended = true;
    c->structured = true;
    option_reply (c, option, NBD_REP_ACK, NULL, 0);
  }
}

/* What came behind this option in plain text may be from someone on the way,
 * and would be taken for what the client says by TLS; so may be what was
 * negotiated before. */
static void
option_starttls (struct conn *c, struct option_data d)
{
  if (d.left > 0)
    option_error (c, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID,
                  "this option has no data");
  else if (c->tls)
    option_error (c, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID,
                  "this is TLS already");
  else if (!tls_is_offered ())
    option_error (c, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY,
                  "this server is run without TLS");
  else if (d.behind > 0)
    conn_kill (c, "sends something in plain text behind NBD_OPT_STARTTLS");
  else {
    c->structured = c->extended = false;
    c->contexts = 0;
    c->contexts_export = NULL;
    option_reply (c, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
    conn_tls_begin (c);
  }
}

/* Nothing else is answered before TLS where that is required. */
static bool
needs_tls (const struct conn *c, uint32_t option)
{
  return tls_is_required () && c->tls == NULL &&
    option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT;
}

static void
refuse_without_tls (struct conn *c, uint32_t option)
{
  if (option == NBD_OPT_EXPORT_NAME)
    conn_kill (c, "asks for an export without TLS");
  else
    option_error (c, option, NBD_REP_ERR_TLS_REQD,
                  "this server wants TLS first");
}

static void
handle_option (struct conn *c, uint32_t option, struct option_data d)
{
  if (!c->fixed && option != NBD_OPT_EXPORT_NAME) {
    /* Such a client does not understand replies. */
    conn_kill (c, "sends options without NBD_FLAG_C_FIXED_NEWSTYLE");
    return;
  }
  if (needs_tls (c, option)) {
    refuse_without_tls (c, option);
    return;
  }
  switch (option) {
  case NBD_OPT_EXPORT_NAME:
    option_export_name (c, d);
    break;
  case NBD_OPT_ABORT:
    option_reply (c, option, NBD_REP_ACK, NULL, 0);
    conn_drain (c);
    break;
  case NBD_OPT_LIST:
    option_list (c, d);
    break;
  case NBD_OPT_STARTTLS:
    option_starttls (c, d);
    break;
  case NBD_OPT_INFO:
  case NBD_OPT_GO:
    option_info (c, option, d);
    break;
  case NBD_OPT_STRUCTURED_REPLY:
  case NBD_OPT_EXTENDED_HEADERS:
    option_replies (c, option, d);
    break;
  case NBD_OPT_LIST_META_CONTEXT:
  case NBD_OPT_SET_META_CONTEXT:
    option_meta_context (c, option, d);
    break;
  default:
    option_error (c, option, NBD_REP_ERR_UNSUP, "unknown option %u", option);
  }
}

static ssize_t
parse_flags (struct conn *c, const uint8_t *p, size_t n)
{
  uint32_t flags;

  if (n < sizeof flags)
    return 0;
  memcpy (&flags, p, sizeof flags);
  flags = be32toh (flags);
  if (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
    conn_kill (c, "unknown handshake flags");
    return 0;
  }
  c->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
  c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
  c->phase = CONN_OPTIONS;
  return sizeof flags;
}

ssize_t
handshake_parse (struct conn *c, const uint8_t *p, size_t n)
{
  struct proto_option head;
  uint32_t option, length;

  if (c->phase == CONN_FLAGS)
    return parse_flags (c, p, n);
  if (n < sizeof head)
    return 0;
  memcpy (&head, p, sizeof head);
  option = be32toh (head.option);
  length = be32toh (head.length);
  if (be64toh (head.magic) != NBD_OPTION_MAGIC) {
    conn_kill (c, "wrong option magic");
    return 0;
  }
  if (length > OPTION_SKIP_MAX ||
      (length > NBD_MAX_STRING && option == NBD_OPT_EXPORT_NAME)) {
    conn_kill (c, "an option is far too large");
    return 0;
  }
  if (length <= OPTION_MAX && n - sizeof head < length)
    return 0;
  if (++c->noptions > OPTIONS_MAX) {
    conn_kill (c, "options without end");
    return 0;
  }
  if (length > OPTION_MAX) {
    c->skip = length;
    if (needs_tls (c, option))
      refuse_without_tls (c, option);
    else
      option_error (c, option, NBD_REP_ERR_TOO_BIG,
                    "an option has at most %u bytes", OPTION_MAX);
    return sizeof head;
  }
  if (debug_is_on (server_options))
    debug ("connection %d: %s, %u bytes", c->fd, trace_option (option),
           length);
  handle_option (c, option, (struct option_data) {
      .p = p + sizeof head, .left = length,
      .behind = n - sizeof head - length });
  return sizeof head + length;
}
