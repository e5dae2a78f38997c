/* SPDX-License-Identifier: BSD-3-Clause */
/* The fuzzer's entry points, under libFuzzer's names, which call them; see
 * target.c.
 */

#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

/* Stands in an input where another client goes on; see target.c, and
 * seeds.py, which has it too. */
#define MARK "\xf0\x5a\xf0"

int LLVMFuzzerInitialize (int *argc, char ***argv);
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max_size,
                                unsigned seed);

#endif /* FUZZ_TARGET_H */
