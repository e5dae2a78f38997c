/* SPDX-License-Identifier: BSD-3-Clause */
/* The bar of znbd copy, on standard error: one line that is drawn again and
 * again, as wide as the terminal.  The main thread alone draws it.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "copy.h"

#define WIDTH_DEFAULT 80
#define WIDTH_MIN 24
#define WIDTH_MAX 200

/* Drawn no more often than so, in seconds. */
#define PAUSE 0.1

static bool shown;              /* a bar stands in the line */
static bool active;             /* there is to be one */
static const char *what;
static struct timespec begun;
static double drawn;            /* when, in seconds from then */

static double
seconds (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return (now.tv_sec - begun.tv_sec) + (now.tv_nsec - begun.tv_nsec) / 1e9;
}

/* "1.5G": three digits are enough here. */
static const char *
rough (char text[16], double bytes)
{
  static const char units[] = "BKMGTPE";
  unsigned i = 0;

  while (bytes >= 1000 && i < sizeof units - 2) {
    bytes /= 1024;
    i++;
  }
  snprintf (text, 16, "%.*f%c", i > 0 && bytes < 10 ? 1 : 0, bytes,
            units[i]);
  return text;
}

static unsigned
width (void)
{
  struct winsize size;

  if (ioctl (STDERR_FILENO, TIOCGWINSZ, &size) == -1 || size.ws_col == 0)
    return WIDTH_DEFAULT;
  return size.ws_col < WIDTH_MIN ? WIDTH_MIN
    : size.ws_col > WIDTH_MAX ? WIDTH_MAX : size.ws_col;
}

void
copy_progress_begin (struct copy *c, const char *verb)
{
  active = c->o.progress && c->total > 0;
  what = verb;
  drawn = -PAUSE;
  clock_gettime (CLOCK_MONOTONIC, &begun);
}

static void
draw (struct copy *c)
{
  uint64_t done = atomic_load (&c->done);
  double part, time = seconds (), rate = time > 0 ? done / time : 0;
  char bar[WIDTH_MAX + 1], a[16], b[16], r[16], left[32] = "";
  char line[WIDTH_MAX + 128];
  int n, room;

  if (done > c->total)
    done = c->total;
  part = (double) done / c->total;
  if (rate > 0 && done < c->total) {
    uint64_t eta = (c->total - done) / rate;

    snprintf (left, sizeof left, "  %" PRIu64 ":%02u:%02u left", eta / 3600,
              (unsigned) (eta / 60 % 60), (unsigned) (eta % 60));
  }
  n = snprintf (line, sizeof line, "%s %3d%%  %s of %s  %s/s%s", what,
                (int) (part * 100), rough (a, done), rough (b, c->total),
                rough (r, rate), left);
  room = (int) width () - n - 5;
  if (room >= 8) {
    memset (bar, '-', room);
    memset (bar, '#', (size_t) (part * room));
    bar[room] = '\0';
    snprintf (line + n, sizeof line - n, "  [%s]", bar);
  }
  else
    line[width () - 1] = '\0';
  fprintf (stderr, "\r%s\033[K", line);
  fflush (stderr);
  shown = true;
  drawn = time;
}

void
copy_progress_draw (struct copy *c)
{
  if (active && seconds () >= drawn + PAUSE)
    draw (c);
}

void
copy_progress_clear (struct copy *c)
{
  (void) c;
  if (!shown)
    return;
  fputs ("\r\033[K", stderr);
  shown = false;
}

void
copy_progress_end (struct copy *c, bool good)
{
  if (good && active) {
    draw (c);
    fputc ('\n', stderr);
    shown = false;
  }
  copy_progress_clear (c);
  active = false;
}
