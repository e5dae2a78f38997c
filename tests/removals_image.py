# SPDX-License-Identifier: BSD-3-Clause
"""Bugs for the image store, each of which its test must see, unit-powerloss
most of them; planted by removals.py.  In the form of its table: file below the
top, text, replacement, test, TAP name.
"""

COMMIT, ROUND, LOG, CODEC, REPLAY, LOAD, IMAGE, SPACE, VOLATILE, MAP, KEPT, \
    COPY = (
    "zonelib/image%s.c" % x
    for x in ("-commit", "-round", "-log", "-codec", "-replay", "-load", "",
              "-space", "-volatile", "-map", "-kept", "-copy"))

PROGRAM = "unit-powerloss"
LOSS = PROGRAM, "power_losses_and_kills"
FAULT = PROGRAM, "failing_disks"
OPENINGS = PROGRAM, "openings_cut_off"
SHARED = PROGRAM, "group_commit"

REMOVALS = {
    "image-no-sync": (
        # What a commit covers is not made durable before it.
        ROUND, "      r->want = WANT_SYNC;\n", "", *LOSS),
    "image-commit-not-durable": (
        ROUND, "pwritev2 (fd, &iov, 1, at, RWF_DSYNC)",
        "pwritev2 (fd, &iov, 1, at, 0)", *LOSS),
    "image-commit-first": (
        ROUND, "      r->want = WANT_SYNC;\n    }\n    return;\n"
        "  case ROUND_SYNCED:\n    r->stage = ROUND_COMMITTED;\n"
        "    if (r->nchanged > 0 || r->always) {\n"
        "      want_commit (img, r);\n      return;\n    }\n",
        "      want_commit (img, r);\n    }\n    return;\n"
        "  case ROUND_SYNCED:\n    r->stage = ROUND_COMMITTED;\n"
        "    if (r->nchanged > 0 || r->always) {\n"
        "      r->want = WANT_SYNC;\n      return;\n    }\n", *LOSS),
    "image-record-in-force": (
        # Over the copy that is in force: torn or early, it is gone.
        ROUND, "record_offset (img, zone, !in_b));",
        "record_offset (img, zone, in_b));", *LOSS),
    "image-record-before-data": (
        ROUND, "  p->wp = z->wp;", "  p->wp = z->reserved;", *LOSS),
    "image-reset-not-waited-for": (
        # New data where the record in force still has the old.
        IMAGE, "io->op != STORE_RESET && (img->zflags[io->zone] & "
        "ZFLAG_RESET)", "0", *LOSS),
    "image-hole-at-reset": (
        IMAGE, "      atomic_fetch_or (&img->zflags[io->zone], "
        "ZFLAG_RESET);\n",
        "      {\n"
        "      atomic_fetch_or (&img->zflags[io->zone], ZFLAG_RESET);\n"
        "      image_punch (img->fd, file_offset (img, io), "
        "img->sb.zone_size);\n      }\n", *LOSS),
    "image-hole-before-commit": (
        ROUND, "    *entry |= WAS_RESET;\n",
        "    {\n      *entry |= WAS_RESET;\n"
        "      image_punch (img->fd, img->sb.data_offset +\n"
        "                   zones_start (img->zones, zone),\n"
        "                   zones_length (img->zones, zone));\n    }\n",
        *LOSS),
    "image-newer-taken": (
        # A record of a commit that never came to be is taken for good.
        LOAD, "valid[i] && p[i].commit > img->commit.number",
        "valid[i] && 0", *LOSS),
    "image-newer-left": (
        # And is taken for a later commit's.
        LOAD, "(mend && w->nnewer > 0 &&", "(0 &&", *LOSS),
    "image-finish-no-zeros": (
        # What unanswered writes left shows when a pointer passes over it.
        SPACE, "  enum step step = holes ? STEP_PUNCH : STEP_ZERO_RANGE;\n"
        "  int r = 0;\n\n  if (length == 0)",
        "  enum step step = holes ? STEP_PUNCH : STEP_ZERO_RANGE;\n"
        "  int r = 0;\n\n  if (length == 0 || holes)", *LOSS),
    "image-late-comers": (
        # Who joins during a round is answered by it.
        COMMIT, "  more = lead_on (img, NULL) &&",
        "  while (batch && batch->next)\n"
        "    batch = batch->next;\n"
        "  if (batch) {\n"
        "    batch->next = img->waiting;\n"
        "    batch = r->batch;\n"
        "    img->waiting = NULL;\n"
        "    img->waiting_tail = &img->waiting;\n"
        "    img->nwaiting = 0;\n  }\n"
        "  more = lead_on (img, NULL) &&", *LOSS),
    "image-reboot-not-seen": (
        LOAD, "    memcmp (boot_id, img->commit.boot_id, 16) == 0;\n",
        "    memcmp (boot_id, boot_id, 16) == 0;\n", *LOSS),
    "image-epoch": (
        COMMIT, "  if (lost)\n    next->epoch++;\n", "", *LOSS),
    "image-killed-not-made-durable": (
        # The words of the last session are cleared before they are in
        # records.
        COMMIT, "  if (img->ndirty > 0) {\n", "  if (0) {\n", *LOSS),
    "image-closed-early": (
        # Clean before what it covers is durable.
        ROUND, "    begin_commit (img, r);\n",
        "    begin_commit (img, r);\n"
        "    if (r->next.flags & IMAGE_CLEAN) {\n"
        "      want_commit (img, r);\n"
        "      round_write_durably (img->fd, r->slot, sizeof r->slot,\n"
        "                           r->offset);\n"
        "      r->want = WANT_NOTHING;\n"
        "      r->next.number++;\n    }\n", *OPENINGS),
    "image-found-not-durable": (
        # What a killed server left is in the page cache alone.
        LOAD, "if (mend && (i = image_sync (img->fd)) != 0) {",
        "if (0) {", *OPENINGS),
    "image-not-dirty": (
        # A zone that changes while its record is made is forgotten.
        ROUND, "  img->zflags[zone] &= ~ZFLAG_DIRTY;\n",
        "", *LOSS),
    "image-sync-tried-again": (
        ROUND, "  img->store.failed = true;\n  volatile_mark (img, true);\n",
        "  (void) img;\n", *FAULT),
    "image-no-mark": (
        ROUND, "  volatile_mark (img, true);\n", "", *FAULT),
    "image-mark-cleared-early": (
        VOLATILE, "img->distrusted\n                  ? (uint64_t) "
        "img->sb.zones * 8 : length", "length", *OPENINGS),
    "image-mark-by-boot": (
        # The mark of an opening after a reboot is not looked at.
        LOAD, "  img->distrusted = le64toh (mark) == IMAGE_MARK;\n",
        "  img->distrusted = le64toh (mark) == IMAGE_MARK &&\n"
        "    is_of_this_boot (img);\n", *OPENINGS),
    "image-cache-trusted": (
        # What could not be written is read from the page cache again.
        LOAD, "  if (img->distrusted)\n    drop_cache (img);\n",
        "  (void) drop_cache;\n", *FAULT),
    "image-no-group": (
        # One commit for each who wants one.
        COMMIT, "  img->round.nbatch = img->nwaiting;\n"
        "  img->nwaiting = 0;\n"
        "  img->waiting = NULL;\n"
        "  img->waiting_tail = &img->waiting;\n",
        "  img->round.nbatch = 1;\n"
        "  img->nwaiting--;\n"
        "  img->waiting = img->round.batch->next;\n"
        "  if (img->waiting == NULL)\n"
        "    img->waiting_tail = &img->waiting;\n"
        "  img->round.batch->next = NULL;\n", *SHARED),
    "image-log-not-durable": (
        COMMIT, "  io_uring_prep_fsync (sqe, f->fd, "
        "IORING_FSYNC_DATASYNC);\n  sqe->off = f->offset;\n"
        "  sqe->len = f->length - 1;     /* the last byte's */\n",
        "  io_uring_prep_nop (sqe);\n", *LOSS),
    "image-log-thread-not-durable": (
        COMMIT, "  e = round_write_durably (f->fd, f->entry, f->length, ",
        "  e = image_pwrite (f->fd, f->entry, f->length, ", *LOSS),
    "image-log-torn": (
        # An entry is taken though its data is not all there.
        CODEC, "               le64toh (e->length), seed) != stored)",
        "               0, seed) == 1)", *LOSS),
    "image-log-older": (
        # Entries from before the commit in force are taken.
        REPLAY, "    e->commit == img->commit.number && e->session",
        "    e->session", *LOSS),
    "image-log-not-written": (
        REPLAY, "    r = image_pwrite (img->fd, rp->item[i].data, "
        "rp->item[i].length,\n                      img->sb.data_offset + "
        "rp->item[i].offset);\n", "    r = 0;\n", *LOSS),
    "image-log-not-taken-up": (
        # What it has of a pointer is not in the records of the next commit.
        LOG, "      commit_mark_dirty (img, l->table[i].zone - 1);\n", "",
        *LOSS),
    "image-log-of-older-data": (
        # Conventional data that is in place since is written over by it.
        ROUND, "r->always = r->session || img->log.number > 0;",
        "r->always = r->session;", *LOSS),
    "image-log-conventional": (
        IMAGE, "    if (io->zone < img->sb.conventional)\n", "    if (0)\n",
        *LOSS),
    "image-log-reset": (
        # A reset is an entry of the log, and its zone written too early.
        LOG, "      r = NO_ROOM;              /* a reset */\n",
        "      atomic_fetch_and (&img->zflags[list[i]], ~ZFLAG_RESET);\n",
        *LOSS),
    "image-log-order": (
        # Answered before the entries in front of it are durable.
        COMMIT, "  pthread_mutex_lock (&img->commit_lock);\n"
        "  f->landed = true;\n",
        "  deliver (img, f->batch, 0, ring);\n  f->batch = NULL;\n"
        "  pthread_mutex_lock (&img->commit_lock);\n"
        "  f->landed = true;\n", *LOSS),
    "image-log-late": (
        # Answered though what it is for is on its way to the disk yet.
        COMMIT, "  if (r->stage != ROUND_BEGIN || r->error)\n    return;\n",
        "  (void) r;\n  (void) tail;\n  return;\n", *LOSS),
    "image-log-idle": (
        COMMIT, "!img->committing && img->nflights == 0 &&\n",
        "!img->committing &&\n", *LOSS),
    "image-log-seen": (
        # An entry says of others that they were durable which were not.
        LOG, "  e->durable = l->durable;\n", "  e->durable = l->number - 1;\n",
        *LOSS),
    "image-log-full": (
        # Over its own first entries.
        LOG, "  if (r || size > img->sb.log_size - l->used) {\n",
        "  if (size > img->sb.log_size - l->used)\n    l->used = 0;\n"
        "  if (r) {\n", *LOSS),
    "image-log-direct-idle": (
        # A flush that has only conventional data to make durable.
        LOG, " && img->log.ndirect == 0 &&", " &&", *LOSS),
    "image-log-error": (
        COMMIT, "  if (e)\n    round_give_up (img);\n", "  (void) e;\n",
        *FAULT),
    "image-log-pointers": (
        # Replayed, but its pointers are in no record when it ends.
        REPLAY, "      commit_mark_dirty (img, rp->item[i].zone);\n",
        "      (void) img;\n", *OPENINGS),
    "image-log-replay-not-durable": (
        # The log ends before what it had is durable in its place.
        ROUND, "      r->want = WANT_SYNC;\n",
        "      r->want = img->slots ? WANT_SYNC : WANT_NOTHING;\n",
        *OPENINGS),
    "image-log-unread": (
        # Who only reads does not see what is in the log alone;
        IMAGE, "    if (img->replay.nitems > 0)\n      patch_read (img, io);\n",
        "    (void) patch_read;\n", "unit-badimage",
        "log_after_a_power_loss"),
    "image-log-mapped": (
        # nor who has it sent from the page cache.
        MAP, "img->replay.nitems > 0 || ", "", "image-after-loss.py",
        "a simple reply has the data"),
    "image-log-damaged": (
        # One that was durable is damaged, and passed over.
        REPLAY, "e.durable > number)", "0)", "unit-badimage",
        "damaged_log"),
    "image-log-of-gone-pages": (
        # What the disk had before goes into an entry as if it were new.
        LOG, "  if (r <= 0 && has_failed (img))\n    r = EIO;\n",
        "  (void) has_failed;\n", "unit-log", "page_that_is_gone"),
    "image-log-without-space": (
        COMMIT, "(e == ENOSPC || e == EDQUOT)", "0", "unit-log",
        "log_without_space"),
    "image-log-two-leaders": (
        # A late timer takes a thread's round for its own.
        COMMIT, "  start = img->gathering == t;\n",
        "  start = img->gathering != NULL;\n", "unit-log",
        "timer_that_is_late"),
    "image-cut-off-by-tls": (
        # What is gone is enciphered as zeros, and sent.
        "server/conn-tls.c",
        "tls->looked && zdisk_map_failed (c->export->disk)", "0",
        "server-mapped.py", "where its file was cut off it is no more"),
    "image-copy-unchecked": (
        # What was copied to no file counts as written.
        COPY, "  copies_end ();\n  return !img->store.map_failed;\n",
        "  copies_end ();\n  return true;\n",
        "full-filesystem.sh",
        "znbd_server: what was punched, and has no space, is an error"),
    "image-copy-read-unchecked": (
        # Zeros are read where the file was cut off.
        COPY, "  memcpy (buf, from, length);\n  return !img->store.map_failed;\n",
        "  memcpy (buf, from, length);\n  return true;\n",
        "unit-copy", "cut_off"),
    "image-copy-holes": (
        # What is not there yet is copied, too, and cleared before.
        COPY, "    if (!has (&w.row->exist, w.bits))\n      return false;\n", "",
        "unit-copy", "written_again"),
    "image-copy-remembers": (
        # What was given back is taken to be there.
        KEPT, "    copy_forget (img, start + at, n);\n", "",
        "unit-copy", "given_back"),
    "image-copy-never": (
        COPY, "m->pages == NULL ||", "true || m->pages == NULL ||",
        "unit-copy", "written_again"),
    "image-kept-not-claimed": (
        # What was written to a zone goes with what it kept.
        KEPT, "    claim (img, zone, to);\n", "    (void) claim;\n", *LOSS),
    "image-kept-not-waited-for": (
        # The same, of a piece that is being given back.
        KEPT, "k->busy && k->zone == zone && k->from < to &&", "0 &&", *LOSS),
    "image-kept-claimed-early": (
        # A second write does not wait for it.
        KEPT, " &&\n         !is_claimed (img, zone, end))\n    wait_done (k);\n",
        ")\n    {\n      if (!is_claimed (img, zone, end))\n"
        "        claim (img, zone, to);\n      wait_done (k);\n    }\n",
        *LOSS),
    "image-kept-not": (
        # A reset zone's space is never given back.
        KEPT, "(flags & ~(ZFLAG_RESET | ZFLAG_OLD)) | ZFLAG_KEPT",
        "flags & ~ZFLAG_RESET", "unit-kept", "kept_and_given_back"),
    "image-kept-by-the-full": (
        IMAGE, "(error == ENOSPC || error == EDQUOT) && kept_give_back (img)",
        "(void) img, (void) error, 0", "full-filesystem.sh",
        "znbd-server: a reset makes room for other zones"),
    "image-kept-by-the-killed": (
        IMAGE, "r == 0 && !closed", "0 && !closed", "unit-kept",
        "given_back_after_a_kill"),
    "image-kept-at-the-end": (
        COMMIT, "    kept_give_back (img);\n", "", "unit-kept",
        "given_back_at_the_end"),
}

# Bugs that few seeds of the short form meet, or none: so many are tried.
SEEDS = dict.fromkeys(("image-closed-early", "image-found-not-durable",
                       "image-kept-claimed-early",
                       "image-mark-by-boot", "image-mark-cleared-early"), 500)
SEEDS.update(dict.fromkeys(("image-log-order", "image-log-seen"), 1000))
SEEDS["image-log-late"] = 3000
