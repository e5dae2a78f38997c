/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS for all connections: who may connect how, and what the server shows
 * for itself.  conn-tls.h is TLS on one connection.
 *
 * Keys and certificates are read once, by tls_load, before there are
 * threads; the loops share them and change nothing of them.
 */

#ifndef SERVER_TLS_H
#define SERVER_TLS_H

#include <stdbool.h>

#include <gnutls/gnutls.h>

#include "error.h"
#include "options.h"

/* Reads what the options name, unless TLS is off.  Returns 0, or -1 with
 * the error. */
int tls_load (const struct options *o, struct zone_error *err);
void tls_unload (void);

/* Whether a client may begin TLS, and whether it has to. */
bool tls_is_offered (void);
bool tls_is_required (void);

/* For a URI: the folder of certificates or the file of keys, and the first
 * user of that; NULL where there is none. */
const char *tls_certificates (void);
const char *tls_psk_file (void);
const char *tls_psk_user (void);

/* tls-psk.c: reads a file of keys for credentials.  Returns 0, or -1 with
 * the error. */
int tls_psk_load (const char *path,
                  gnutls_psk_server_credentials_t *credentials,
                  struct zone_error *err);
void tls_psk_unload (void);

/* A server's session, with everything but where its bytes come from and go
 * to.  Returns 0 or an error of GnuTLS's. */
int tls_session_new (gnutls_session_t *session);

#endif /* SERVER_TLS_H */
