/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs the fuzzer's target without a fuzzer, on each file named, or on
 * standard input: for any compiler, to replay what was found, and for AFL,
 * in whose persistent mode it is where afl-clang-fast compiles it.
 */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "target.h"

#define INPUT_MAX (4u << 20)

static uint8_t input[INPUT_MAX];

static int
run_file (const char *name)
{
  FILE *f = fopen (name, "rb");
  size_t n;

  if (f == NULL) {
    perror (name);
    return -1;
  }
  n = fread (input, 1, sizeof input, f);
  fclose (f);
  LLVMFuzzerTestOneInput (input, n);
  return 0;
}

int
main (int argc, char *argv[])
{
  ssize_t n;
  int i;

  LLVMFuzzerInitialize (&argc, &argv);
  for (i = 1; i < argc; i++)
    if (run_file (argv[i]) == -1)
      return 1;
  if (argc > 1) {
    printf ("%d inputs\n", argc - 1);
    return 0;
  }
#ifdef __AFL_LOOP
  while (__AFL_LOOP (10000))
#endif
  {
    n = read (STDIN_FILENO, input, sizeof input);
    if (n > 0)
      LLVMFuzzerTestOneInput (input, n);
  }
  return 0;
}
