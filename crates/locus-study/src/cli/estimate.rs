//! What a run will take on this machine: time from a few timed samples of its work, and memory.

use std::time::{Duration, Instant};

use anyhow::Result;
use locus_gpt2::Scalar;

use super::output::byte_size;
use super::study_options::StudyInputs;
use crate::protocol::progress::time;
use crate::protocol::{Cost, Estimate, Pace, PlannedUnit, Sizes, Store, plan};

/// Units of a run with what each of them takes.
pub struct Estimated {
    pub units: Vec<PlannedUnit>,
    pub sizes: Sizes,
    /// Seconds of each unit.
    pub costs: Vec<Cost>,
    /// Bytes that each unit needs at its peak.
    pub memory: Vec<u64>,
    /// Seconds that reading the model and the data has taken.
    pub reading: f64,
    /// Time that the samples have taken.
    pub measuring: Duration,
}

impl Estimated {
    /// Times samples of the work of a run.
    pub fn new<F: Scalar>(inputs: &StudyInputs<F>) -> Result<Self> {
        let StudyInputs { checkpoint, data, settings, .. } = inputs;
        let units = plan(settings, checkpoint.model.config(), settings.requests(data).len());
        let begun = Instant::now();
        let sizes = Sizes::new(checkpoint, data, settings)?;
        let pace = Pace::measure(checkpoint, data, settings, &units);
        let costs = units.iter().map(|unit| sizes.cost(unit, settings, &pace)).collect();
        let memory = units.iter().map(|unit| sizes.memory(unit, settings)).collect();
        let (reading, measuring) = (inputs.reading.as_secs_f64(), begun.elapsed());
        Ok(Estimated { units, sizes, costs, memory, reading, measuring })
    }

    /// Seconds of a unit in a process of its own, which reads the model again and draws another of random weights.
    pub fn alone(&self, unit: usize) -> f64 {
        2.0 * self.reading + self.costs[unit].alone()
    }

    /// Bytes that the largest unit needs.
    pub fn most_memory(&self) -> u64 {
        self.memory.iter().copied().max().unwrap_or_default()
    }

    /// Numbers of the units that are still to be done.
    pub fn left(&self, store: &Store) -> Vec<usize> {
        (0..self.units.len()).filter(|&unit| !store.has_result(&self.units[unit].name)).collect()
    }

    /// The estimate of some units done in turn in one process.
    pub fn in_one_process(&self, units: &[usize]) -> Estimate {
        let costs: Vec<Cost> = units.iter().map(|&unit| self.costs[unit].clone()).collect();
        self.named(units, Cost::in_turn(&costs))
    }

    /// The estimate of some units, each in a process of its own.
    pub fn in_processes(&self, units: &[usize]) -> Estimate {
        self.named(units, units.iter().map(|&unit| self.alone(unit)).collect())
    }

    fn named(&self, units: &[usize], seconds: Vec<f64>) -> Estimate {
        Estimate::new(units.iter().map(|&unit| self.units[unit].name.clone()).zip(seconds))
    }

    /// The estimate in words.
    pub fn in_words(&self, left: usize, seconds: f64) -> String {
        let Estimated { units, measuring, .. } = self;
        let (n, memory) = (units.len(), byte_size(self.most_memory()));
        format!(
            "{left} of {n} units left, about {} and {memory} (estimated in {:.1} s)",
            time(Duration::from_secs_f64(seconds)),
            measuring.as_secs_f64()
        )
    }
}
