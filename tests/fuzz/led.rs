// SPDX-License-Identifier: GPL-2.0-only

//! Which script comes next: one that is given, one of random numbers, or one that is led by what
//! earlier ones reached of the module.
//!
//! The path of a step is the set of the module's counters that rise in it. A path is new if it has a
//! part of the module that no step reached before, or known parts in a new combination. A step that
//! took a new path often takes another one in another state. So a led script contains steps that
//! took new paths earlier, and prefers those that took many in little time. Between them are the
//! steps of a new seed, which make tables and add variety.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::random::Random;
use super::script::{Place, Script};
use super::step::Step;

/// A led script has this number of rounds. Each round is `NEW` steps of a new seed and then `FOUND`
/// steps that took new paths earlier. The text of a script must fit into the kernel's command line.
const ROUNDS: usize = 6;
const NEW: usize = 50;
const FOUND: usize = 20;

/// The seeds of led scripts are below this, so that their texts are short.
const SEEDS: u64 = 1 << 16;

/// The number of random candidates for each of the `FOUND` steps. The best of them is used.
const CANDIDATES: usize = 4;

/// Seconds that each use of a step adds to its time, because the model does not allow many of them,
/// and these take none.
const USE: f64 = 0.0001;

/// Random scripts before all others, in which it is seen which counters rise between steps.
const CALIBRATIONS: usize = 3;

/// What was reached of the module.
struct Reached {
    counters: Counters,
    /// Scripts that are still to be run without a look at paths.
    calibrations: usize,
    /// Whether a counter rises between steps, too: page tables are freed after a grace period. Such
    /// a counter is of no path.
    stray: Vec<bool>,
    /// By all scripts.
    edges: BTreeSet<usize>,
    paths: HashSet<u64>,
    /// Whether the script that runs reached a counter.
    now: Vec<bool>,
}

impl Reached {
    fn new(counters: Counters) -> Self {
        Reached {
            stray: vec![false; counters.count()],
            now: vec![false; counters.count()],
            counters,
            calibrations: CALIBRATIONS,
            edges: BTreeSet::new(),
            paths: HashSet::new(),
        }
    }

    /// Returns whether the step that was just done took a new path.
    fn step(&mut self) -> bool {
        let mut path = self.counters.rose();
        if self.calibrations > 0 {
            sleep(Duration::from_millis(1));
            for number in self.counters.rose() {
                self.stray[number] = true;
            }
            return false;
        }
        path.retain(|number| !self.stray[*number]);
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        for number in path {
            self.now[number] = true;
        }
        self.paths.insert(hasher.finish())
    }

    /// Returns the counters that the script which runs, or ran last, reached.
    fn edges_now(&self) -> BTreeSet<usize> {
        let numbers = (0..self.now.len()).filter(|number| self.now[*number]);
        numbers.collect()
    }
}

/// A step that took a new path.
struct Find {
    place: Place,
    step: Step,
    /// New paths that it took in all scripts.
    paths: f64,
    /// Seconds that it ran in these.
    seconds: f64,
}

impl Find {
    fn rate(&self) -> f64 {
        self.paths / self.seconds
    }
}

/// A script that reached a counter for the first time, and all counters that it reached.
pub struct Kept {
    pub script: Script,
    pub edges: BTreeSet<usize>,
}

pub struct Queue {
    given: VecDeque<Script>,
    is_led: bool,
    /// The seed of the next new script.
    seed: u64,
    random: Random,
    reached: Option<Reached>,
    finds: Vec<Find>,
    /// Where in `finds` the step of a place is.
    found: HashMap<Place, usize>,
    pub kept: Vec<Kept>,
    /// When the last step ended.
    mark: Instant,
}

impl Queue {
    /// Begins with the scripts that are given; the others are made from a seed.
    pub fn new(given: Vec<Script>, seed: u64, is_led: bool, counters: Option<Counters>) -> Self {
        Queue {
            given: given.into(),
            is_led,
            seed,
            random: Random::new(seed),
            reached: counters.map(Reached::new),
            finds: Vec::new(),
            found: HashMap::new(),
            kept: Vec::new(),
            mark: Instant::now(),
        }
    }

    /// Returns the next script.
    pub fn next(&mut self) -> Script {
        let reached = self.reached.as_ref();
        if self.is_led && reached.is_some_and(|reached| reached.calibrations > 0) {
            return self.new_script();
        }
        if let Some(script) = self.given.pop_front() {
            return script;
        }
        if self.is_led && !self.finds.is_empty() {
            return self.led_script();
        }
        self.new_script()
    }

    /// Returns the script of the next seed.
    fn new_script(&mut self) -> Script {
        let script = Script::of_seed(self.seed);
        self.seed = match self.is_led {
            true => self.random.below(SEEDS),
            false => Random::new(self.seed).next(),
        };
        script
    }

    fn led_script(&mut self) -> Script {
        let new = self.new_script();
        let mut new = new.places.into_iter().zip(new.steps);
        let mut script = Script::default();
        for _ in 0..ROUNDS {
            for (place, step) in new.by_ref().take(NEW) {
                script.push(place, step);
            }
            for _ in 0..FOUND {
                let find = self.find();
                script.push(find.place, find.step.clone());
            }
        }
        script
    }

    /// Chooses a step that took new paths.
    fn find(&mut self) -> &Find {
        let count = self.finds.len() as u64;
        let candidates: Vec<usize> = (0..CANDIDATES)
            .map(|_| self.random.below(count) as usize)
            .collect();
        let rate = |number: &usize| self.finds[*number].rate();
        let best = candidates
            .into_iter()
            .max_by(|a, b| rate(a).total_cmp(&rate(b)))
            .expect("there are candidates");
        let find = &mut self.finds[best];
        find.seconds += USE;
        find
    }

    /// Prepares for a script that begins.
    pub fn begin(&mut self) {
        if let Some(reached) = &mut self.reached {
            reached.counters.rose();
            reached.now.fill(false);
        }
        self.mark = Instant::now();
    }

    /// Looks at what a step of a script, which was just done, reached.
    pub fn watch(&mut self, script: &Script, at: usize) {
        let Some(reached) = &mut self.reached else {
            return;
        };
        let seconds = self.mark.elapsed().as_secs_f64();
        let is_new = reached.step();
        let place = script.places[at];
        match self.found.get(&place) {
            Some(number) => {
                let find = &mut self.finds[*number];
                find.paths += f64::from(u8::from(is_new));
                find.seconds += seconds;
            }
            None if is_new => {
                self.found.insert(place, self.finds.len());
                self.finds.push(Find {
                    place,
                    step: script.steps[at].clone(),
                    paths: 1.0,
                    seconds,
                });
            }
            None => {}
        }
        self.mark = Instant::now();
    }

    /// Keeps a script that was run, if it reached a counter for the first time.
    pub fn learn(&mut self, script: Script) {
        let Some(reached) = &mut self.reached else {
            return;
        };
        let edges = reached.edges_now();
        if reached.calibrations > 0 {
            reached.calibrations -= 1;
        } else if !edges.is_subset(&reached.edges) {
            reached.edges.extend(&edges);
            self.kept.push(Kept { script, edges });
        }
    }

    /// Returns the counters that the last script reached.
    pub fn edges(&self) -> BTreeSet<usize> {
        self.reached
            .as_ref()
            .map(Reached::edges_now)
            .unwrap_or_default()
    }

    /// Prints what was reached.
    pub fn summarize(&self) {
        if let Some(reached) = &self.reached {
            println!(
                "{} of {} counters of the module and {} paths were reached",
                reached.counters.reached(),
                reached.counters.count(),
                reached.paths.len()
            );
        }
    }
}
