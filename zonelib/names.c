/* SPDX-License-Identifier: BSD-3-Clause */
/* The names of types, conditions, models and operations that reports and
 * messages use.  They are part of what scripts read (JSON of znbd report):
 * add, never rename.  Built into zonelib and into libznbd.
 */

#include <config.h>

#include "znbd-types.h"

const char *
znbd_cond_name (unsigned cond)
{
  switch (cond) {
  case ZNBD_COND_NOT_WP: return "not-wp";
  case ZNBD_COND_EMPTY: return "empty";
  case ZNBD_COND_IMPLICIT_OPEN: return "implicit-open";
  case ZNBD_COND_EXPLICIT_OPEN: return "explicit-open";
  case ZNBD_COND_CLOSED: return "closed";
  case ZNBD_COND_READ_ONLY: return "read-only";
  case ZNBD_COND_FULL: return "full";
  case ZNBD_COND_OFFLINE: return "offline";
  default: return "unknown";
  }
}

const char *
znbd_type_name (unsigned type)
{
  switch (type) {
  case ZNBD_ZONE_CONVENTIONAL: return "conventional";
  case ZNBD_ZONE_SEQ_REQUIRED: return "seq-write-required";
  case ZNBD_ZONE_SEQ_PREFERRED: return "seq-write-preferred";
  default: return "unknown";
  }
}

const char *
znbd_model_name (unsigned model)
{
  switch (model) {
  case ZNBD_MODEL_NONE: return "none";
  case ZNBD_MODEL_HOST_AWARE: return "host-aware";
  case ZNBD_MODEL_HOST_MANAGED: return "host-managed";
  default: return "unknown";
  }
}

const char *
znbd_op_name (unsigned op)
{
  switch (op) {
  case ZNBD_ZONE_OPEN: return "open";
  case ZNBD_ZONE_CLOSE: return "close";
  case ZNBD_ZONE_FINISH: return "finish";
  case ZNBD_ZONE_RESET: return "reset";
  default: return "unknown";
  }
}
