/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS on one connection: where conn.c receives and sends.
 *
 * GnuTLS never sees the socket.  What the ring received is ciphertext in a
 * buffer, from which it reads; plain text goes where conn.c would have
 * received it.  Replies are encrypted into another buffer, which the ring
 * sends.  Both are of a fixed size.
 */

#ifndef SERVER_CONN_TLS_H
#define SERVER_CONN_TLS_H

#include "conn.h"

/* TLS begins behind what the connection has to send so far.  May end it. */
void conn_tls_begin (struct conn *c);
void conn_tls_free (struct conn *c);

/* Goes on with the handshake, in CONN_TLS.  False: something has to be sent
 * first, or the connection was ended. */
bool conn_tls_handshake (struct conn *c);

/* Decrypts to recv_iov.  Returns the number of bytes; 0 where recv_iov was
 * set to receive ciphertext instead, and -1 where there is nothing to be
 * received now. */
ssize_t conn_tls_decrypt (struct conn *c);

/* n bytes of ciphertext were received. */
void conn_tls_received (struct conn *c, size_t n);

/* Whether what is sent has to be encrypted. */
bool conn_tls_is_begun (const struct conn *c);

/* Encrypts as much as goes into one send; false where nothing is to be
 * sent. */
bool conn_tls_encrypt (struct conn *c);

/* Whether some of the first reply is encrypted. */
bool conn_tls_has_begun_reply (const struct conn *c);

/* The send is over. */
void conn_tls_sent (struct conn *c);

/* Sends what can be sent at once, as the connection is dropped. */
void conn_tls_last_words (struct conn *c);

#endif /* SERVER_CONN_TLS_H */
