#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
#
# scripts/coverage.sh calls this, in the build root.
#
# fold.py DIR TOP [LIST]: fold what the module counted to the lines of its source.
#
# DIR has dm-switch.ko, built with COVERAGE, and files counters.*, each of a line of numbers, one for each counter, or
# empty.  TOP is the directory of the source.  Writes DIR/coverage.info, for genhtml, and prints how much of each file
# was reached.
#
# With LIST, prints what was not reached and is not on the list, and what is on the list and was reached, and fails if
# there is any.  A line of the list is "FUNCTION<TAB>LINE", for a line of the source, or "FUNCTION<TAB>LINE<TAB>PART",
# for a part of a line that is reached itself: an expression, or "CONDITION: true" or "CONDITION: false" for one that
# never is.  A part that ends in "?" is the return of an error.  Lines of the source are known by their text, so that
# they may move.  What a line with a ~ before it names is reached in some runs, and in others not.  Lines that begin with
# # are comments.

import glob
import json
import re
import struct
import subprocess
import sys


def sections(path):
    """Returns the address and the content of each section of an ELF file, by its name."""
    with open(path, "rb") as file:
        elf = file.read()
    (start,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<3H", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, start + size * number) for number in range(count)]
    strings = elf[headers[names][4]:]
    return {
        strings[name:strings.index(b"\0", name)].decode(): (address, elf[offset:offset + length])
        for name, _, _, address, offset, length in headers
    }


def write_profile(module, counters, path):
    """Writes a profile as LLVM's runtime does, which the module lacks: version 10 of the raw format."""
    found = sections(module)
    (data_address, data), (counters_address, own), (_, names) = (
        found["__llvm_prf_" + name] for name in ("data", "cnts", "names")
    )
    if len(own) != 8 * len(counters):
        sys.exit(f"fold.py: {len(counters)} counters of a module that has {len(own) // 8}")
    distance = (counters_address - data_address) % 2**64
    header = 0xFF6C70726F667281, 10, 0, len(data) // 64, 0, len(counters), 0, 0, 0, len(names), distance, 0, 0, 0, 0, 2
    with open(path, "wb") as file:
        file.write(struct.pack("<16Q", *header) + data)
        file.write(struct.pack(f"<{len(counters)}Q", *counters) + names + bytes(-len(names) % 8))


def run(*command):
    """Runs a program, and returns what it prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class Source:
    """A file of the source, and how often what is in it was reached."""

    def __init__(self, top, name):
        self.name = name
        with open(f"{top}/{name}", encoding="utf-8") as file:
            self.text = file.read().split("\n")
        # By the number of the line.  Those of its parts, by that, the column and the text, and how often a condition was
        # true and how often false.
        self.lines = {}
        self.expressions = {}
        self.conditions = {}

    def is_of(self, path):
        return path.endswith("/" + self.name)

    def add_line(self, number, count):
        """Adds a line, unless it is a comment or brackets."""
        text = self.text[number - 1].strip()
        if re.search(r"\w", text) and not text.startswith(("//", "/*", "* ")):
            self.lines[number] = count

    def excerpt(self, first, start, last, end):
        line = self.text[first - 1]
        text = line[start - 1:end - 1 if first == last else None].strip()
        # A line may have several of these.
        return re.search(r"\S*$", line[:end - 1])[0] if text == "?" else text

    def function(self, number):
        """Returns the name of the function that a line is in."""
        begin = r"\s*(?:[\w()]+ |\"C\" )*fn (\w+)" if self.name.endswith(".rs") else r"\w.*?(\w+)\("
        matches = (re.match(begin, text) for text in reversed(self.text[:number]))
        return next((match[1] for match in matches if match), "-")

    def add_parts(self, files, regions, branches):
        """Adds the parts of a function, or of one instance of a generic function."""
        for *place, count, file, _, kind in regions:
            first, start, last, _ = place
            # Other kinds than 0 are no code.  The line's count tells of what begins it, and the next line's of what goes
            # on there.
            if self.is_of(files[file]) and kind == 0 and first == last and self.text[first - 1][:start - 1].strip():
                key = first, start, self.excerpt(*place)
                self.expressions[key] = self.expressions.get(key, 0) + count
        for *place, true, false, file, _, _ in branches:
            if self.is_of(files[file]):
                key = *place[:2], self.excerpt(*place)
                sums = self.conditions.get(key, (0, 0))
                self.conditions[key] = sums[0] + true, sums[1] + false

    def parts(self):
        """Returns the line and the text of each part of a line that was reached, and how often the part was."""
        parts = [(*key, count) for key, count in self.expressions.items()]
        for (line, start, text), outcomes in self.conditions.items():
            # That it was never evaluated is told by the line or another part.
            if any(outcomes):
                parts += [(line, start, f"{text}: {name}", n) for name, n in zip(("true", "false"), outcomes)]
        return [(line, text, n) for line, _, text, n in sorted(parts) if self.lines.get(line)]

    def info(self):
        """Returns what genhtml reads."""
        yield f"SF:{self.name}"
        yield from (f"DA:{line},{count}" for line, count in sorted(self.lines.items()))
        for number, (line, text, count) in enumerate(self.parts()):
            yield f"BRDA:{line},{number},{text},{count}"
        yield "end_of_record"

    def unreached(self):
        """Returns what was not reached: the line and its entry of the list."""
        found = [(line, None) for line, count in self.lines.items() if not count]
        found += [(line, text) for line, text, count in self.parts() if not count]
        for line, part in sorted(found, key=lambda place: place[0]):
            entry = self.function(line), self.text[line - 1].strip()
            yield line, entry if part is None else (*entry, part)


def read_list(path):
    """Returns the entries of a list, and those with a ~."""
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    entries = [line for line in lines if line and not line.startswith("#")]
    always, sometimes = ([line for line in entries if line.startswith("~") == is_some] for is_some in (False, True))
    return {tuple(line.split("\t")) for line in always}, {tuple(line[1:].split("\t")) for line in sometimes}


def read_counters(directory):
    """Returns the sums of the counters over all guests."""
    guests = []
    for path in glob.glob(f"{directory}/counters.*"):
        with open(path, encoding="ascii") as file:
            guests += [[int(count) for count in line.split()] for line in file if line.strip()]
    return [sum(counts) for counts in zip(*guests, strict=True)]


def export(directory):
    """Returns what LLVM makes of the counters: by lines, and by functions."""
    linked, raw, profile = (f"{directory}/coverage.{part}" for part in ("linked", "profraw", "profdata"))
    # Only in a linked file the data of a function says where its counters are.
    run("ld", "-e", "0", "--unresolved-symbols=ignore-all", "-o", linked, f"{directory}/dm-switch.ko")
    write_profile(linked, read_counters(directory), raw)
    run("llvm-profdata-19", "merge", "-o", profile, raw)
    llvm_cov = "llvm-cov-19", "export", linked, "-instr-profile", profile, "-format"
    return run(*llvm_cov, "lcov"), json.loads(run(*llvm_cov, "text"))["data"][0]["functions"]


def fold(sources, lcov, functions):
    for line in lcov.split("\n"):
        if line.startswith("SF:"):
            source = next((source for source in sources if source.is_of(line)), None)
        elif source and line.startswith("DA:"):
            source.add_line(*map(int, line[3:].split(",")))
    for function in functions:
        for source in sources:
            source.add_parts(function["filenames"], function["regions"], function["branches"])


def compare(sources, path):
    """Prints how what was not reached differs from a list, and returns whether it does."""
    never, sometimes = read_list(path)
    unreached = [(source.name, *place) for source in sources for place in source.unreached()]
    unknown = [place for place in unreached if place[2] not in never | sometimes]
    reached = never - {entry for _, _, entry in unreached}
    for name, line, entry in unknown:
        print(f"{name}:{line}: not reached: " + "\t".join(entry))
    for entry in sorted(reached):
        print(f"{path}: reached, or not in the source: " + "\t".join(entry))
    return bool(unknown or reached)


def main(directory, top, path=None):
    sources = [Source(top, name) for name in ("dm-switch.rs", "helpers.c")]
    fold(sources, *export(directory))
    with open(f"{directory}/coverage.info", "w", encoding="utf-8") as file:
        for source in sources:
            file.write("\n".join(source.info()) + "\n")
    differs = path is not None and compare(sources, path)
    for source in sources:
        lines, parts = list(source.lines.values()), [count for _, _, count in source.parts()]
        print(f"{source.name}: {len(lines) - lines.count(0)} of {len(lines)} lines are reached, and of their",
              f"{len(parts)} parts {len(parts) - parts.count(0)}")
    sys.exit(differs)


main(*sys.argv[1:])
