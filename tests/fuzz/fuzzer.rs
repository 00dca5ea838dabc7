// SPDX-License-Identifier: GPL-2.0-only

//! Runs scripts against the model, and cuts down those that fail.

use std::fmt::Display;
use std::mem::discriminant;
use std::time::{Duration, Instant};

use super::model::Model;
use super::step::{Answer, Outcome, Step};
use super::system::{drain_output, System};

/// Messages in which everything that the model knows of is sure to have happened.
const MANY_MESSAGES: u64 = 200_000;

/// How long a script may be cut down.
const SHRINKING: Duration = Duration::from_secs(120);

/// What was done.
#[derive(Default)]
pub struct Counts {
    pub scripts: u64,
    /// Over netlink.
    uploads: u64,
    /// With `dmsetup message`.
    messages: u64,
    reads: u64,
    sectors: u64,
    /// Those that say whose they are.
    named: u64,
    /// Mapped devices made.
    devices: u64,
    tables: u64,
    others: u64,
}

impl Counts {
    fn add(&mut self, step: &Step) {
        match step {
            Step::Send { requests } => self.uploads += requests.len() as u64,
            Step::Message { .. } => self.messages += 1,
            Step::Read { .. } => self.reads += 1,
            Step::Create { .. } => self.devices += 1,
            Step::Load { .. } => self.tables += 1,
            _ => self.others += 1,
        }
    }

    fn add_sectors(&mut self, outcome: &Outcome) {
        if let Ok(Answer::Sectors(names)) = &outcome.result {
            self.sectors += names.len() as u64;
            self.named += names.iter().filter(|name| !name.is_empty()).count() as u64;
        }
    }
}

/// Where a script ended before its end.
pub struct Failure {
    /// The step, by its number in the script.
    at: usize,
    reason: Reason,
}

/// Why a script ended before its end.
pub enum Reason {
    Disagreement {
        wanted: Outcome,
        got: Outcome,
    },
    /// A line of the kernel's log.
    Complaint(String),
}

/// A script that ends before its end.
struct Case {
    steps: Vec<Step>,
    failure: Failure,
}

/// Leaves out halves of a list, quarters, and at last single elements, as long as it is not late.
/// `take` returns what is to be kept of a shorter list, or nothing if that is not to be taken.
pub fn leave_out<T: Clone>(
    mut list: Vec<T>,
    is_late: impl Fn() -> bool,
    mut take: impl FnMut(Vec<T>) -> Option<Vec<T>>,
) -> Vec<T> {
    let mut length = list.len() / 2;
    while length > 0 && !is_late() {
        let (before, mut at) = (list.len(), 0);
        while at < list.len() && !is_late() {
            let mut candidate = list.clone();
            candidate.drain(at..(at + length).min(candidate.len()));
            match take(candidate) {
                Some(rest) => list = rest,
                None => at += length,
            }
        }
        if length > 1 {
            length = length.div_ceil(2);
        } else if list.len() == before {
            break;
        }
    }
    list
}

pub struct Fuzzer {
    system: System,
    model: Model,
    pub counts: Counts,
    /// Whether each step is printed before it is done.
    trace: bool,
}

impl Fuzzer {
    pub fn new(system: System, trace: bool) -> Self {
        Fuzzer {
            model: Model::new(system.facts),
            system,
            counts: Counts::default(),
            trace,
        }
    }

    /// Does a script, from a state without devices on, and removes its devices.
    pub fn run(&mut self, script: &[Step]) -> Result<(), Failure> {
        self.run_watched(script, |_| ())
    }

    /// The same; `watch` is called after each step that was done, with its number in the script.
    pub fn run_watched(
        &mut self,
        script: &[Step],
        mut watch: impl FnMut(usize),
    ) -> Result<(), Failure> {
        // A script that failed has left devices, and a complaint that was reported.
        self.system.clear();
        self.system.complaint = None;
        self.model.clear();
        for (at, step) in script.iter().enumerate() {
            if !self.model.allows(step) || !self.system.can(step) {
                continue;
            }
            if self.trace {
                println!("{at}: {step}");
                drain_output();
            }
            self.counts.add(step);
            let wanted = self.model.run(step);
            let got = self.system.run(step);
            watch(at);
            self.counts.add_sectors(&got);
            self.no_complaint(at)?;
            if wanted != got {
                let reason = Reason::Disagreement { wanted, got };
                return Err(Failure { at, reason });
            }
        }
        self.system.clear();
        self.no_complaint(script.len().saturating_sub(1))
    }

    /// Fails if the kernel complained up to a step.
    fn no_complaint(&mut self, at: usize) -> Result<(), Failure> {
        self.system.complaint.take().map_or(Ok(()), |line| {
            let reason = Reason::Complaint(line);
            Err(Failure { at, reason })
        })
    }

    /// Takes a candidate in the place of a script, less what is behind its failure, if it fails for a reason of
    /// the same kind.
    fn take(&mut self, mut candidate: Vec<Step>, case: &mut Case) -> bool {
        let Err(failure) = self.run(&candidate) else {
            return false;
        };
        if discriminant(&failure.reason) != discriminant(&case.failure.reason) {
            return false;
        }
        candidate.truncate(failure.at + 1);
        *case = Case {
            steps: candidate,
            failure,
        };
        true
    }

    /// Cuts a script down that fails: leaves out halves, quarters, and at last single steps and parts of them,
    /// as long as it does.
    fn cut_down(&mut self, case: &mut Case) {
        let start = Instant::now();
        let is_late = || start.elapsed() > SHRINKING;
        leave_out(case.steps.clone(), is_late, |candidate| {
            self.take(candidate, case).then(|| case.steps.clone())
        });
        let mut at = 0;
        while at < case.steps.len() && !is_late() {
            let parts = case.steps[at].parts();
            let is_less = parts.into_iter().any(|part| {
                let mut candidate = case.steps.clone();
                candidate[at] = part;
                self.take(candidate, case)
            });
            if !is_less {
                at += 1;
            }
        }
    }

    /// Prints a failure, and the steps that it takes.
    pub fn report(&mut self, script: impl Display, steps: Vec<Step>, failure: Failure) {
        println!("FAILED: the script {script}");
        let (length, at) = (steps.len(), failure.at);
        let mut case = Case { steps, failure };
        self.trace = false;
        let mut first = 0;
        // Of some faults the kernel only complains once.
        if self.take(case.steps.clone(), &mut case) {
            self.cut_down(&mut case);
            let left = case.steps.len();
            println!("{left} of the {length} steps, of which step {at} failed, are enough:");
        } else {
            println!("It did not fail again; step {at} of {length} did, the last of these:");
            case.steps.truncate(at + 1);
            first = at.saturating_sub(9);
        }
        for (number, step) in case.steps.iter().enumerate().skip(first) {
            println!("  {number}: {step}");
        }
        match case.failure.reason {
            Reason::Complaint(line) => println!("in the log of the last:  {line}"),
            Reason::Disagreement { wanted, got } => {
                println!("wanted of the last: {:?}", wanted.result);
                println!("got:                {:?}", got.result);
                if wanted.log != got.log {
                    println!("wanted in the log:  {:#?}", wanted.log);
                    println!("got:                {:#?}", got.log);
                }
            }
        }
        println!("This runs the script again: {}{script}", System::AGAIN);
    }

    /// Prints what was done. Returns whether all happened that should in a run so long.
    pub fn summarize(&self) -> bool {
        let counts = &self.counts;
        for (branch, count) in &self.model.coverage.0 {
            println!("{count:>9} {branch}");
        }
        println!(
            "{} scripts: {} netlink messages, {} dmsetup messages, {} reads of {} sectors, {} of them with a name, \
             {} devices, {} tables, {} other steps",
            counts.scripts,
            counts.uploads,
            counts.messages,
            counts.reads,
            counts.sectors,
            counts.named,
            counts.devices,
            counts.tables,
            counts.others
        );
        let mut never = self
            .model
            .coverage
            .0
            .iter()
            .filter(|(_, count)| **count == 0)
            .peekable();
        let is_long = counts.uploads + counts.messages >= MANY_MESSAGES;
        let is_good = never.peek().is_none() || !is_long;
        for (branch, _) in never {
            println!("never: {branch}");
        }
        is_good
    }
}
