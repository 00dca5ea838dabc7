#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# bench.sh: measure what I/O, uploads and devices cost, on a kernel of each supported series, or on those that
# KVER in the environment names; print it, and write it to BENCHMARKS.md, with a chart, BENCHMARKS.svg.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/series.sh"
cd "$top"

# in_root wants the certificates.
chart_packages=(ca-certificates gnuplot-nox)
chart_root=$cache/chart-root-$(printf '%s\n' "$suite" "${chart_packages[@]}" | digest)

introduction() {
	cat <<-'END'
		# What it costs

		`make bench` writes this page. Figures are instructions of an emulated processor, counted by QEMU
		(`-icount shift=0,sleep=off`), for times on shared machines do not repeat. What an I/O takes is the least
		of 50,000 of them, or of 390 of 1 MiB, to null_blk devices; that repeats exactly, and leaves out what
		comes between, as the clock's ticks do. All figures of a table are from one boot of the stock kernel.

		The module counts every I/O twice, for the status line and for the chunk, and frees tables while others
		read them; the kernel's own does neither.

		![Instructions of an I/O, more than through dm-linear](BENCHMARKS.svg)
	END
}

# bars FILE: of a chapter's first table, what the chart shows: a row and the two targets' numbers.
bars() {
	awk -F ' *[|] *' '/^###/ { tables++ }
		tables == 1 && $4 ~ /^[+-][0-9]/ && $2 !~ /^1 MiB/ { printf "\"%s\" %d %s\n", $2, $4, $5 == "" ? "?" : $5 + 0 }' "$1"
}

# draw FILE: the chart of that chapter, as BENCHMARKS.svg.
draw() {
	bars "$1" >"$dir/bars"
	root=$chart_root in_root gnuplot <<-END
		set terminal svg size 900,480 font "sans-serif,13" background "white"
		set output "BENCHMARKS.svg"
		set title "Instructions of an I/O of 4 KiB, more than through dm-linear ($(sed -n 's/^## //p' "$1"))"
		set datafile missing "?"
		set style data histogram
		set style histogram clustered gap 1
		set style fill solid
		set boxwidth 0.9
		set rmargin 12
		set yrange [0:*]
		set grid ytics
		set xtics rotate by -30
		set key top left reverse Left
		plot "$dir/bars" using 2:xtic(1) title "this module", "" using 3 title "the kernel's own"
	END
}

need_root
need_debian "$chart_root" "root that draws charts" "${chart_packages[@]}"
dir=$(mktemp -d "$cache/bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
chapters=()
for kernel in ${KVER:-"${series[@]}"}; do
	chapters+=("$dir/$kernel")
	KVER=$kernel scripts/measure.sh "$dir/$kernel"
done
{
	introduction
	for chapter in "${chapters[@]}"; do
		echo
		cat "$chapter"
	done
} >"$dir/page"
draw "${chapters[-1]}"
mv "$dir/page" BENCHMARKS.md
cat BENCHMARKS.md
