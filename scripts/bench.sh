#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make bench.
#
# bench.sh: measure what I/O, uploads and devices cost, on a kernel of each supported series, or on those that
# KVER in the environment names; print it, and write it to docs/BENCHMARKS.md, with a chart, docs/BENCHMARKS.svg.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/series.sh"
cd "$top"

introduction() {
	cat <<-'END'
		# What it costs

		`make bench` writes this page. The figures are instructions of an emulated processor, counted by QEMU
		(`-icount shift=0,sleep=off`), because times on shared machines do not repeat. The figure of an I/O is the
		least of 50,000, or of 390 of 1 MiB, to null_blk devices. It repeats exactly, and leaves out what happens in
		between, such as the ticks of the clock. All figures of a table are from one boot of the stock kernel.

		The module counts each I/O, for the status line and for the chunk, and can replace a page table while I/O
		reads it. The kernel's own target does neither. The module cuts an I/O where the owner changes, the kernel's
		own target at the end of each page.

		dm-linear, which only adds an offset, is the lower limit. The chart shows what the two targets add to it, for
		the last series below.

		![Instructions of an I/O, in addition to those of dm-linear](BENCHMARKS.svg)
	END
}

# bars FILE SIZE: of a chapter's first table, the rows of I/Os of 4 KiB, or of 1 MiB, for the chart: what it is, and how
# many instructions the two targets add to those of dm-linear.
bars() {
	awk -F ' *[|] *' -v size="$2" '/^###/ { tables++ }
		tables == 1 && $4 ~ /^[+-][0-9]/ && ($2 ~ /^1 MiB, /) == (size == "1 MiB") {
			sub(/^1 MiB, /, "", $2)
			printf "\"%s\" %d %s\n", $2, $4, $5 == "" ? "?" : $5 + 0
		}' "$1"
}

# panel FILE TITLE BOTTOM TOP: gnuplot's commands for a panel with the bars in FILE, between these heights of the chart.
panel() {
	cat <<-END
		set title "$2"
		set bmargin at screen $3
		set tmargin at screen $4
		set yrange [$(wc -l <"$1") - 0.4:-0.6]
		plot "$1" using 2:0:(0):2:(\$0 - 0.38):(\$0):ytic(1) with boxxyerror lc rgb ours title "this module", \\
			"" using 3:0:(0):3:(\$0):(\$0 + 0.38) with boxxyerror lc rgb kernels title "the kernel's own target", \\
			NaN with lines lw 3 lc rgb linear title "dm-linear, the limit", \\
			"" using 2:(\$0 - 0.19):(sprintf("%+d", \$2)) with labels left offset 0.5,0 notitle, \\
			"" using 3:(\$0 + 0.19):(sprintf("%+d", \$3)) with labels left offset 0.5,0 notitle
		unset key
	END
}

# draw FILE: the chart of that chapter, as docs/BENCHMARKS.svg.
draw() {
	bars "$1" "4 KiB" >"$dir/small"
	bars "$1" "1 MiB" >"$dir/large"
	root=$drawing_root in_root gnuplot <<-END
		ours = "#1f5fbf"
		kernels = "#c0c0c0"
		linear = "#d03020"
		set terminal svg size 960,960 font "sans-serif,13" background "white"
		set output "docs/BENCHMARKS.svg"
		set datafile missing "?"
		set style fill solid
		set lmargin at screen 0.37
		set rmargin at screen 0.93
		set border 1
		set ytics nomirror scale 0
		set xtics nomirror
		set grid xtics
		set arrow from 0, graph 0 to 0, graph 1 nohead front lw 3 lc rgb linear
		set label "dm-linear at 0" at 0, graph 1 center offset 0,0.6 tc rgb linear
		set key at screen 0.5, screen 0.933 center center
		set multiplot title "Instructions of an I/O, in addition to those of dm-linear: Linux $(sed -n 's/^## Linux //p' "$1")"
		$(panel "$dir/small" "I/Os of 4 KiB" 0.4 0.855)
		# Logarithmic, but with a 0.
		set nonlinear x via asinh(x / 20.0) inverse 20 * sinh(x)
		set xtics (0, 100, "1000" 1000, "10,000" 10000, "100,000" 100000, "1,000,000" 1000000)
		set xrange [*:3000000]
		$(panel "$dir/large" "Reads of 1 MiB, on a logarithmic axis" 0.05 0.32)
	END
}

need_root
need_drawing_root
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
mv "$dir/page" docs/BENCHMARKS.md
cat docs/BENCHMARKS.md
