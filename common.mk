# SPDX-License-Identifier: BSD-3-Clause
# What every folder's Makefile.am begins with: how C is compiled and how
# man pages are made.

AM_CPPFLAGS = -I$(top_srcdir)/zonelib
AM_CFLAGS = -std=gnu11 -pthread $(WARNING_CFLAGS) $(SANITIZER_CFLAGS)
AM_LDFLAGS = -pthread $(SANITIZER_LDFLAGS)

CLEANFILES = $(man_MANS)

SUFFIXES = .pod .1 .3
pod2man = $(POD2MAN) --utf8 --errors=die --name=$(*F) \
	--center="Zoned block devices over NBD" --release="znbd-$(VERSION)"

.pod.1:
	$(AM_V_GEN)$(pod2man) --section=1 $< $@.tmp && mv $@.tmp $@
.pod.3:
	$(AM_V_GEN)$(pod2man) --section=3 $< $@.tmp && mv $@.tmp $@
