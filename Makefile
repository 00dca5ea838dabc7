# SPDX-License-Identifier: GPL-2.0
#
# Everything that a person types.  The first run of any of these sets up what it
# needs, in ${XDG_CACHE_HOME:-~/.cache}/dm-switch.
#
#   make              the module and the tool
#   make demo         see it work, in QEMU
#   make demo-multipath
#                     the same over multipath devices and iSCSI
#   make check        run all tests; TEST=name runs one
#   make check-debug  the same on a kernel that is built for finding faults
#   make check-kcsan  those of things at once on a kernel that looks for data races
#   make bench        measure what it costs, and write BENCHMARKS.md
#   make fuzz         the module against a model of it, for TIME seconds (60);
#                     SEED=number has the same again
#   make soak         everything together over an array for TIME seconds (600),
#                     with an eye on memory; KERNEL=debug has it on that kernel
#   make deb          the Debian packages
#   make check-package
#                     install, use, upgrade and purge them in a Debian 13
#   make lint         rustfmt, clippy, shellcheck, mandoc
#   make module       dm-switch.ko; KDIR=tree builds against that tree
#   make tools        swupload
#   make kernelinfo   where the kernel's parts are, as shell assignments
#   make install      the module into updates/, the tool and the manual pages
#                     into PREFIX; make uninstall takes them away
#   make clean        remove what was built here; the cache stays
#
# KVER picks a kernel of Debian's: 7.2, 7.3.4, 7.3.4+deb13-amd64.  check-debug and check-kcsan build their own
# from the source of that one.

PREFIX ?= /usr/local
export KVER KERNEL KDIR TEST SEED TIME PREFIX DESTDIR

all: module tools

module:
	@scripts/module.sh

tools:
	@scripts/tools.sh

kernelinfo:
	@scripts/kernel.sh

demo:
	@scripts/demo.sh demo base

demo-multipath:
	@scripts/demo.sh demo-multipath array

check:
	@scripts/check.sh

check-debug:
	@KERNEL=debug scripts/check.sh

check-kcsan:
	@KERNEL=kcsan scripts/check.sh

bench:
	@scripts/bench.sh

fuzz:
	@scripts/fuzz.sh

soak:
	@scripts/soak.sh

deb:
	@scripts/deb.sh

check-package:
	@scripts/check-package.sh

lint:
	@scripts/lint.sh

install: all
	@scripts/install.sh

uninstall:
	@scripts/install.sh --undo

clean:
	rm -f *.o *.ko *.mod *.mod.c .*.cmd ..*.cmd .*.o bindings.rs Module.symvers modules.order *.deb

.PHONY: all module tools kernelinfo demo demo-multipath check check-debug check-kcsan bench fuzz soak deb check-package lint install uninstall clean
