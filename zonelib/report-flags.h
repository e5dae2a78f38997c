/* SPDX-License-Identifier: BSD-3-Clause */
/* The flags that block status descriptors carry: for report.c, which
 * encodes them, and for the client, which decodes them.
 */

#ifndef ZONE_REPORT_FLAGS_H
#define ZONE_REPORT_FLAGS_H

/* x-zbd:zones: condition in bits 0-3, type in 4-5, region in 8-9. */
#define REPORT_COND_MASK        15u
#define REPORT_TYPE_SHIFT       4
#define REPORT_TYPE_MASK        3u
#define REPORT_REGION_SHIFT     8
#define REPORT_REGION_MASK      3u
#define REPORT_REGION_NONE      0       /* a zone without pointer */
#define REPORT_REGION_DATA      1       /* below the pointer */
#define REPORT_REGION_FREE      2       /* from the pointer to capacity */
#define REPORT_REGION_GAP       3       /* from capacity to the zone's end */
#define REPORT_RESET            (1u << 10)
#define REPORT_NON_SEQ          (1u << 11)

/* base:allocation */
#define REPORT_HOLE             1u
#define REPORT_ZERO             2u

#endif /* ZONE_REPORT_FLAGS_H */
