/* SPDX-License-Identifier: BSD-3-Clause */
/* See tls.h.  A client proves that it may connect by a certificate (with
 * --tls-verify-peer) or by a pre-shared key; there are either certificates
 * or keys.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnutls/x509.h>

#include "tls.h"

/* What the system's administrator allows, but never less than TLS 1.2.
 * Pre-shared keys are in no system's default; with them there is always a
 * Diffie-Hellman exchange too, so that a key that leaks some day does not
 * open what was recorded before. */
#define PRIORITY "-VERS-SSL3.0:-VERS-TLS1.0:-VERS-TLS1.1"
#define PRIORITY_PSK PRIORITY ":+ECDHE-PSK:+DHE-PSK"

/* All set by tls_load, before there are threads. */
static enum tls_mode mode;
static bool verify_peer;
static char *certificates;      /* the folder that they came from */
static char *psk_file;
static gnutls_priority_t priority;
static gnutls_certificate_credentials_t x509;
static gnutls_psk_server_credentials_t psk_credentials;

bool
tls_is_offered (void)
{
  return mode != TLS_OFF;
}

bool
tls_is_required (void)
{
  return mode == TLS_REQUIRE;
}

const char *
tls_certificates (void)
{
  return certificates;
}

const char *
tls_psk_file (void)
{
  return psk_file;
}

static int
no_memory (struct zone_error *err)
{
  return zone_error (err, ENOMEM, "no memory for TLS");
}

/* r is what loading a file returned: a number of things, or an error. */
static int
loaded (int r, const char *path, const char *what, struct zone_error *err)
{
  if (access (path, R_OK) == -1)
    return zone_error (err, errno, "%s: %s", path, strerror (errno));
  if (r < 0)
    return zone_error (err, EINVAL, "%s: %s", path, gnutls_strerror (r));
  if (r == 0)
    return zone_error (err, EINVAL, "%s: there is no %s in it", path, what);
  return 0;
}

static int
load_files (const char *ca, const char *crl, const char *cert,
            const char *key, struct zone_error *err)
{
  int r;

  if (gnutls_certificate_allocate_credentials (&x509) < 0)
    return no_memory (err);
  r = gnutls_certificate_set_x509_trust_file (x509, ca, GNUTLS_X509_FMT_PEM);
  if (loaded (r, ca, "certificate", err) == -1)
    return -1;
  if (access (crl, F_OK) == 0) {
    r = gnutls_certificate_set_x509_crl_file (x509, crl,
                                              GNUTLS_X509_FMT_PEM);
    if (loaded (r, crl, "revocation list", err) == -1)
      return -1;
  }
  if (loaded (1, cert, "", err) == -1)
    return -1;
  r = gnutls_certificate_set_x509_key_file (x509, cert, key,
                                            GNUTLS_X509_FMT_PEM);
  if (r == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
    return zone_error (err, EINVAL, "%s is not the key of %s", key, cert);
  if (loaded (1, key, "", err) == -1)
    return -1;
  return r < 0 ? zone_error (err, EINVAL, "%s, %s: %s", cert, key,
                             gnutls_strerror (r)) : 0;
}

static int
load_folder (const char *folder, struct zone_error *err)
{
  static const char *const names[] = {
    "ca-cert.pem", "ca-crl.pem", "server-cert.pem", "server-key.pem",
  };
  enum { N = sizeof names / sizeof names[0] };
  char *paths[N] = { NULL };
  int r = 0;
  unsigned i;

  for (i = 0; i < N && r == 0; i++)
    if (asprintf (&paths[i], "%s/%s", folder, names[i]) == -1) {
      paths[i] = NULL;
      r = no_memory (err);
    }
  if (r == 0)
    r = load_files (paths[0], paths[1], paths[2], paths[3], err);
  for (i = 0; i < N; i++)
    free (paths[i]);
  return r;
}

/* Where certificates are that no option names: root's in the system's
 * configuration, others' in their home.  The last one, if there is none. */
static char *
default_folder (void)
{
  const char *home = getenv ("HOME");
  char *folder;

  if (geteuid () == 0 || home == NULL)
    return strdup (SYSCONFDIR "/pki/znbd");
  if (asprintf (&folder, "%s/.pki/znbd", home) == -1)
    return NULL;
  if (access (folder, F_OK) == 0)
    return folder;
  free (folder);
  return asprintf (&folder, "%s/.config/pki/znbd", home) == -1 ? NULL
    : folder;
}

static int
load_certificates (const struct options *o, struct zone_error *err)
{
  certificates = o->tls_certificates ? realpath (o->tls_certificates, NULL)
    : default_folder ();
  if (certificates == NULL)
    return o->tls_certificates
      ? zone_error (err, errno, "%s: %s", o->tls_certificates,
                    strerror (errno))
      : no_memory (err);
  if (o->tls_certificates == NULL && access (certificates, F_OK) == -1)
    return zone_error (err, errno, "TLS needs certificates or keys: %s: %s; "
                       "use --tls-certificates or --tls-psk", certificates,
                       strerror (errno));
  return load_folder (certificates, err);
}

static int
load_keys (const struct options *o, struct zone_error *err)
{
  psk_file = realpath (o->tls_psk, NULL);
  if (psk_file == NULL)
    return zone_error (err, errno, "%s: %s", o->tls_psk, strerror (errno));
  return tls_psk_load (psk_file, &psk_credentials, err);
}

int
tls_load (const struct options *o, struct zone_error *err)
{
  const char *where;
  int r;

  mode = o->tls;
  verify_peer = o->tls_verify_peer;
  if (mode == TLS_OFF)
    return 0;
  r = gnutls_priority_init2 (&priority, o->tls_psk ? PRIORITY_PSK : PRIORITY,
                             &where, GNUTLS_PRIORITY_INIT_DEF_APPEND);
  if (r < 0)
    return zone_error (err, EINVAL, "GnuTLS does not take the system's "
                       "priorities: %s", gnutls_strerror (r));
  return o->tls_psk ? load_keys (o, err) : load_certificates (o, err);
}

void
tls_unload (void)
{
  if (x509)
    gnutls_certificate_free_credentials (x509);
  if (psk_credentials)
    gnutls_psk_free_server_credentials (psk_credentials);
  if (priority)
    gnutls_priority_deinit (priority);
  tls_psk_unload ();
  free (certificates);
  free (psk_file);
  x509 = NULL;
  psk_credentials = NULL;
  priority = NULL;
  certificates = psk_file = NULL;
  mode = TLS_OFF;
}

/* The certificates of clients are to be those of clients. */
static void
ask_for_certificate (gnutls_session_t session)
{
  static gnutls_typed_vdata_st purpose = {
    .type = GNUTLS_DT_KEY_PURPOSE_OID,
    .data = (unsigned char *) GNUTLS_KP_TLS_WWW_CLIENT,
  };

  gnutls_certificate_server_set_request (session, GNUTLS_CERT_REQUIRE);
  gnutls_session_set_verify_cert2 (session, &purpose, 1, 0);
}

int
tls_session_new (gnutls_session_t *session)
{
  int r = gnutls_init (session, GNUTLS_SERVER | GNUTLS_NONBLOCK |
                       GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);

  if (r < 0)
    return r;
  r = gnutls_priority_set (*session, priority);
  if (r >= 0)
    r = psk_credentials
      ? gnutls_credentials_set (*session, GNUTLS_CRD_PSK, psk_credentials)
      : gnutls_credentials_set (*session, GNUTLS_CRD_CERTIFICATE, x509);
  if (r < 0) {
    gnutls_deinit (*session);
    return r;
  }
  if (verify_peer)
    ask_for_certificate (*session);
  return 0;
}
