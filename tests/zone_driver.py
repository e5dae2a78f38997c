# SPDX-License-Identifier: BSD-3-Clause
"""Runs zones-driver: batches of operations in, answers out."""

import os
import subprocess

DRIVER = os.environ.get("ZONES_DRIVER", "./zones-driver")

# A batch that the driver has not read yet fits into the pipe's 64 KiB
# beside the next one, so neither side waits for the other for ever.
BATCH = 500


class Died(Exception):
    pass


class Driver:
    """A disk of a Geometry: in memory, or in the image at a path."""

    def __init__(self, geometry, image=None, keep=False, timeout=0,
                 reasons=False):
        args = [DRIVER] + geometry.driver_args()
        args += ["--reorder-timeout", str(timeout)]
        if image:
            args += ["--image", image]
        if keep:
            args += ["--keep"]
        if reasons:
            args += ["--reasons"]
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        line = self.process.stdout.readline().decode()
        if not line:
            raise Died("zones-driver does not start: %s" % " ".join(args))
        self.info = dict(word.split("=") for word in line.split())

    def send(self, ops):
        """At most one batch may be unanswered when another is sent."""
        text = "\n".join([" ".join(map(str, op)) for op in ops])
        try:
            self.process.stdin.write(text.encode() + b"\n.\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass                # the missing answers tell

    def receive(self, count):
        """The answers; fewer where the driver died."""
        answers = []
        for _ in range(count):
            line = self.process.stdout.readline()
            if not line.endswith(b"\n"):
                break
            answers.append(line.decode().rstrip())
        return answers

    def run(self, ops):
        """Sends any number of operations and returns the answers."""
        answers, waiting = [], []
        for batch in split(ops):
            self.send(batch)
            waiting.append(len(batch))
            if len(waiting) == 2:
                answers += self.receive(waiting.pop(0))
        for count in waiting:
            answers += self.receive(count)
        return answers

    def one(self, *op):
        answers = self.run([op])
        if not answers:
            raise Died("zones-driver died at: %s" % " ".join(map(str, op)))
        return answers[0]

    def close(self):
        """Returns the driver's exit status."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.stdout.close()
        return self.process.wait()


def split(ops):
    """Cuts operations into batches."""
    return [ops[i:i + BATCH] for i in range(0, len(ops), BATCH)]
