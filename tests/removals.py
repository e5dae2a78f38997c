#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Takes checks out of znbd-server, one after the other, in a copy of the
source, and shows that the test that docs/nbd-conformance.md names fails
then; and plants bugs in the image store (removals_image.py), which its test
must see.  make check-removals runs it; it takes minutes.

usage: removals.py [FOLDER [NAME...]]

FOLDER takes the copy and its build (default: ./removals), which stay.
NAMEs are of removals below or there.  A removal is a text of a file (below:
in server/) that stands there once and what replaces it; one that does not
apply any more is a failure too.  Status 0: each test that was to fail did.
"""

import os
import re
import shutil
import subprocess
import sys

import removals_image

H, R, E, T, P = ("server-musts-handshake.py", "server-musts-replies.py",
                 "server-musts-effects.py", "server-musts-tls.py",
                 "server-protocol.py")

# name: (file, text, replacement, test, TAP name)
REMOVALS = {
    "names-nul": (
        "handshake.c", " ||\n      memchr (d->p, '\\0', n))", ")",
        H, "names with NUL are refused"),
    "names-long": (
        "handshake.c", "n > NBD_MAX_STRING ||", "",
        H, "names of 4096 bytes are taken, of 4097 refused"),
    "client-flags": (
        "handshake.c",
        "flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)", "0",
        H, "unknown client flags end the connection"),
    "greeting-flags": (
        "handshake.c",
        "htobe16 (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)",
        "htobe16 (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES | 4)",
        H, "the greeting has FIXED_NEWSTYLE, NO_ZEROES, and no other flag"),
    "export-name-unknown": (
        "handshake.c",
        'conn_kill (c, "asks for an export that there is not");\n'
        "    return;", "e = &exports[0];",
        H, "EXPORT_NAME of no export ends the connection"),
    "no-zeroes": (
        "handshake.c", "if (!c->no_zeroes)", "if (1)",
        H, "EXPORT_NAME with NO_ZEROES sends no zeroes"),
    "unknown-option": (
        "handshake.c",
        'option_error (c, option, NBD_REP_ERR_UNSUP, "unknown option %u", '
        "option)", "option_reply (c, option, NBD_REP_ACK, NULL, 0)",
        H, "unknown options are refused as such"),
    "refusal-ends": (
        "handshake.c",
        "option_reply (c, option, type, text, strlen (text));",
        "option_reply (c, option, type, text, strlen (text));\n"
        "  if (c->noptions > 300)\n    conn_drain (c);",
        H, "500 refused options do not end the connection"),
    "skip-large": (
        "handshake.c", "    c->skip = length;\n", "",
        H, "and the next one is parsed"),
    "fixed-newstyle": (
        "handshake.c", "!c->fixed && option != NBD_OPT_EXPORT_NAME", "0",
        H, "no STARTTLS without fixed newstyle"),
    "info-lengths": (
        "handshake.c", " ||\n      d.left != n * sizeof info)", ")",
        H, "option 6: lengths that lie are refused"),
    "info-export": (
        "handshake.c",
        "  option_reply (c, option, NBD_REP_INFO, &reply, sizeof reply);\n"
        "  info_block_size (c, option, e);", "  info_block_size (c, option, "
        "e);",
        H, "INFO_EXPORT comes before the ACK"),
    "info-block-size": (
        "handshake.c", "  info_block_size (c, option, e);\n  if (name)",
        "  if (name)",
        H, "block sizes are told, asked for or not"),
    "unknown-info": (
        "handshake.c",
        "    name = name || info == NBD_INFO_NAME;\n",
        "    name = name || info == NBD_INFO_NAME;\n"
        "    if (info > NBD_INFO_BLOCK_SIZE) {\n"
        '      option_error (c, option, NBD_REP_ERR_INVALID, "what?");\n'
        "      return;\n    }\n",
        H, "unknown kinds of information are ignored"),
    "go-zeroes": (
        "handshake.c",
        "    return;\n  option_reply (c, option, NBD_REP_ACK, NULL, 0);\n",
        "    return;\n  option_reply (c, option, NBD_REP_ACK, NULL, 0);\n"
        "  if (option == NBD_OPT_GO && !c->no_zeroes)\n"
        "    conn_out (c, (uint8_t[124]) { 0 }, 124);\n",
        H, "GO sends no zeroes, NO_ZEROES or not"),
    "flags-df": (
        "handshake.c", "  if (c->structured || c->extended)\n", "",
        H, "disk simple: DF with chunks, and only then"),
    "flags-payload": (
        "handshake.c", "if (c->extended && c->contexts &&",
        "if (c->contexts &&",
        H, "disk structured: payloads with extended headers only"),
    "flags-info": (
        "handshake.c", "if (c->extended && c->contexts &&",
        "if (c->extended && c->noptions % 2 &&",
        H, "INFO and then GO say the same"),
    "flags-has-flags": (
        "exports.c", "NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH",
        "NBD_FLAG_SEND_FLUSH", H, "disk simple: HAS_FLAGS"),
    "flags-read-only": (
        "exports.c", "    if (!e->readonly) {\n", "    if (1) {\n",
        H, "read-only disk simple: flags say what works"),
    "flags-table": (
        "exports.c", "  if (!e->table) {\n", "  if (1) {\n",
        H, "zones simple: flags say what works"),
    "abort-ack": (
        "handshake.c",
        "    option_reply (c, option, NBD_REP_ACK, NULL, 0);\n"
        "    conn_drain (c);", "    conn_drain (c);",
        H, "ABORT is acknowledged"),
    "list-length": (
        "handshake.c", "    uint32_t be = htobe32 (n);",
        "    uint32_t be = htobe32 (n + m + 1);",
        H, "LIST: names fit into their replies"),
    "words-cut": (
        "handshake.c", "    mend_end (text, sizeof text - 1);",
        "    mend_end (text, 0);",
        H, "the server's strings: UTF-8, no NUL, 4096 bytes at most"),
    "meta-lengths": (
        "handshake-meta.c", "if (!whole || d.left > 0)", "if (!whole)",
        H, "option 9: lengths that lie are refused"),
    "meta-foreign": (
        "handshake-meta.c", "    whole = option_string (&d, &query, &length)"
        ";", "    whole = option_string (&d, &query, &length) &&\n"
        "      *query != 'f';",
        H, "a foreign namespace is ignored"),
    "set-wildcard": (
        "handshake-meta.c",
        "  if (option != NBD_OPT_LIST_META_CONTEXT)\n    return false;\n", "",
        H, "SET ignores base:"),
    "list-wildcard": (
        "handshake-meta.c", "  return colon && colon + 1 == query + length",
        "  return 0 && colon + 1 == query + length",
        H, "LIST takes base: as a wildcard"),
    "set-nothing": (
        "handshake-meta.c",
        "n == 0 && option == NBD_OPT_LIST_META_CONTEXT)", "n == 0)",
        H, "SET of no query selects none"),
    "list-everything": (
        "handshake-meta.c", "    wanted = offers;\n",
        "    wanted = offers & 1;\n",
        P, "LIST_META_CONTEXT: all"),
    "set-ids": (
        "handshake-meta.c", "? i + 1 : 0", "? 1 : 0",
        H, "SET: each context comes once, with an id of its own"),
    "set-replaces": (
        "handshake-meta.c",
        "    c->contexts = 0;\n    c->contexts_export = NULL;\n", "",
        P, "a SET that failed voids the one before"),
    "set-export": (
        "handshake.c",
        "  if (c->contexts_export != e)\n    c->contexts = 0;\n", "",
        P, "contexts are those of the export they were selected for"),
    "meta-structured": (
        "handshake-meta.c", "  if (!c->structured) {", "  if (0) {",
        P, "contexts need structured replies"),
    "meta-read-only": (
        "handshake-meta.c", "  if (e->readonly)\n    return contexts;\n", "",
        E, "a read-only export has no contexts that change it"),
    "read-only": (
        "handshake.c", "zdisk_client_new (e->disk, e->readonly)",
        "zdisk_client_new (e->disk, false)",
        E, "a read-only export refuses every write"),
    "cookie": (
        "request.c", "  req->cookie = r.cookie;",
        "  req->cookie = be64toh (r.cookie);",
        R, "simple: each message has its request's cookie"),
    "cookie-extended": (
        "request.c", "    req->cookie = ext.cookie;",
        "    req->cookie = be64toh (ext.cookie);",
        R, "extended: each message has its request's cookie"),
    "simple-replies": (
        "reply.c", "  if (!req->conn->structured) {\n"
        "    add_out (req, head, simple_reply (req, head, 0));",
        "  if (0) {\n"
        "    add_out (req, head, simple_reply (req, head, 0));",
        R, "simple: nothing but simple ones"),
    "structured-errors": (
        "reply.c", "  if (!req->conn->structured)\n    size =",
        "  if (!req->conn->extended)\n    size =",
        R, "structured: no read has a simple reply, whatever is wrong"),
    "extended-replies": (
        "reply.c", "add_out (req, req->head, req->conn->extended\n",
        "add_out (req, req->head, 0\n",
        R, "extended: nothing but extended ones"),
    "extended-offset": (
        "reply.c", "      .offset = htobe64 (req->offset),\n", "",
        R, "extended: each has its request's offset"),
    "done-early": (
        "reply.c", "i == n - 1 ? NBD_REPLY_FLAG_DONE : 0",
        "NBD_REPLY_FLAG_DONE",
        R, "structured: each message has its request's cookie"),
    "chunk-flags": (
        "reply.c", "i == n - 1 ? NBD_REPLY_FLAG_DONE : 0",
        "i == n - 1 ? NBD_REPLY_FLAG_DONE : 2",
        R, "structured: no flag but DONE"),
    "error-words": (
        "reply.c", ".length = htobe16 (n),", ".length = htobe16 (n + 1),",
        R, "structured: error chunks have an error, and words of at most "
        "4096 bytes"),
    "error-number": (
        "reply.c", "    .error = htobe32 (wire_error (error)), .length",
        "    .error = 0, .length",
        R, "structured: requests past the end fail"),
    "read-error": (
        "request.c", "  if (req->z.error)\n"
        "    reply_error (req, req->z.error, req->z.reason);\n"
        "  else\n    reply_read (req);", "  reply_read (req);",
        R, "structured: requests of zones that cannot fail"),
    "command-error": (
        "request.c", "  if (req->z.error)\n"
        "    reply_error (req, req->z.error, req->z.reason);\n"
        "  else\n    reply_ok (req);", "  reply_ok (req);",
        R, "simple: requests past the end fail"),
    "content-rest": (
        "request.c",
        "    piece->length = req->offset + req->length - offset;\n", "",
        R, "structured: content covers the request"),
    "content-outside": (
        "reply.c", "        .offset = htobe64 (piece->offset), .length",
        "        .offset = htobe64 (piece->offset + 4096), .length",
        R, "structured: content lies within the request"),
    "content-empty": (
        "reply.c", "  if (req->length == 0) {\n", "  if (0) {\n",
        R, "structured: a read of nothing has no content"),
    "df": (
        "request.c", "!(req->flags & NBD_CMD_FLAG_DF) && ", "",
        R, "structured: DF brings one chunk, zeros in it"),
    "max-payload": (
        "request.c", "           req->length > c->export->max_block)",
        "           req->length > 2 * NBD_MAX_DATA)",
        R, "structured: no chunk is larger than the maximum payload"),
    "status-contexts": (
        "status.c", "  req->u.status.contexts = c->contexts;",
        "  req->u.status.contexts = c->contexts & -c->contexts;",
        R, "structured: one status chunk for each context"),
    "status-type": (
        "status.c", "extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT\n",
        "0 ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT\n",
        R, "extended: status chunks are of its type"),
    "status-count": (
        "status.c", "count = htobe32 (b->count)", "count = 0",
        R, "extended: counts and lengths of descriptors agree"),
    "status-one": (
        "status.c", "(req->flags & NBD_CMD_FLAG_REQ_ONE))\n    return 1;",
        "0)\n    return 1;",
        R, "structured: REQ_ONE, one descriptor inside the request"),
    "status-past-end": (
        "status.c", "      req->length > e->size - req->offset ||\n", "",
        P, "structured: status past the end"),
    "status-empty": (
        "status.c", "req->length == 0 || req->offset >= e->size",
        "req->offset >= e->size",
        P, "structured: status of nothing"),
    "filter-twice": (
        "status.c", " ||\n        (contexts & CONTEXT_BIT (id - 1))", "",
        R, "a payload with an id twice is refused"),
    "filter-unknown": (
        "status.c", "        !(req->conn->contexts & CONTEXT_BIT (id - 1)) "
        "||\n", "",
        P, "payload that selects: not selected"),
    "payload-consumed": (
        "request.c", "  return req->type == NBD_CMD_WRITE ||\n"
        "    (req->conn->extended &&",
        "  return req->type == NBD_CMD_WRITE ||\n"
        "    (req->conn->extended && !req->refused &&",
        R, "payloads that are refused are consumed"),
    "command-flags": (
        "request.c", "req->flags & ~allowed_flags (c, req->type)", "0",
        R, "simple: requests with flags that do not belong to the command "
        "fail"),
    "command-unknown": (
        "request.c", "  if (req->type > NBD_CMD_BLOCK_STATUS)",
        "  if (0)",
        R, "simple: requests that there are not fail"),
    "fua-refused": (
        "request.c", "  unsigned flags = NBD_CMD_FLAG_FUA;",
        "  unsigned flags = 0;",
        E, "simple: FUA is taken on every command"),
    "fua": (
        "request.c", "(req->flags & NBD_CMD_FLAG_FUA ? ZDISK_FUA : 0)", "0",
        E, "FUA: WRITE is durable when it is answered"),
    "fua-table": (
        "table-export.c",
        "(req->flags & NBD_CMD_FLAG_FUA) && !req->u.table.flushing", "0",
        E, "FUA: a reset by the zone table is durable"),
    "flush": (
        "request.c",
        "    request_submit (req, op, flags, 0, 0, request_complete);",
        "    reply_ok (req);",
        E, "FLUSH: what was answered before is durable"),
    "flush-table": (
        "table-export.c", "  case NBD_CMD_FLUSH:\n"
        "    request_submit (req, ZDISK_FLUSH, 0, 0, 0, request_complete);",
        "  case NBD_CMD_FLUSH:\n    reply_ok (req);",
        E, "FLUSH of the zone table: a reset is durable"),
    "write": (
        "request.c", "    op = ZDISK_WRITE;\n", "    op = ZDISK_CACHE;\n",
        E, "simple: what was answered is written"),
    "zeroes": (
        "request.c", "    op = ZDISK_ZERO;\n", "    op = ZDISK_CACHE;\n",
        E, "simple: zeroes read back as zeros, and nothing else"),
    "cache": (
        "request.c", "    op = ZDISK_CACHE;\n", "    op = ZDISK_TRIM;\n",
        E, "simple: CACHE changes nothing"),
    "no-hole": (
        "request.c", "if (!(req->flags & NBD_CMD_FLAG_NO_HOLE))", "if (1)",
        E, "NO_HOLE: the zeroes have their space"),
    "fast-zero": (
        "request.c", "    if (req->flags & NBD_CMD_FLAG_FAST_ZERO)\n"
        "      flags |= ZDISK_FAST_ZERO;\n", "",
        E, "FAST_ZERO: ENOTSUP where zeroes are not fast, and not offered"),
    "disc-waits": (
        "request.c", "    request_free (req);\n    conn_drain (c);\n",
        '    request_free (req);\n    conn_kill (c, "left");\n',
        E, "simple: DISC: all that was asked is answered, then it closes"),
    "tls-required": (
        "handshake.c", "  return tls_is_required () && c->tls == NULL &&",
        "  return 0 && tls_is_required () && c->tls == NULL &&",
        T, "before TLS every option is answered TLS_REQD"),
    "tls-export-name": (
        "handshake.c", "  if (option == NBD_OPT_EXPORT_NAME)\n"
        '    conn_kill (c, "asks for an export without TLS");\n  else\n',
        "", T, "EXPORT_NAME before TLS ends the connection"),
    "tls-second": (
        "handshake.c", "  else if (c->tls)\n", "  else if (0)\n",
        T, "FORCEDTLS: a second STARTTLS is invalid"),
    "tls-forgets": (
        "handshake.c", "    c->structured = c->extended = false;\n", "",
        T, "STARTTLS forgets structured replies"),
    "tls-forgets-contexts": (
        "handshake.c", "    c->structured = c->extended = false;\n"
        "    c->contexts = 0;\n    c->contexts_export = NULL;\n",
        "    c->structured = c->extended = false;\n",
        T, "STARTTLS forgets contexts"),
    "tls-behind": (
        "handshake.c", "  else if (d.behind > 0)", "  else if (0)",
        T, "plain text behind STARTTLS is not answered"),
    "disc-closes": (
        "request.c", "    request_free (req);\n    conn_drain (c);\n",
        "    request_free (req);\n",
        E, "simple: DISC: all that was asked is answered, then it closes"),
}

# The same, and files below the top.
ALL = {name: ("server/" + row[0],) + row[1:]
       for name, row in REMOVALS.items()}
ALL.update(removals_image.REMOVALS)


def call(*argv, cwd, **more):
    p = subprocess.run(argv, cwd=cwd, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                       universal_newlines=True, errors="replace", **more)
    return p.returncode, p.stdout


def prepare(top, folder):
    """A copy of the source, and a build of it."""
    source = os.path.join(folder, "source")
    build = os.path.join(folder, "build")
    shutil.rmtree(folder, ignore_errors=True)

    def skip(where, names):
        return {x for x in names
                if x == ".git" or x.endswith((".zbd", ".o", ".lo"))
                or (where == top and x in ("build", "fuzz", "removals",
                                           "sanitize"))}

    shutil.copytree(top, source, ignore=skip, symlinks=True)
    os.makedirs(build)
    # By a relative path: configure takes a space in no other.
    for argv in (("../source/configure", "-q", "CFLAGS=-O0"),
                 ("make", "-s", "-j%d" % os.cpu_count())):
        status, out = call(*argv, cwd=build)
        if status != 0:
            sys.exit("removals: %s fails:\n%s" % (argv[0], out[-3000:]))
    return source, build


def outcome(build, source, test, seeds=None, only=None):
    """{TAP name: ok}"""
    env = dict(os.environ)
    args = []
    if seeds:
        env["ZNBD_SEEDS"] = str(seeds)
        args = [only]
    path = os.path.join(source, "tests", test)
    make = "server",
    if "." not in test:         # a program
        path = os.path.join(build, "tests", test)
        make = "tests", test
    status, out = call("make", "-s", "-C", *make, cwd=build)
    if status != 0:
        sys.exit("removals: %s does not build:\n%s" % (test, out[-2000:]))
    status, out = call(os.path.join(build, "tests", "run"), path, *args,
                       cwd=os.path.join(build, "tests"), env=env)
    return {m.group(2): m.group(1) == "ok" for m in re.finditer(
        r"^(ok|not ok) \d+ - (.*?)(?: # SKIP.*)?$", out, re.M)}


def remove(name, source, build):
    """Returns what is wrong, or None."""
    file, old, new, test, tap = ALL[name]
    path = os.path.join(source, file)
    with open(path) as f:
        text = f.read()
    if text.count(old) != 1:
        return "does not apply: its text is %d times in %s" % (
            text.count(old), file)
    try:
        with open(path, "w") as f:
            f.write(text.replace(old, new))
        status, out = call("make", "-s", "-C", os.path.dirname(file),
                           cwd=build)
        if status != 0:
            return "does not build:\n" + out[-2000:]
        results = outcome(build, source, test,
                          removals_image.SEEDS.get(name), tap)
    finally:
        with open(path, "w") as f:
            f.write(text)
    # A test that is not come to fails as well, if its file says so.
    if results.get(tap, False) or all(results.values()):
        return "%s: \"%s\" does not fail" % (test, tap)
    return None


def main():
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = os.path.abspath(sys.argv[1] if len(sys.argv) > 1
                             else "removals")
    names = sys.argv[2:] or list(ALL)
    for name in names:
        if name not in ALL:
            sys.exit("removals: there is none called %s" % name)
    if os.path.exists(os.path.join(top, "config.status")):
        sys.exit("removals: %s is configured in place: run make distclean "
                 "there" % top)
    source, build = prepare(top, folder)
    passing = {test: outcome(build, source, test) for test in
               {ALL[name][3] for name in names}}
    failures = 0
    for name in names:
        test, tap = ALL[name][3:]
        if not passing[test].get(tap, False):
            wrong = "%s: \"%s\" fails, or is not there, with nothing " \
                "removed" % (test, tap)
        else:
            wrong = remove(name, source, build)
        failures += wrong is not None
        print("%s: %s" % (name, wrong or "\"%s\" fails" % tap), flush=True)
    print("%d removals, %d that no test sees" % (len(names), failures))
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
