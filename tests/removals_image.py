# SPDX-License-Identifier: BSD-3-Clause
"""Bugs for the image store, of which unit-powerloss must see each; planted
by removals.py.  In the form of its table: file below the top, text,
replacement, test, TAP name.
"""

COMMIT, LOAD, IMAGE, SPACE, VOLATILE = (
    "zonelib/image%s.c" % x
    for x in ("-commit", "-load", "", "-space", "-volatile"))

PROGRAM = "unit-powerloss"
LOSS = PROGRAM, "power_losses_and_kills"
FAULT = PROGRAM, "failing_disks"
OPENINGS = PROGRAM, "openings_cut_off"
SHARED = PROGRAM, "group_commit"

REMOVALS = {
    "image-no-sync": (
        # What a commit covers is not made durable before it.
        COMMIT, "  if (r == 0)\n    r = image_sync (img->fd);\n", "", *LOSS),
    "image-commit-not-durable": (
        COMMIT, "pwritev2 (img->fd, &iov, 1, at, RWF_DSYNC)",
        "pwritev2 (img->fd, &iov, 1, at, 0)", *LOSS),
    "image-commit-first": (
        COMMIT, "  if (r == 0)\n    r = image_sync (img->fd);\n"
        "  if (r == 0 && (nchanged > 0 || always))\n"
        "    r = write_commit (img, next);\n",
        "  if (r == 0 && (nchanged > 0 || always))\n"
        "    r = write_commit (img, next);\n"
        "  if (r == 0)\n    r = image_sync (img->fd);\n", *LOSS),
    "image-record-in-force": (
        # Over the copy that is in force: torn or early, it is gone.
        COMMIT, "record_offset (img, zone, !in_b));",
        "record_offset (img, zone, in_b));", *LOSS),
    "image-record-before-data": (
        COMMIT, "  p->wp = z->wp;", "  p->wp = z->reserved;", *LOSS),
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
        COMMIT, "  if (r == 0)\n    r = image_sync (img->fd);\n",
        "  if (r == 0)\n    r = image_sync (img->fd);\n"
        "  after_commit (img, list, n);\n", *LOSS),
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
        COMMIT, "    deliver (img, batch, r);\n",
        "    deliver (img, batch, r);\n"
        "    batch = img->waiting;\n"
        "    img->waiting = NULL;\n"
        "    img->waiting_tail = &img->waiting;\n"
        "    deliver (img, batch, r);\n", *LOSS),
    "image-reboot-not-seen": (
        LOAD, "    memcmp (boot_id, img->commit.boot_id, 16) == 0;\n",
        "    memcmp (boot_id, boot_id, 16) == 0;\n", *LOSS),
    "image-epoch": (
        COMMIT, "  if (lost)\n    next.epoch++;\n", "", *LOSS),
    "image-killed-not-made-durable": (
        # The words of the last session are cleared before they are in
        # records.
        COMMIT, "  if (img->ndirty > 0) {\n", "  if (0) {\n", *LOSS),
    "image-closed-early": (
        # Clean before what it covers is durable.
        COMMIT, "  next.flags |= IMAGE_CLEAN;\n",
        "  next.flags |= IMAGE_CLEAN;\n"
        "  write_commit (img, &(struct image_commit) {\n"
        "    .flags = IMAGE_CLEAN, .number = next.number + 1,\n"
        "    .epoch = next.epoch, .sum = next.sum, .parity = next.parity,\n"
        "    .session = next.session });\n"
        "  next.number++;\n", *OPENINGS),
    "image-found-not-durable": (
        # What a killed server left is in the page cache alone.
        LOAD, "if (mend && (i = image_sync (img->fd)) != 0) {",
        "if (0) {", *OPENINGS),
    "image-not-dirty": (
        # A zone that changes while its record is made is forgotten.
        COMMIT, "  img->zflags[zone] &= ~ZFLAG_DIRTY;\n",
        "", *LOSS),
    "image-sync-tried-again": (
        COMMIT, "  img->store.failed = true;\n  volatile_mark (img, true);\n",
        "  (void) img;\n", *FAULT),
    "image-no-mark": (
        COMMIT, "  volatile_mark (img, true);\n", "", *FAULT),
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
        COMMIT, "    img->waiting = NULL;\n"
        "    img->waiting_tail = &img->waiting;\n",
        "    img->waiting = batch->next;\n"
        "    if (img->waiting == NULL)\n"
        "      img->waiting_tail = &img->waiting;\n"
        "    batch->next = NULL;\n", *SHARED),
}

# Bugs that few seeds of the short form meet, or none: so many are tried.
SEEDS = dict.fromkeys(("image-closed-early", "image-found-not-durable",
                       "image-mark-by-boot", "image-mark-cleared-early"), 500)
