// SPDX-License-Identifier: GPL-2.0-only

//! `fold DIR TOP [LIST]`: folds what the module counted to the lines of its source.
//! `scripts/coverage.sh` calls this, in the build root.
//!
//! `DIR` has `dm-switch.ko`, built with `COVERAGE`, and files `counters.*`, each of lines of numbers,
//! one number for each counter, or empty. `TOP` is the directory of the source. Writes
//! `DIR/coverage.info`, for genhtml, and prints how much of each file was reached.
//!
//! With `LIST`, prints what was not reached and is not on the list, and what is on the list and was
//! reached, and fails if there is any. A line of the list is `FUNCTION<TAB>LINE`, for a line of the
//! source, or `FUNCTION<TAB>LINE<TAB>PART`, for a part of a line that is reached itself: an
//! expression, or `CONDITION: true` or `CONDITION: false` for an outcome that never occurs. A part
//! that ends in `?` is the return of an error. Lines of the source are known by their text, so that
//! they may move. What a line with a `~` before it names is reached in some runs, and in others not.
//! Lines that begin with `#` are comments.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Display;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use object::{Object, ObjectSection};
use serde_json::Value;

/// A region of the source: its first line and column, its last line, and the column after it. Lines
/// and columns (bytes) count from 1.
type Place = (usize, usize, usize, usize);

/// A region as LLVM exports it: its place, count, file, the file that it expands to, and its kind.
type Region = (usize, usize, usize, usize, u64, usize, usize, u64);

/// A condition as LLVM exports it: likewise, with two counts, of true and of false.
type Branch = (usize, usize, usize, usize, u64, u64, usize, usize, u64);

/// A part of a line: the line, the column and the text.
type Part = (usize, usize, String);

/// A file of the source, and how often what is in it was reached.
struct Source {
    name: &'static str,
    text: Vec<String>,
    /// Counts by the number of the line.
    lines: BTreeMap<usize, u64>,
    /// Sums of counts, also for lines that were not reached. LLVM exports a count below zero, which
    /// lost increments cause, as the largest `i64`, and several of these do not fit into a `u64`.
    parts: BTreeMap<Part, u128>,
}

impl Source {
    fn read(top: &str, name: &'static str) -> Result<Self, String> {
        let path = format!("{top}/{name}");
        let text = named(&path, fs::read_to_string(&path))?;
        Ok(Source {
            name,
            text: text.lines().map(str::to_owned).collect(),
            lines: BTreeMap::new(),
            parts: BTreeMap::new(),
        })
    }

    fn is_of(&self, path: &str) -> bool {
        path.ends_with(&format!("/{}", self.name))
    }

    /// Adds a line, unless it is a comment or brackets.
    fn add_line(&mut self, number: usize, count: u64) {
        let text = self.text[number - 1].trim();
        let is_comment = ["//", "/*", "* "].iter().any(|mark| text.starts_with(mark));
        if text.contains(is_word) && !is_comment {
            self.lines.insert(number, count);
        }
    }

    /// Returns the text of a place, without what is on other lines.
    fn excerpt(&self, (first, start, last, end): Place) -> &str {
        let line = &self.text[first - 1];
        let end = if first == last { end - 1 } else { line.len() };
        match line[start - 1..end].trim() {
            // A line may have several of these.
            "?" => line[..end].split_whitespace().last().unwrap_or("?"),
            text => text,
        }
    }

    fn add_part(&mut self, line: usize, start: usize, text: String, count: u64) {
        *self.parts.entry((line, start, text)).or_default() += u128::from(count);
    }

    /// Adds the parts of a function, or of one instance of a generic function.
    fn add_parts(&mut self, files: &[String], regions: &[Region], branches: &[Branch]) {
        for &(line, start, last, end, count, file, _, kind) in regions {
            // Other kinds than 0 are no code.
            if kind != 0 || line != last || !self.is_of(&files[file]) {
                continue;
            }
            // The line has the count of what begins it, and the next line of what goes on there.
            if !self.text[line - 1][..start - 1].trim().is_empty() {
                let text = self.excerpt((line, start, last, end)).to_owned();
                self.add_part(line, start, text, count);
            }
        }
        for &(line, start, last, end, yes, no, file, _, _) in branches {
            // The line or another part shows that a condition was never evaluated.
            if (yes, no) != (0, 0) && self.is_of(&files[file]) {
                for (outcome, count) in [("true", yes), ("false", no)] {
                    let text = self.excerpt((line, start, last, end));
                    self.add_part(line, start, format!("{text}: {outcome}"), count);
                }
            }
        }
    }

    /// Returns the parts of lines that were reached, and how often each was.
    fn parts(&self) -> impl Iterator<Item = (&Part, &u128)> {
        let parts = self.parts.iter();
        parts.filter(|((line, ..), _)| self.lines.get(line) > Some(&0))
    }

    /// Returns what genhtml reads.
    fn info(&self) -> String {
        let mut info = format!("SF:{}\n", self.name);
        for (line, count) in &self.lines {
            info += &format!("DA:{line},{count}\n");
        }
        for (number, ((line, _, text), count)) in self.parts().enumerate() {
            info += &format!("BRDA:{line},{number},{text},{count}\n");
        }
        info + "end_of_record\n"
    }

    /// Returns the entry of the list for a line.
    fn entry(&self, line: usize) -> String {
        let name = match self.name.ends_with(".rs") {
            true => rust_function,
            false => c_function,
        };
        let function = self.text[..line].iter().rev().find_map(|text| name(text));
        let function = function.unwrap_or("-");
        format!("{function}\t{}", self.text[line - 1].trim())
    }

    /// Returns what was not reached: the line and its entry of the list.
    fn unreached(&self) -> Vec<(usize, String)> {
        let lines = self.lines.iter().filter(|(_, count)| **count == 0);
        let mut found: Vec<_> = lines.map(|(line, _)| (*line, self.entry(*line))).collect();
        for ((line, _, text), _) in self.parts().filter(|(_, count)| **count == 0) {
            found.push((*line, format!("{}\t{text}", self.entry(*line))));
        }
        found.sort_by_key(|(line, _)| *line);
        found
    }

    fn summary(&self) -> String {
        let (lines, parts) = (self.lines.len(), self.parts().count());
        let reached_lines = self.lines.values().filter(|count| **count > 0).count();
        let reached_parts = self.parts().filter(|(_, count)| **count > 0).count();
        format!(
            "{}: {reached_lines} of {lines} lines are reached, and of their {parts} parts {reached_parts}",
            self.name
        )
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the name of the Rust function that begins on a line.
fn rust_function(line: &str) -> Option<&str> {
    let is_visibility = |word: &str| word.chars().all(|c| is_word(c) || "()".contains(c));
    let mut words = line
        .split(' ')
        .skip_while(|word| *word != "fn" && (*word == "\"C\"" || is_visibility(word)));
    words.next().filter(|word| *word == "fn")?;
    words.next()?.split(|c| !is_word(c)).next()
}

/// Returns the name of the C function that begins on a line.
fn c_function(line: &str) -> Option<&str> {
    line.chars().next().filter(|first| is_word(*first))?;
    let mut before = line.match_indices('(').map(|(end, _)| &line[..end]);
    let before = before.find(|before| before.ends_with(is_word))?;
    before.rsplit(|c| !is_word(c)).next()
}

/// Puts the name of a thing before an error about it.
fn named<T>(name: &str, result: Result<T, impl Display>) -> Result<T, String> {
    result.map_err(|error| format!("{name}: {error}"))
}

/// Runs a command in a directory, and returns what it prints.
fn run(directory: &str, command: &str) -> Result<String, String> {
    let mut words = command.split(' ');
    let mut program = Command::new(words.next().unwrap_or_default());
    program.args(words).current_dir(directory);
    let output = named(command, program.stderr(Stdio::inherit()).output())?;
    if !output.status.success() {
        return Err(format!("{command}: {}", output.status));
    }
    named(command, String::from_utf8(output.stdout))
}

/// Returns the sums of the counters over all guests.
fn read_counters(directory: &str) -> Result<Vec<u64>, String> {
    let mut sums = Vec::new();
    for entry in named(directory, fs::read_dir(directory))? {
        let entry = named(directory, entry)?;
        let path = entry.path().display().to_string();
        if !entry.file_name().to_string_lossy().starts_with("counters.") {
            continue;
        }
        let text = named(&path, fs::read_to_string(&path))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let counts: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
            let counts = named(&path, counts)?;
            if sums.is_empty() {
                sums.resize(counts.len(), 0);
            }
            let (count, others) = (counts.len(), sums.len());
            if count != others {
                return Err(format!(
                    "{path}: {count} counters, but others have {others}"
                ));
            }
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }
    Ok(sums)
}

/// Returns the address and the content of a section of an ELF file.
fn section<'a>(elf: &object::File<'a>, name: &str) -> Result<(u64, &'a [u8]), String> {
    let section = named(name, elf.section_by_name(name).ok_or("no such section"))?;
    Ok((section.address(), named(name, section.data())?))
}

fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Returns a profile as LLVM's runtime writes it, which the module lacks: version 10 of the raw
/// format.
fn profile(linked: &str, counters: &[u64]) -> Result<Vec<u8>, String> {
    let file = named(linked, fs::read(linked))?;
    let elf = named(linked, object::File::parse(&*file))?;
    let (data_address, data) = section(&elf, "__llvm_prf_data")?;
    let (counters_address, own) = section(&elf, "__llvm_prf_cnts")?;
    let (_, names) = section(&elf, "__llvm_prf_names")?;
    let (count, own_count) = (counters.len(), own.len() / 8);
    if count != own_count {
        return Err(format!("{count} counters of a module that has {own_count}"));
    }
    let magic = 0xff6c_7072_6f66_7281;
    let distance = counters_address.wrapping_sub(data_address);
    let [functions, count, size] = [data.len() / 64, count, names.len()].map(|size| size as u64);
    let header = [
        magic, 10, 0, functions, 0, count, 0, 0, 0, size, distance, 0, 0, 0, 0, 2,
    ];
    let padding = vec![0; names.len().next_multiple_of(8) - names.len()];
    let (header, counters) = (to_bytes(&header), to_bytes(counters));
    Ok([&header, data, &counters, names, &padding].concat())
}

/// Returns what LLVM makes of the counters: by lines, and by functions.
fn export(directory: &str) -> Result<(String, Value), String> {
    // Only in a linked file the data of a function says where its counters are.
    let link = "ld -e 0 --unresolved-symbols=ignore-all -o coverage.linked dm-switch.ko";
    run(directory, link)?;
    let counters = read_counters(directory)?;
    let raw = format!("{directory}/coverage.profraw");
    let profile = profile(&format!("{directory}/coverage.linked"), &counters)?;
    named(&raw, fs::write(&raw, profile))?;
    let merge = "llvm-profdata-19 merge -o coverage.profdata coverage.profraw";
    run(directory, merge)?;
    let export = "llvm-cov-19 export coverage.linked -instr-profile coverage.profdata -format";
    let lcov = run(directory, &format!("{export} lcov"))?;
    let json = run(directory, &format!("{export} text"))?;
    let mut json: Value = named(export, serde_json::from_str(&json))?;
    Ok((lcov, json["data"][0]["functions"].take()))
}

/// Adds the lines of LLVM's lcov format to their sources.
fn add_lines(sources: &mut [Source], lcov: &str) -> Result<(), String> {
    let mut source = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            source = sources.iter_mut().find(|source| source.is_of(path));
        } else if let (Some(source), Some(text)) = (&mut source, line.strip_prefix("DA:")) {
            let (number, count) = text.split_once(',').ok_or(format!("{line}: no count"))?;
            source.add_line(named(line, number.parse())?, named(line, count.parse())?);
        }
    }
    Ok(())
}

/// Adds the parts of the functions that LLVM exports as JSON to their sources.
fn add_functions(sources: &mut [Source], functions: Value) -> serde_json::Result<()> {
    let functions: Vec<Value> = serde_json::from_value(functions)?;
    for mut function in functions {
        let files: Vec<String> = serde_json::from_value(function["filenames"].take())?;
        let regions: Vec<Region> = serde_json::from_value(function["regions"].take())?;
        let branches: Vec<Branch> = serde_json::from_value(function["branches"].take())?;
        for source in &mut *sources {
            source.add_parts(&files, &regions, &branches);
        }
    }
    Ok(())
}

/// Prints how what was not reached differs from a list, and returns whether it does.
fn compare(sources: &[Source], path: &str) -> Result<bool, String> {
    let text = named(path, fs::read_to_string(path))?;
    let mut list: BTreeSet<&str> = text.lines().collect();
    list.retain(|line| !line.is_empty() && !line.starts_with('#'));
    let mut unreached = BTreeSet::new();
    let mut differs = false;
    for source in sources {
        for (line, entry) in source.unreached() {
            if !list.contains(&*entry) && !list.contains(&*format!("~{entry}")) {
                println!("{}:{line}: not reached: {entry}", source.name);
                differs = true;
            }
            unreached.insert(entry);
        }
    }
    for entry in list {
        if !entry.starts_with('~') && !unreached.contains(entry) {
            println!("{path}: reached, or not in the source: {entry}");
            differs = true;
        }
    }
    Ok(differs)
}

/// Does what the command line asks for, and returns whether what was not reached differs from LIST.
fn fold(arguments: &[String]) -> Result<bool, String> {
    let (directory, top, list) = match arguments {
        [directory, top] => (directory, top, None),
        [directory, top, list] => (directory, top, Some(list)),
        _ => return Err("usage: fold DIR TOP [LIST]".to_owned()),
    };
    let mut sources = [
        Source::read(top, "dm-switch.rs")?,
        Source::read(top, "helpers.c")?,
    ];
    let (lcov, functions) = export(directory)?;
    add_lines(&mut sources, &lcov)?;
    named("llvm-cov-19", add_functions(&mut sources, functions))?;
    let path = format!("{directory}/coverage.info");
    let info: String = sources.iter().map(Source::info).collect();
    named(&path, fs::write(&path, info))?;
    let differs = list.map_or(Ok(false), |list| compare(&sources, list))?;
    for source in &sources {
        println!("{}", source.summary());
    }
    Ok(differs)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match fold(&arguments) {
        Ok(differs) => u8::from(differs).into(),
        Err(error) => {
            eprintln!("fold: {error}");
            ExitCode::FAILURE
        }
    }
}
