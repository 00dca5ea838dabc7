// SPDX-License-Identifier: GPL-2.0-only

//! Scripts and their text: a script is a list of steps of the random scripts that seeds make.

use std::fmt::{self, Display};

use super::generate;
use super::step::Step;

/// A step of the script that a seed makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    seed: u64,
    /// The step's number in that script.
    at: usize,
}

/// What is run at once, from a state without devices on: steps, and where they are from.
#[derive(Clone, Default)]
pub struct Script {
    pub places: Vec<Place>,
    pub steps: Vec<Step>,
}

impl Script {
    /// Returns the whole script of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let steps = generate::script(seed);
        let places = (0..steps.len()).map(|at| Place { seed, at }).collect();
        Script { places, steps }
    }

    /// Understands the text of a script.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut script = Script::default();
        for slice in text.split(',') {
            script.add_slice(slice).ok_or_else(|| {
                format!("{slice} is neither SEED:STEP nor SEED:FROM-TO, of steps that there are")
            })?;
        }
        Ok(script)
    }

    fn add_slice(&mut self, text: &str) -> Option<()> {
        let (seed, range) = text.split_once(':')?;
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
            None => {
                let at: usize = range.parse().ok()?;
                (at, at.checked_add(1)?)
            }
        };
        let whole = Script::of_seed(seed.parse().ok()?);
        self.places.extend(whole.places.get(from..to)?);
        self.steps.extend_from_slice(&whole.steps[from..to]);
        Some(())
    }

    pub fn push(&mut self, place: Place, step: Step) {
        self.places.push(place);
        self.steps.push(step);
    }
}

impl FromIterator<(Place, Step)> for Script {
    fn from_iter<T: IntoIterator<Item = (Place, Step)>>(steps: T) -> Self {
        let (places, steps) = steps.into_iter().unzip();
        Script { places, steps }
    }
}

/// Slices with commas between them: `SEED:STEP`, or `SEED:FROM-TO` for the steps from `FROM` up to
/// and without `TO`.
impl Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let are_neighbours = |a: &Place, b: &Place| (a.seed, a.at + 1) == (b.seed, b.at);
        for slice in self.places.chunk_by(are_neighbours) {
            let Place { seed, at } = slice[0];
            write!(f, "{comma}{seed}:{at}")?;
            if slice.len() > 1 {
                write!(f, "-{}", at + slice.len())?;
            }
            comma = ",";
        }
        Ok(())
    }
}
