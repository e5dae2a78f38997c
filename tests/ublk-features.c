/* SPDX-License-Identifier: BSD-3-Clause */
/* Prints the features of the kernel's ublk driver, one hexadecimal number,
 * for tests in the virtual machine.  The driver is asked by its control
 * device, over an io_uring with long entries; headers of Debian 12 know
 * neither the command nor the feature of zones.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Linux, include/uapi/linux/ublk_cmd.h: _IOR ('u', 0x13, the struct) */
#define UBLK_U_CMD_GET_FEATURES UINT32_C (0x80207513)

struct ublk_control {
  uint32_t device;
  uint16_t queue;
  uint16_t len;                 /* of the answer */
  uint64_t addr;
  uint64_t rest[2];
};
_Static_assert (sizeof (struct ublk_control) == 32, "as the kernel has it");

static void
die (const char *what, int err)
{
  fprintf (stderr, "ublk-features: %s: %s\n", what, strerror (err));
  exit (EXIT_FAILURE);
}

int
main (void)
{
  uint64_t features = 0;
  struct ublk_control control = {
    .device = UINT32_MAX, .queue = UINT16_MAX,
    .len = sizeof features, .addr = (uintptr_t) &features,
  };
  struct io_uring ring;
  struct io_uring_sqe *sqe;
  struct io_uring_cqe *cqe;
  int fd, r;

  fd = open ("/dev/ublk-control", O_RDWR | O_CLOEXEC);
  if (fd == -1)
    die ("/dev/ublk-control", errno);
  r = io_uring_queue_init (4, &ring, IORING_SETUP_SQE128);
  if (r < 0)
    die ("io_uring", -r);

  sqe = io_uring_get_sqe (&ring);
  if (!sqe)
    die ("io_uring", EBUSY);
  memset (sqe, 0, 2 * sizeof *sqe);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = fd;
  sqe->cmd_op = UBLK_U_CMD_GET_FEATURES;
  memcpy (sqe->cmd, &control, sizeof control);
  r = io_uring_submit_and_wait (&ring, 1);
  if (r < 0)
    die ("submitting", -r);
  r = io_uring_peek_cqe (&ring, &cqe);
  if (r < 0)
    die ("waiting", -r);
  if (cqe->res < 0)
    die ("GET_FEATURES", -cqe->res);

  printf ("0x%" PRIx64 "\n", features);
  io_uring_queue_exit (&ring);
  close (fd);
  return EXIT_SUCCESS;
}
