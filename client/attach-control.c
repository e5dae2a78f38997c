/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands to the ublk driver, by /dev/ublk-control: what the kernel can do,
 * and the life of a device.  Each waits for its end; starting a device reads
 * it, so another thread must serve it meanwhile.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"

#define CONTROL "/dev/ublk-control"
#define WANTED "Linux 6.6 or later with CONFIG_BLK_DEV_UBLK"

/* ms between attempts, and how many, where the process before has not quite
 * ended. */
#define BUSY_MS 50
#define BUSY_TIMES 200

int
control_open (struct control *c, struct zone_error *err)
{
  int r;

  c->fd = open (CONTROL, O_RDWR | O_CLOEXEC);
  if (c->fd == -1 && (errno == ENOENT || errno == ENODEV))
    return zone_error (err, errno, "the kernel's ublk driver is not there: "
                       "modprobe ublk_drv (" WANTED ")");
  if (c->fd == -1)
    return zone_error (err, errno, CONTROL ": %s", strerror (errno));
  r = io_uring_queue_init (4, &c->ring, IORING_SETUP_SQE128);
  if (r < 0) {
    close (c->fd);
    return zone_error (err, -r, "io_uring: %s (ublk needs it: "
                       WANTED ")", strerror (-r));
  }
  return 0;
}

void
control_close (struct control *c)
{
  io_uring_queue_exit (&c->ring);
  close (c->fd);
}

/* Returns 0 or -errno. */
static int
command (struct control *c, uint32_t op, uint32_t id, void *buf, size_t n,
         uint64_t data)
{
  struct ublk_control_cmd cmd = {
    .dev_id = id, .queue_id = UINT16_MAX, .len = n,
    .addr = (uintptr_t) buf, .data = data,
  };
  struct io_uring_sqe *sqe = io_uring_get_sqe (&c->ring);
  struct io_uring_cqe *cqe;
  int r;

  if (sqe == NULL)
    return -EBUSY;
  memset (sqe, 0, 2 * sizeof *sqe);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = c->fd;
  sqe->cmd_op = op;
  memcpy (sqe->cmd, &cmd, sizeof cmd);
  r = io_uring_submit (&c->ring);
  if (r < 0)
    return r;
  do
    r = io_uring_wait_cqe (&c->ring, &cqe);
  while (r == -EINTR);
  if (r < 0)
    return r;
  r = cqe->res;
  io_uring_cqe_seen (&c->ring, cqe);
  return r;
}

int
control_features (struct control *c, bool zoned, struct zone_error *err)
{
  const uint64_t needed = UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE |
    UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE;
  uint64_t features = 0;
  int r = command (c, UBLK_GET_FEATURES, UINT32_MAX, &features,
                   sizeof features, 0);

  if (r == -EPERM || r == -EACCES)
    return zone_error (err, -r, CONTROL ": %s (are you root?)",
                       strerror (-r));
  if (r < 0 || (features & needed) != needed)
    return zone_error (err, ENOTSUP, "the kernel's ublk driver is too old: "
                       "it needs " WANTED);
  if (zoned && !(features & UBLK_F_ZONED))
    return zone_error (err, ENOTSUP, "the kernel's ublk driver knows no "
                       "zones: it needs Linux 6.6 or later with "
                       "CONFIG_BLK_DEV_ZONED");
  return 0;
}

int
control_info (struct control *c, int id, struct ublk_dev_info *info)
{
  return command (c, UBLK_GET_DEV_INFO, id, info, sizeof *info, 0);
}

int
control_add (struct control *c, struct ublk_dev_info *info, int id,
             struct zone_error *err)
{
  const uint64_t wanted = info->flags;
  int r;

  info->dev_id = id == -1 ? UINT32_MAX : (uint32_t) id;
  r = command (c, UBLK_ADD_DEV, info->dev_id, info, sizeof *info, 0);
  if (r == -EEXIST)
    return zone_error (err, -r, "there is a ublk device %d already (znbd "
                       "list shows those of znbd attach)", id);
  if (r == -EPERM)
    return zone_error (err, -r, CONTROL ": %s (are you root?)",
                       strerror (-r));
  if (r < 0)
    return zone_error (err, -r, "the kernel makes no ublk device: %s",
                       strerror (-r));
  if ((info->flags & wanted) != wanted) {
    control_delete (c, info->dev_id);
    return zone_error (err, ENOTSUP, "the kernel's ublk driver is too old: "
                       "it needs " WANTED);
  }
  return 0;
}

int
control_params (struct control *c, int id, struct ublk_parameters *p,
                struct zone_error *err)
{
  int r;

  p->len = sizeof *p;
  r = command (c, UBLK_SET_PARAMS, id, p, sizeof *p, 0);
  if (r < 0)
    return zone_error (err, -r, "the kernel refuses the disk's parameters: "
                       "%s (dmesg may say more)", strerror (-r));
  return 0;
}

int
control_start (struct control *c, int id, struct zone_error *err)
{
  int r = command (c, UBLK_START_DEV, id, NULL, 0, getpid ());

  if (r < 0)
    return zone_error (err, -r, "the kernel does not start /dev/ublkb%d: "
                       "%s (dmesg may say more)", id, strerror (-r));
  return 0;
}

int
control_start_recovery (struct control *c, int id, struct zone_error *err)
{
  int r, i;

  for (i = 0; i < BUSY_TIMES; i++) {
    r = command (c, UBLK_START_RECOVERY, id, NULL, 0, 0);
    if (r != -EBUSY)
      break;
    usleep (BUSY_MS * 1000);
  }
  if (r < 0)
    return zone_error (err, -r, "/dev/ublkb%d cannot be taken over: %s", id,
                       strerror (-r));
  return 0;
}

int
control_end_recovery (struct control *c, int id, struct zone_error *err)
{
  int r = command (c, UBLK_END_RECOVERY, id, NULL, 0, getpid ());

  if (r < 0)
    return zone_error (err, -r, "/dev/ublkb%d cannot be taken over: %s", id,
                       strerror (-r));
  return 0;
}

int
control_stop (struct control *c, int id)
{
  return command (c, UBLK_STOP_DEV, id, NULL, 0, 0);
}

int
control_delete (struct control *c, int id)
{
  return command (c, UBLK_DEL_DEV, id, NULL, 0, 0);
}
