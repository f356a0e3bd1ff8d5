//! Circuits of tasks and their controls, found and measured (T1, T4, T6).

use anyhow::Result;
use locus_circuits::masks::{Circuit, MaskProgress, MaskTrainer, ScheduledTopK, TrainingMonitor};
use locus_data::seed::stream;
use locus_gpt2::internal::shuffle;
use locus_gpt2::{ParamId, ParamMask, Scalar};
use locus_metrics::classify::{accuracy, agreement, balanced_agreement};

use crate::controls::Controls;
use crate::neutral::NeutralText;
use crate::plan::TrajectoryId;
use crate::records::{Extraction, Schedule, Scope, TensorCount, stream_name};
use crate::settings::{Preset, Settings};
use crate::store::Unit;
use locus_tasks::Task;

/// A trained mask with its measurements.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// Measurements of the mask.
    pub record: Extraction,
    /// The mask.
    pub mask: ParamMask,
    /// The mask that is edited, where the recipe draws it anew.
    pub edited: Option<ParamMask>,
}

impl Extracted {
    /// The mask that is edited.
    pub fn edited(&self) -> &ParamMask {
        self.edited.as_ref().unwrap_or(&self.mask)
    }
}

/// A training of masks on one task that passes through several densities.
#[derive(Clone, Copy)]
pub struct Trajectory<'a, F> {
    /// Recipe.
    pub preset: Preset,
    /// Task, prepared on the model that the masks are of.
    pub task: &'a Task<F>,
    /// Kind of mask: a circuit, or one trained on shuffled labels or on random weights.
    pub scope: Scope,
    /// Seed of the mask, counted from 0.
    pub draw: usize,
    /// Schedule of the densities.
    pub schedule: Schedule,
    /// Accuracy on the task of a model of random weights; `None` where the task is prepared on one.
    pub accuracy_random_weights: Option<f64>,
}

impl<F: Scalar> Trajectory<'_, F> {
    /// Finds the masks, and measures those that the tables show: all densities for circuits of the sweep's task, the
    /// main ones otherwise. The unit keeps the state of the trainings while they run.
    ///
    /// # Errors
    /// When a row does not fit the model, or a state cannot be written.
    pub fn run(
        &self,
        id: &TrajectoryId,
        settings: &Settings,
        neutral: Option<&NeutralText<F>>,
        unit: &Unit,
        progress: &mut dyn FnMut(MaskProgress),
    ) -> Result<Vec<Extracted>> {
        let config = self.task.model.config();
        let mut all = Vec::new();
        if self.preset == Preset::Published {
            for (number, run) in settings.published_trajectories(&self.task.name).iter().enumerate() {
                let task = self.task.retrained_head(&run.head, settings.seed)?;
                let trajectory = Trajectory { task: &task, ..*self };
                let recipe = (&run.recipe as &dyn MaskTrainer<F>, run.densities.as_slice());
                let mut monitor = unit.training(number, config, progress);
                let circuits = trajectory.train(recipe, number, settings, &mut monitor)?;
                let shown = circuits.into_iter().filter(|circuit| id.shows(circuit.target_density));
                for circuit in shown {
                    all.push(trajectory.extracted(circuit, neutral)?);
                }
            }
            return Ok(all);
        }
        let sweep = &settings.scheduled_top_k;
        let circuits = if self.schedule == Schedule::OwnTrajectory {
            // Every density is trained for as long as two targets of the sweep take.
            let (steps_per_target, hold) = (2 * sweep.steps_per_target, 2 * sweep.hold);
            let recipe = ScheduledTopK { steps_per_target, hold, ..*sweep };
            let mut circuits = Vec::new();
            for (number, density) in id.targets(settings).iter().enumerate() {
                let mut monitor = unit.training(number, config, progress);
                let target = std::slice::from_ref(density);
                circuits.extend(self.train((&recipe, target), 0, settings, &mut monitor)?);
            }
            circuits
        } else {
            let mut monitor = unit.training(0, config, progress);
            self.train((sweep, &id.targets(settings)), 0, settings, &mut monitor)?
        };
        let shown = circuits.into_iter().filter(|circuit| id.shows(circuit.target_density));
        for circuit in shown {
            all.push(self.extracted(circuit, neutral)?);
        }
        Ok(all)
    }

    /// Trains masks; `number` is that of the recipe among those of a task, each with noise of its own.
    fn train(
        &self,
        (recipe, densities): (&dyn MaskTrainer<F>, &[f64]),
        number: usize,
        settings: &Settings,
        monitor: &mut dyn TrainingMonitor<F>,
    ) -> Result<Vec<Circuit>> {
        let task = self.task;
        let mut classes = task.train.choices.clone();
        if self.scope == Scope::Shuffled {
            let purpose = format!("shuffled labels/{}", task.name);
            shuffle(&mut classes, &mut stream(settings.seed, &purpose, self.draw as u64));
        }
        let objective = task.objective_for(&classes);
        // A seed from a named stream, so that tasks, presets and draws do not share noise.
        let purpose = match number {
            0 => format!("mask/{}/{}", stream_name(self.preset.name()), task.name),
            number => format!("mask/{}/{}/{number}", stream_name(self.preset.name()), task.name),
        };
        let seed = rand::Rng::next_u64(&mut stream(settings.seed, &purpose, self.draw as u64));
        Ok(recipe.train(&objective, densities, seed, monitor)?)
    }

    fn extracted(&self, circuit: Circuit, neutral: Option<&NeutralText<F>>) -> Result<Extracted> {
        let masks = [circuit.measured(), circuit.complement_source(), circuit.saved()];
        let record = self.measure(masks, circuit.target_density, neutral)?;
        let edited = circuit.resampled.as_ref().map(|resampled| resampled.edited.clone());
        let record = Extraction {
            reached: circuit.reached,
            epochs: circuit.epochs,
            steps: circuit.steps,
            edited_sha256: edited.as_ref().map(ParamMask::sha256),
            ..record
        };
        Ok(Extracted { record, mask: circuit.saved().clone(), edited })
    }

    /// The controls of this trajectory's circuits, measured on their task.
    ///
    /// # Errors
    /// When a row does not fit the model.
    pub fn controls(
        &self,
        circuits: &[Extracted],
        controls: &Controls<F>,
        settings: &Settings,
        neutral: Option<&NeutralText<F>>,
    ) -> Result<Vec<Extraction>> {
        let mut records = Vec::new();
        for Extracted { record, mask, .. } in circuits {
            let density = record.target_density;
            let name = format!("{}/{}/{density}", record.preset, record.task);
            let mut add = |scope, draw, mask: &ParamMask| -> Result<()> {
                let of = Trajectory { scope, draw, ..*self };
                records.push(of.measure([mask; 3], density, neutral)?);
                Ok(())
            };
            add(Scope::Magnitude, 0, &controls.magnitude(mask.count()))?;
            for draw in 0..settings.matched_draws(&record.task) {
                add(Scope::Matched, draw, &controls.matched(mask, &name, draw))?;
            }
            for draw in 0..settings.random_draws {
                add(Scope::Random, draw, &controls.random(density, draw))?;
            }
        }
        Ok(records)
    }

    /// Measures a mask on the held-out rows and on neutral text. Some recipes draw masks anew for each purpose: that
    /// which is measured, that whose complement is measured, and that which is saved and counted.
    fn measure(
        &self,
        [mask, complement_source, saved]: [&ParamMask; 3],
        target_density: f64,
        neutral: Option<&NeutralText<F>>,
    ) -> Result<Extraction> {
        let task = self.task;
        let (labels, choices) = (&task.held_out.labels, &task.held_out.choices);
        let alone = mask.ablate_complement(&task.model);
        let inside = task.predict(&alone)?;
        let outside = task.predict(&complement_source.complement().ablate_complement(&task.model))?;
        let accuracy_of = |predicted: &[usize]| accuracy(predicted, labels).expect("there are held-out rows");
        let agreement_of =
            |predicted: &[usize]| agreement(predicted, choices).expect("there are held-out rows");
        let one_class = choices.iter().all(|choice| choice == &choices[0]);
        // Neutral text is read by the model of the study; a mask of random weights says nothing about it.
        let neutral = neutral.filter(|_| self.scope != Scope::RandomWeights);
        let language = neutral.map(|text| text.nll_and_kl(&alone));
        Ok(Extraction {
            preset: self.preset.name().to_owned(),
            task: task.name.clone(),
            target_density,
            scope: self.scope,
            draw: self.draw,
            schedule: self.schedule,
            density: saved.density(),
            reached: true,
            epochs: 0,
            steps: 0,
            held_out_rows: labels.len(),
            accuracy_full: task.accuracy_full(),
            accuracy_random_weights: self.accuracy_random_weights,
            accuracy: accuracy_of(&inside),
            accuracy_complement: accuracy_of(&outside),
            agreement: agreement_of(&inside),
            balanced_agreement: balanced_agreement(&inside, choices).filter(|_| !one_class),
            agreement_complement: agreement_of(&outside),
            neutral_nll: language.map(|(nll, _)| nll),
            neutral_kl: language.map(|(_, kl)| kl),
            composition: composition(saved),
            mask_sha256: saved.sha256(),
            edited_sha256: None,
        })
    }
}

fn composition(mask: &ParamMask) -> Vec<TensorCount> {
    let count = |(id, kept, size)| match id {
        ParamId::Block(layer, param) => TensorCount { layer, tensor: param.name().to_owned(), kept, size },
        _ => unreachable!("masks hold block parameters only"),
    };
    mask.counts().into_iter().map(count).collect()
}
