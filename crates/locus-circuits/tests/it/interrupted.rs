//! A training that is interrupted after any step and goes on from the state it has left ends as if nothing had happened.

use locus_circuits::masks::{
    BinaryConcrete, Circuit, MaskProgress, MaskTrainer, ScheduledTopK, TrainingMonitor, TrainingState,
    TrainingStateView,
};
use locus_gpt2::{Error, Result};

use crate::support::Case;

/// Keeps the state of every step and stops the training after some of them.
#[derive(Default)]
struct Interrupts {
    kept: Option<TrainingState<f64>>,
    stop_after: Vec<usize>,
    progress: Vec<MaskProgress>,
}

impl TrainingMonitor<f64> for Interrupts {
    fn progress(&mut self, at: MaskProgress) {
        self.progress.push(at);
    }

    fn resume(&mut self) -> Option<TrainingState<f64>> {
        self.kept.clone()
    }

    fn offer(&mut self, state: TrainingStateView<'_, f64>) -> Result<()> {
        let TrainingStateView { steps, arrays, circuits } = state;
        let arrays = arrays.into_iter().map(<[f64]>::to_vec).collect();
        self.kept = Some(TrainingState { steps, arrays, circuits: circuits.to_vec() });
        if self.stop_after.contains(&steps) {
            self.stop_after.retain(|&step| step != steps);
            return Err(Error::Input("interrupted".into()));
        }
        Ok(())
    }
}

#[test]
fn trainings_go_on_where_they_were_interrupted() {
    let case = Case::new(40, 5);
    let targets = [0.9, 0.6, 0.3];
    let scheduled =
        ScheduledTopK { steps_per_target: 5, hold: 2, batch_sequences: 32, ..ScheduledTopK::default() };
    let concrete = BinaryConcrete {
        temperature: 0.5,
        lr: 0.3,
        lambda_start: 0.5,
        batch_sequences: 32,
        max_epochs: 9,
        ..BinaryConcrete::default()
    };
    let trainers: [(&str, &dyn MaskTrainer<f64>); 2] =
        [("scheduled", &scheduled), ("binary concrete", &concrete)];
    for (name, trainer) in trainers {
        let objective = case.objective();
        let mut seen = Vec::new();
        let whole: Vec<Circuit> =
            trainer.train(&objective, &targets, 3, &mut |at: MaskProgress| seen.push(at)).unwrap();
        let steps = whole.last().unwrap().steps;
        assert!(steps > 8, "{name}: {steps} steps");
        // Once after every step: within an epoch and at its end, before, at and after a target.
        let mut monitor = Interrupts { stop_after: (1..=steps).collect(), ..Interrupts::default() };
        let mut runs = 0;
        let pieced = loop {
            runs += 1;
            match trainer.train(&objective, &targets, 3, &mut monitor) {
                Ok(circuits) => break circuits,
                Err(why) => assert_eq!(why.to_string(), "interrupted"),
            }
        };
        assert_eq!(runs, steps + 1, "{name}");
        assert_eq!(pieced, whole, "{name}");
        assert_eq!(monitor.progress, seen, "{name}");
        // A state of another shape is not taken.
        let state = TrainingState { steps: 3, arrays: vec![vec![0.0; 7]], circuits: Vec::new() };
        let mut monitor = Interrupts { kept: Some(state), ..Interrupts::default() };
        assert_eq!(trainer.train(&objective, &targets, 3, &mut monitor).unwrap(), whole, "{name}");
    }
}
