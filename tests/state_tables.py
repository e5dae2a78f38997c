# SPDX-License-Identifier: BSD-3-Clause
"""What the zone model says, cell by cell, for test-state-machine.

Written by hand from the description of the zone model: nothing here may
be made to agree with the code by copying what the code answers.

In a table a row is an operation and a column is the condition that the
zone has before it.  A cell is an errno, and nothing may have changed; or
the condition and the pointer (in blocks) that the zone has then: E empty,
I implicitly open, X explicitly open, C closed, F full, with a * once it
had non-sequential writes; "=" where the operation succeeds and nothing
changes; "." where it would be the same as another row or nothing at all.

Places and lengths are in blocks from the zone's start; p is the pointer.
A zone has 8 blocks, 6 of them writable.  Writing rows are run a second
time with zeroing in place of writing.
"""

B = 4096                        # block
SIZE, CAPACITY = 8, 6           # of a zone, in blocks
CONDITIONS = {"E": 1, "I": 2, "X": 3, "C": 4, "R": 13, "F": 14, "O": 15,
              "N": 0}

# Zones of the tables' disk.
CONV_RO, CONV_OFF, CONV, ZONE, NEXT, SEQ_RO, SEQ_OFF = range(7)

TABLE_DISK = dict(zones=9, conventional=3, readonly=(CONV_RO, SEQ_RO),
                  offline=(CONV_OFF, SEQ_OFF))

# How a zone gets into the condition at the head of a column, in blocks
# from its start.  p is where the pointer stands then (for a full zone:
# a place inside).
PREPARE = {
    "E@0": [],
    "I@2": ["write 0 2"],
    "I@5": ["write 0 5"],
    "X@0": ["open"],
    "X@2": ["open", "write 0 2"],
    "C@2": ["write 0 2", "close"],
    "F@2": ["write 0 6"],       # written full
    "f@2": ["write 0 2", "finish"],
    "I@2*": ["write 1 1"],
    "X@2*": ["open", "write 1 1"],
    "C@2*": ["write 1 1", "close"],
    "F@2*": ["write 5 1"],
}

# What both kinds of sequential zones do alike.
SEQUENTIAL = """
                       E@0    I@2    I@5    X@0    X@2    C@2    F@2    f@2
write p 7-p            ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC
write p 8-p            ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC
write p 9-p            ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC
write 6 1              ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC
write 7 1              ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC
write p .5             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
write .5 1             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
trim 0 8               E@0    E@0    E@0    E@0    E@0    E@0    E@0    E@0
trim -1 10             E@0    E@0    E@0    E@0    E@0    E@0    E@0    E@0
trim 0 7               =      =      =      =      =      =      =      =
trim 0 6               =      =      =      =      =      =      =      =
trim 1 7               =      =      =      =      =      =      =      =
trim 1 14              =      =      =      =      =      =      =      =
trim p 1               =      =      =      =      =      =      =      =
trim 0 7.5             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
open                   X@0    X@2    X@5    =      =      X@2    EINVAL EINVAL
close                  EINVAL C@2    C@5    E@0    C@2    =      EINVAL EINVAL
finish                 F      F      F      F      F      F      =      =
reset                  E@0    E@0    E@0    E@0    E@0    E@0    E@0    E@0
open-all               =      =      =      =      =      X@2    =      =
close-all              =      C@2    C@5    E@0    C@2    =      =      =
finish-all             =      F      F      F      F      F      =      =
reset-all              E@0    E@0    E@0    E@0    E@0    E@0    E@0    E@0
read 0 8               =      =      =      =      =      =      =      =
read -2 12             =      =      =      =      =      =      =      =
read p 1               =      =      =      =      =      =      =      =
read 0 .5              EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
cache 0 8              =      =      =      =      =      =      =      =
flush                  =      =      =      =      =      =      =      =
open 1 7               EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
open 0 7               EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
close 0 9              EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
finish 0 6             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
reset 1 8              EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
reset .5 8             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
"""

# An append of 8 blocks is larger than the disk's largest, which is no
# larger than a zone's capacity.
REQUIRED = """
                       E@0    I@2    I@5    X@0    X@2    C@2    F@2    f@2
write p 1              I@1    I@3    F      X@1    X@3    I@3    ENOSPC ENOSPC
write p 6-p            F      F      F      F      F      F      ENOSPC ENOSPC
write p-1 1            .      EINVAL EINVAL .      EINVAL EINVAL ENOSPC ENOSPC
write 0 1              .      EINVAL EINVAL .      EINVAL EINVAL ENOSPC ENOSPC
write 0 p+1            .      EINVAL EINVAL .      EINVAL EINVAL ENOSPC ENOSPC
write p+1 1            EINVAL EINVAL ENOSPC EINVAL EINVAL EINVAL ENOSPC ENOSPC
write p+1 5-p          EINVAL EINVAL .      EINVAL EINVAL EINVAL ENOSPC ENOSPC
write p+1 6-p          ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC
append 0 1             I@1    I@3    F      X@1    X@3    I@3    ENOSPC ENOSPC
append 7 1             I@1    I@3    F      X@1    X@3    I@3    ENOSPC ENOSPC
append 2 6-p           F      F      F      F      F      F      ENOSPC ENOSPC
append 0 7-p           EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL ENOSPC ENOSPC
append 0 8             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
append 0 9             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
append 0 .5            EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
append .5 1            EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
"""

PREFERRED = """
                       E@0    I@2    I@5    X@0    X@2    C@2    F@2    f@2
write p 1              I@1    I@3    F      X@1    X@3    I@3    F*     F*
write p 6-p            F      F      F      F      F      F      F*     F*
write p-1 1            .      I@2*   I@5*   .      X@2*   I@2*   F*     F*
write 0 1              .      I@2*   I@5*   .      X@2*   I@2*   F*     F*
write 0 p+1            .      I@3*   F*     .      X@3*   I@3*   F*     F*
write 0 6              .      F*     F*     .      F*     F*     F*     F*
write p+1 1            I@2*   I@4*   ENOSPC X@2*   X@4*   I@4*   F*     F*
write p+2 1            I@3*   I@5*   ENOSPC X@3*   X@5*   I@5*   F*     F*
write p+1 5-p          F*     F*     .      F*     F*     F*     F*     F*
write p+1 6-p          ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC ENOSPC
append 0 1             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
append 0 9             EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL
"""

# Once a zone had writes off its pointer.
PREFERRED_NON_SEQ = """
                       I@2*   X@2*   C@2*   F@2*
write p 1              I@3*   X@3*   I@3*   F*
write p 6-p            F*     F*     F*     F*
write p+1 1            I@4*   X@4*   I@4*   F*
write 0 1              I@2*   X@2*   I@2*   F*
open                   X@2*   =      X@2*   EINVAL
close                  C@2*   C@2*   =      EINVAL
finish                 F*     F*     F*     =
open-all               =      =      X@2*   =
close-all              C@2*   C@2*   =      =
finish-all             F*     F*     F*     =
reset                  E@0    E@0    E@0    E@0
reset-all              E@0    E@0    E@0    E@0
trim 0 8               E@0    E@0    E@0    E@0
trim 0 6               =      =      =      =
"""

# Zones whose condition never changes.
FIXED = """
                       conv    conv-ro conv-off seq-ro  seq-off
read 0 8               =       =       EIO      =       EIO
read 3 1               =       =       EIO      =       EIO
read 0 .5              EINVAL  EINVAL  EINVAL   EINVAL  EINVAL
cache 0 8              =       =       EIO      =       EIO
write 0 1              =       EPERM   EIO      EPERM   EIO
write 3 1              =       EPERM   EIO      EPERM   EIO
write 7 1              =       EPERM   EIO      EPERM   EIO
write 0 8              =       EPERM   EIO      EPERM   EIO
write 0 .5             EINVAL  EINVAL  EINVAL   EINVAL  EINVAL
append 0 1             EINVAL  EPERM   EIO      EPERM   EIO
append 0 9             EINVAL  EPERM   EIO      EPERM   EIO
append 0 .5            EINVAL  EINVAL  EINVAL   EINVAL  EINVAL
trim 0 8               =       =       =        =       =
trim 0 4               =       =       =        =       =
trim 0 .5              EINVAL  EINVAL  EINVAL   EINVAL  EINVAL
open                   EINVAL  EPERM   EIO      EPERM   EIO
close                  EINVAL  EPERM   EIO      EPERM   EIO
finish                 EINVAL  EPERM   EIO      EPERM   EIO
reset                  EINVAL  EPERM   EIO      EPERM   EIO
open-all               =       =       =        =       =
close-all              =       =       =        =       =
finish-all             =       =       =        =       =
reset-all              =       =       =        =       =
"""
FIXED_ZONES = {"conv": (CONV, "N"), "conv-ro": (CONV_RO, "R"),
               "conv-off": (CONV_OFF, "O"), "seq-ro": (SEQ_RO, "R"),
               "seq-off": (SEQ_OFF, "O")}

# Scripts: "operation | answer | conditions".  Operations name zone, place
# and length in blocks; management names a zone, or N-M, and may name
# another length than these have; it answers the blocks done, left out where
# that is all or nothing.  The conditions are of the zones that changed: all
# others have to be as they were.

LIMITS = dict(zones=10, conventional=1, max_open=2, max_active=4)

SCRIPTS = [
    ("the least recently written zone is closed to make room", LIMITS, """
     write 1 0 1 | 0 | 1 I@1
     write 2 0 1 | 0 | 2 I@1
     write 1 1 1 | 0 | 1 I@2
     write 3 0 1 | 0 | 3 I@1, 2 C@1
     write 2 1 1 | 0 | 2 I@2, 1 C@2
     zero 1 2 1 | 0 | 1 I@3, 3 C@1
     append 3 0 1 | 0 | 3 I@2, 2 C@2
     read 2 0 8 | 0 |
     open 2 | 0 | 2 X@2, 1 C@3
     write 1 3 1 | 0 | 1 I@4, 3 C@2
     open 1 | 0 | 1 X@4
     write 3 2 1 | EOVERFLOW |
     open 3 | EOVERFLOW |
     open 4 | EOVERFLOW |
     write 4 0 1 | EOVERFLOW |
     append 4 0 1 | EOVERFLOW |
     close 1 | 0 | 1 C@4
     open 4 | 0 | 4 X@0
     write 4 0 1 | 0 | 4 X@1
     write 1 4 1 | EOVERFLOW |
     reset 4 | 0 | 4 E@0
     write 1 4 1 | 0 | 1 I@5
    """),
    ("the active limit comes first and closes nothing", LIMITS, """
     write 1 0 1 | 0 | 1 I@1
     write 2 0 1 | 0 | 2 I@1
     write 3 0 1 | 0 | 3 I@1, 1 C@1
     write 4 0 1 | 0 | 4 I@1, 2 C@1
     write 5 0 1 | EOVERFLOW |
     zero 5 0 1 | EOVERFLOW |
     append 5 0 1 | EOVERFLOW |
     open 5 | EOVERFLOW |
     write 5 0 6 | EOVERFLOW |
     write 1 1 1 | 0 | 1 I@2, 3 C@1
     open 2 | 0 | 2 X@1, 4 C@1
     finish 5 | 0 | 5 F
     finish 3 | 0 | 3 F
     write 6 0 1 | 0 | 6 I@1, 1 C@2
     write 7 0 1 | EOVERFLOW |
     reset 2 | 0 | 2 E@0
     write 7 0 1 | 0 | 7 I@1
     write 2 0 1 | EOVERFLOW |
     write 7 1 5 | 0 | 7 F
     write 2 0 1 | 0 | 2 I@1
     trim 4 0 8 | 0 | 4 E@0
     write 8 0 1 | 0 | 8 I@1, 6 C@1
    """),
    ("errors of place come before the limits", LIMITS, """
     open 1 | 0 | 1 X@0
     open 2 | 0 | 2 X@0
     write 3 1 1 | EINVAL |
     write 3 0 7 | ENOSPC |
     append 3 0 7 | EINVAL |
     write 3 0 1 | EOVERFLOW |
     finish 4 | 0 | 4 F
     write 4 0 1 | ENOSPC |
     append 4 0 1 | ENOSPC |
     open 4 | EINVAL |
     close 3 | EINVAL |
    """),
    ("a zone that is written full gives everything back", LIMITS, """
     write 1 0 6 | 0 | 1 F
     write 2 0 6 | 0 | 2 F
     write 3 0 6 | 0 | 3 F
     write 4 0 6 | 0 | 4 F
     write 5 0 6 | 0 | 5 F
     write 6 0 1 | 0 | 6 I@1
     write 7 0 1 | 0 | 7 I@1
     write 8 0 6 | 0 | 8 F, 6 C@1
     append 6 0 5 | 0 | 6 F
    """),
    ("closing at the start gives everything back", LIMITS, """
     open 1 | 0 | 1 X@0
     open 2 | 0 | 2 X@0
     open 3 | EOVERFLOW |
     close 1 | 0 | 1 E@0
     open 3 | 0 | 3 X@0
     write 3 0 1 | 0 | 3 X@1
     close 3 | 0 | 3 C@1
     close 2 | 0 | 2 E@0
     write 4 0 1 | 0 | 4 I@1
     write 5 0 1 | 0 | 5 I@1
     write 6 0 1 | 0 | 6 I@1, 4 C@1
     write 7 0 1 | EOVERFLOW |
    """),
    ("open on an implicitly open zone takes nothing", LIMITS, """
     write 1 0 1 | 0 | 1 I@1
     write 2 0 1 | 0 | 2 I@1
     open 2 | 0 | 2 X@1
     open 1 | 0 | 1 X@1
     open 1 | 0 |
     open 3 | EOVERFLOW |
    """),
    ("an explicitly open zone is not closed for another", LIMITS, """
     open 1 | 0 | 1 X@0
     write 1 0 1 | 0 | 1 X@1
     write 2 0 1 | 0 | 2 I@1
     write 1 1 1 | 0 | 1 X@2
     write 3 0 1 | 0 | 3 I@1, 2 C@1
    """),
    ("open-all stops where no room can be made", LIMITS, """
     write 1 0 1 | 0 | 1 I@1
     close 1 | 0 | 1 C@1
     write 2 0 1 | 0 | 2 I@1
     close 2 | 0 | 2 C@1
     write 3 0 1 | 0 | 3 I@1
     close 3 | 0 | 3 C@1
     open-all | EOVERFLOW | 1 X@1, 2 X@1
     close 1 | 0 | 1 C@1
     close-all | 0 | 2 C@1
     finish-all | 0 | 1 F, 2 F, 3 F
     reset-all | 0 | 1 E@0, 2 E@0, 3 E@0
    """),
    ("open-all closes implicitly open zones", dict(LIMITS, max_open=1), """
     write 1 0 1 | 0 | 1 I@1
     write 2 0 1 | 0 | 2 I@1, 1 C@1
     write 1 1 1 | 0 | 1 I@2, 2 C@1
     open-all | 0 | 2 X@1, 1 C@2
     close-all | 0 | 2 C@1
     write 2 1 1 | 0 | 2 I@2
     open-all | EOVERFLOW | 1 X@2, 2 C@2
    """),
    ("the ALL forms", dict(zones=8, conventional=1, readonly=(6,),
                           offline=(7,)), """
     write 1 0 1 | 0 | 1 I@1
     open 2 | 0 | 2 X@0
     write 3 0 1 | 0 | 3 I@1
     close 3 | 0 | 3 C@1
     write 4 0 6 | 0 | 4 F
     open-all | 0 | 3 X@1
     close-all | 0 | 1 C@1, 2 E@0, 3 C@1
     write 1 1 1 | 0 | 1 I@2
     open 2 | 0 | 2 X@0
     finish-all | 0 | 1 F, 2 F, 3 F
     reset-all | 0 | 1 E@0, 2 E@0, 3 E@0, 4 E@0
     write 0 0 1 | 0 |
     reset-all | 0 |
     read 0 0 8 | 0 |
    """),
    ("ranges stop at the first refusal", dict(
        zones=9, conventional=1, readonly=(5,), offline=(7,)), """
     reset 0-8 | EINVAL 0 |
     open 1-2 | 0 16 | 1 X@0, 2 X@0
     write 2 0 1 | 0 | 2 X@1
     finish 3 | 0 | 3 F
     open 1-4 | EINVAL 16 |
     close 1-4 | EINVAL 16 | 1 E@0, 2 C@1
     finish 4-8 | EPERM 8 | 4 F
     reset 3-6 | EPERM 16 | 3 E@0, 4 E@0
     finish 6-8 | EIO 8 | 6 F
     finish 7-8 | EIO 0 |
     reset 8 | 0 8 |
    """),
    ("writes go on into the next zone, one zone after the other", dict(
        zones=9, capacity=SIZE * B, conventional=1, max_open=1,
        readonly=(6,), offline=(8,)), """
     write 1 0 20 | 0 | 1 F, 2 F, 3 I@4
     write 0 6 3 | ENOSPC |
     reset 1 | 0 | 1 E@0
     write 0 6 3 | 0 | 1 I@1, 3 C@4
     write 0 6 3 | EINVAL |
     zero 3 4 8 | 0 | 3 F, 1 C@1, 4 I@4
     write 4 4 5 | 0 | 4 F, 5 I@1
     write 5 1 9 | EPERM | 5 F
     write 6 7 2 | EPERM |
     write 7 0 9 | EIO | 7 F
     open 1 | 0 | 1 X@1
     reset 2 | 0 | 2 E@0
     write 1 1 9 | 0 | 1 F, 2 I@2
     open 2 | 0 | 2 X@2
     reset 3-5 | 0 | 3 E@0, 4 E@0, 5 E@0
     write 3 0 1 | EOVERFLOW |
     write 2 2 8 | 0 | 2 F, 3 I@2
     read 0 0 56 | 0 |
     read 6 0 16 | 0 |
     read 6 0 17 | EIO |
     read 7 7 2 | EIO |
    """),
    ("writes into the next zone end at a capacity below size", dict(
        zones=4), """
     write 0 0 9 | ENOSPC |
     write 0 0 6 | 0 | 0 F
     write 0 6 3 | ENOSPC |
     write 1 0 16 | ENOSPC |
    """),
    ("conditions after the disk is opened again", dict(
        zones=9, conventional=1, readonly=(7,), offline=(8,)), """
     write 1 0 1 | 0 | 1 I@1
     open 2 | 0 | 2 X@0
     open 3 | 0 | 3 X@0
     write 3 0 2 | 0 | 3 X@2
     write 4 0 1 | 0 | 4 I@1
     close 4 | 0 | 4 C@1
     write 5 0 6 | 0 | 5 F
     write 6 0 2 | 0 | 6 I@2
     finish 6 | 0 | 6 F
     reopen | 0 | 1 C@1, 2 E@0, 3 C@2
     write 1 1 1 | 0 | 1 I@2
     reopen | 0 | 1 C@2
     reset 1-6 | 0 | 1 E@0, 3 E@0, 4 E@0, 5 E@0, 6 E@0
     reopen | 0 |
    """),
    ("host-aware: conditions after the disk is opened again", dict(
        zones=4, model="host-aware"), """
     write 0 1 1 | 0 | 0 I@2*
     write 1 5 1 | 0 | 1 F*
     open 2 | 0 | 2 X@0
     write 2 4 1 | 0 | 2 X@5*
     reopen | 0 | 0 C@2*, 2 C@5*
     reset 0-1 | 0 | 0 E@0, 1 E@0
     reopen | 0 |
    """),
    ("a smaller last zone", dict(size=(3 * SIZE + 4) * B), """
     write 3 0 5 | ENOSPC |
     write 3 0 4 | 0 | 3 F
     reset 3 4 | 0 | 3 E@0
     write 3 0 1 | 0 | 3 I@1
     trim 3 0 3 | 0 |
     trim 3 0 4 | 0 | 3 E@0
     append 3 0 3 | 0 | 3 I@3
     append 3 0 1 | 0 | 3 F
     finish 2-3 12 | 0 12 | 2 F
     reset 2-3 12 | 0 12 | 2 E@0, 3 E@0
     reset 2-3 11 | EINVAL 0 |
     reset 2-3 13 | EINVAL 0 |
     open 3 3 | EINVAL 0 |
     open 3 4 | 0 4 | 3 X@0
    """),
    ("a smaller last zone below capacity", dict(
        size=(2 * SIZE + 7) * B), """
     write 2 0 7 | ENOSPC |
     write 2 0 6 | 0 | 2 F
     trim 2 0 6 | 0 |
     trim 2 0 7 | 0 | 2 E@0
    """),
    ("ranges past the end", dict(zones=3, conventional=1), """
     read 2 7 2 | EINVAL |
     read 3 0 1 | EINVAL |
     cache 2 7 2 | EINVAL |
     write 2 7 2 | ENOSPC |
     write 2 7.5 1 | ENOSPC |
     write 3 0 1 | ENOSPC |
     zero 2 0 9 | ENOSPC |
     append 2 7 2 | ENOSPC |
     append 3 0 1 | ENOSPC |
     trim 2 0 9 | EINVAL |
     trim 3 0 1 | EINVAL |
     open 3 | EINVAL 0 |
     reset 1-3 | EINVAL 0 |
    """),
    ("a client that may only read", dict(
        zones=5, conventional=1, readonly=(3,), offline=(4,)), """
     write 1 0 1 | 0 | 1 I@1
     -write 1 1 1 | EPERM |
     -write 0 0 1 | EPERM |
     -write 1 .5 1 | EPERM |
     -write 5 0 1 | EPERM |
     -write 4 0 1 | EPERM |
     -zero 1 1 1 | EPERM |
     -append 1 0 1 | EPERM |
     -append 4 0 1 | EPERM |
     -trim 1 0 8 | EPERM |
     -trim 1 0 1 | EPERM |
     -open 1 | EPERM |
     -close 1 | EPERM |
     -finish 1 | EPERM |
     -reset 1 | EPERM |
     -reset 0 | EPERM |
     -reset 4 | EPERM |
     -open-all | EPERM |
     -close-all | EPERM |
     -finish-all | EPERM |
     -reset-all | EPERM |
     -flush | 0 |
     -read 0 0 32 | 0 |
     -read 4 0 1 | EIO |
     -cache 1 0 1 | 0 |
    """),
    ("host-aware: the limits count", dict(LIMITS, model="host-aware"), """
     write 1 1 1 | 0 | 1 I@2*
     write 2 0 1 | 0 | 2 I@1
     write 1 0 1 | 0 |
     write 3 3 1 | 0 | 3 I@4*, 2 C@1
     write 2 0 1 | 0 | 2 I@1*, 1 C@2*
     open 3 | 0 | 3 X@4*
     open 2 | 0 | 2 X@1*
     write 1 0 1 | EOVERFLOW |
     write 4 0 1 | EOVERFLOW |
     write 1 6 1 | ENOSPC |
     finish 5 | 0 | 5 F
     write 5 0 1 | 0 | 5 F*
     write 5 5 1 | 0 |
     write 5 5 2 | ENOSPC |
     reset 5 | 0 | 5 E@0
     close 3 | 0 | 3 C@4*
     write 5 5 1 | 0 | 5 F*
     write 6 0 1 | 0 | 6 I@1
     write 7 0 6 | EOVERFLOW |
    """),
    ("host-aware: writes go on into the next zone", dict(
        zones=5, capacity=SIZE * B, model="host-aware"), """
     write 0 6 20 | 0 | 0 F*, 1 F, 2 F, 3 I@2
     write 1 4 8 | 0 | 1 F*, 2 F*
     write 3 0 8 | 0 | 3 F*
    """),
]
