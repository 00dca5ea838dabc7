# SPDX-License-Identifier: GPL-2.0
#
# Everything that a person types.  The first run of any of these sets up what it
# needs, in ${XDG_CACHE_HOME:-~/.cache}/dm-switch.
#
#   make              the module and the tool
#   make demo         see it work, in QEMU
#   make demo-multipath
#                     the same over multipath devices and iSCSI
#   make check        run all tests; TEST='name ...' runs those, and shows what one
#                     alone prints; EXCEPT='name ...' runs all but those
#   make check-debug  the same on a kernel that is built for finding faults; each race
#                     takes TIME seconds (60)
#   make check-kcsan  the tests of concurrency, on a kernel that looks for data races
#   make coverage     how much of the module the tests reach, line by line in
#                     coverage/index.html; all that they do not reach is in
#                     tests/coverage/unreached, with the reason
#   make bench        measure what it costs on each series of kernels, or on those in
#                     KVER, and write docs/BENCHMARKS.md
#   make docs         draw the pictures of docs/internals.md
#   make fuzz         the module against a model of it, for TIME seconds (60), with scripts that are led by what
#                     earlier ones reached, or with LED=no by nothing; SEED=number has the same random numbers again,
#                     SCRIPT=text runs one script, KEEP=1 renews the corpus in tests/fuzz
#   make fuzz-swupload
#                     swupload against a model of it, with INPUTS inputs (400000) that are led by what earlier ones
#                     reached; SEED=number has the same again, KEEP=1 renews the corpus in tests/swupload
#   make soak         everything together over an array for TIME seconds (600),
#                     with an eye on memory; KERNEL=debug has it on that kernel
#   make dist         the source as a tarball, which DKMS takes
#   make deb          the Debian packages
#   make check-package
#                     install, use, upgrade and purge them in a Debian 12 and a Debian 13; SUITE=bookworm or
#                     SUITE=trixie has one of the two
#   make faults       make each fault in tests/faults, and show which test sees it; FAULT='name ...' has those
#   make mutants      make hundreds of small changes of the policy, and show that the tests on the host see them
#   make lint         rustfmt, clippy, shellcheck, mandoc
#   make module       dm-switch.ko
#   make tools        swupload
#   make kernelinfo   where the kernel's parts are, as shell assignments
#   make install      the module into updates/, the tool and the manual pages
#                     into PREFIX; make uninstall takes them away
#
# make KDIR=/lib/modules/$(uname -r)/build builds the module alone, for the kernel whose tree or headers these are, with
# the compilers that are installed.  It needs no root rights and no network.  make install with the same KDIR installs
# that; make tools, before it, adds the tool.
#
#   make clean        remove what was built here; the cache stays
#
# These variables pick what the module is built for, and with:
#
#   KVER       a kernel of Debian's: a series (6.1, 6.12, 7.2, 7.3), a version (7.3.4) or a release
#              (7.3.4+deb13-amd64).  The default is the newest series.  check-debug and check-kcsan build
#              their own kernels from the source of that one.
#   ARCH       the architecture that everything is built for, and that the guest has: amd64, which is the default, or
#              arm64, which is emulated, too.  The default kernel for that one is 6.12, and CRATE is compat.
#   CRATE      the crate "kernel" that the module is compiled with.  kernel is the kernel's own, which 7.2 and 7.3
#              have, and is their default.  compat is the stand-in in compat/, and the default of 6.1 and 6.12:
#              it needs the kernel's headers packages alone.
#   TOOLCHAIN  the Debian whose compilers build the module: trixie or bookworm.  The default is the one
#              that the kernel is from: bookworm for 6.1, else trixie.  CRATE=kernel needs trixie's.
#   KDIR       a kernel's tree, or its headers, to build the module against with the host's own compilers; for make,
#              module and install alone.  CRATE is then by default the kernel's own crate where the tree has metadata
#              that this rustc can read, else compat.

PREFIX ?= /usr/local
export KVER ARCH KERNEL CRATE TOOLCHAIN KDIR SUITE TEST EXCEPT FAULT SEED TIME LED SCRIPT INPUTS KEEP PREFIX DESTDIR

# The tool is built in a build root, and its crates are downloaded.
all: $(if $(KDIR),module,module tools)

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

coverage:
	@scripts/coverage.sh

bench:
	@scripts/bench.sh

docs:
	@scripts/docs.sh

fuzz:
	@scripts/fuzz.sh

fuzz-swupload:
	@scripts/fuzz-swupload.sh

soak:
	@scripts/soak.sh

dist:
	@scripts/dist.sh

deb:
	@scripts/deb.sh

check-package:
	@scripts/check-package.sh

faults:
	@scripts/faults.sh

mutants:
	@scripts/mutants.sh

lint:
	@scripts/lint.sh

install: all
	@scripts/install.sh

uninstall:
	@scripts/install.sh --undo

clean:
	rm -f *.o *.ko *.mod *.mod.c .*.cmd ..*.cmd .*.o .*.d bindings.rs .built-with Module.symvers modules.order *.deb *.tar.gz
	rm -rf compat/library coverage
	cd compat && rm -f *.o .*.cmd .*.d *.rlib *.a *.so flags generated.rs target.json target.own

.PHONY: all module tools kernelinfo demo demo-multipath check check-debug check-kcsan coverage bench docs fuzz fuzz-swupload soak dist deb check-package faults mutants lint install uninstall clean
