//! Circuits of tasks, found and measured (T1, T4, T6).

use std::borrow::Cow;

use anyhow::Result;
use locus_circuits::masks::{Circuit, MaskProgress, MaskTrainer};
use locus_data::seed::stream;
use locus_gpt2::internal::shuffle;
use locus_gpt2::{ParamId, ParamMask, Scalar};
use locus_metrics::classify::{accuracy, agreement, balanced_agreement};

use crate::records::{Extraction, TensorCount, stream_name};
use crate::settings::{MAIN_DENSITIES, Preset, SWEEP_TASK, Settings};
use locus_tasks::Task;

/// A circuit with its measurements.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// Measurements of the circuit.
    pub record: Extraction,
    /// The mask.
    pub mask: ParamMask,
}

/// One trajectory of a task: what is trained, the task with the score head that belongs to it, and the density targets,
/// descending.
struct Trajectory<'a, F: Scalar> {
    /// Number among the task's trajectories; each has its own noise.
    number: u64,
    task: Cow<'a, Task<F>>,
    trainer: Box<dyn MaskTrainer<F> + 'a>,
    densities: Vec<f64>,
}

/// The trajectories of a preset: one through all targets for `scheduled-top-k`, with the task's own head; for
/// `published` those of [`Settings::published_trajectories`], each with the head of its published run.
fn trajectories<'a, F: Scalar>(
    task: &'a Task<F>,
    preset: Preset,
    settings: &Settings,
) -> Result<Vec<Trajectory<'a, F>>> {
    if preset == Preset::ScheduledTopK {
        let (task, trainer) = (Cow::Borrowed(task), Box::new(settings.scheduled_top_k));
        return Ok(vec![Trajectory { number: 0, task, trainer, densities: settings.densities.clone() }]);
    }
    let published = settings.published_trajectories(&task.name).into_iter().zip(0..);
    let with_head = published.map(|(published, number)| {
        let task = Cow::Owned(task.retrained_head(&published.head, settings.seed)?);
        Ok(Trajectory { number, task, trainer: Box::new(published.recipe), densities: published.densities })
    });
    with_head.collect()
}

/// Finds a task's circuits at every density of the sweep, in one trajectory or, where the published constants differ by
/// density, in one for each set of constants, and measures those that the tables show: all for the task of the size
/// sweep, those of the two main densities for the others.
///
/// # Errors
/// When a row does not fit the model.
pub fn extract<F: Scalar>(
    task: &Task<F>,
    preset: Preset,
    settings: &Settings,
    progress: &mut dyn FnMut(MaskProgress),
) -> Result<Vec<Extracted>> {
    let mut all = Vec::new();
    for trajectory in trajectories(task, preset, settings)? {
        all.extend(extract_trajectory(&trajectory, preset, settings, progress)?);
    }
    Ok(all)
}

fn extract_trajectory<F: Scalar>(
    trajectory: &Trajectory<F>,
    preset: Preset,
    settings: &Settings,
    progress: &mut dyn FnMut(MaskProgress),
) -> Result<Vec<Extracted>> {
    let task = &*trajectory.task;
    let shown = |density: &f64| task.name == SWEEP_TASK || MAIN_DENSITIES.contains(density);
    let circuits = train(trajectory, &task.train.choices, preset, settings, progress)?;
    let shuffled = if preset == settings.main_preset && settings.shuffled_tasks.contains(&task.name) {
        let mut classes = task.train.choices.clone();
        shuffle(&mut classes, &mut stream(settings.seed, &format!("shuffled labels/{}", task.name), 0));
        train(trajectory, &classes, preset, settings, &mut |_| {})?.into_iter().map(Some).collect()
    } else {
        vec![None; circuits.len()]
    };
    circuits
        .into_iter()
        .zip(shuffled)
        .filter(|(circuit, _)| shown(&circuit.target_density))
        .map(|(circuit, shuffled)| measure(task, preset, settings, circuit, shuffled.as_ref()))
        .collect()
}

fn train<F: Scalar>(
    trajectory: &Trajectory<F>,
    classes: &[usize],
    preset: Preset,
    settings: &Settings,
    progress: &mut dyn FnMut(MaskProgress),
) -> Result<Vec<Circuit>> {
    let task = &*trajectory.task;
    let objective = task.objective_for(classes);
    // A seed from a named stream, so that tasks and presets do not share noise. The purpose keeps the preset's former
    // name: with another string the stream and so every mask would be different.
    let purpose = format!("mask/{}/{}", stream_name(preset.name()), task.name);
    let seed = rand::Rng::next_u64(&mut stream(settings.seed, &purpose, trajectory.number));
    Ok(trajectory.trainer.train(&objective, &trajectory.densities, seed, progress)?)
}

fn measure<F: Scalar>(
    task: &Task<F>,
    preset: Preset,
    settings: &Settings,
    circuit: Circuit,
    shuffled: Option<&Circuit>,
) -> Result<Extracted> {
    let (labels, choices) = (&task.held_out.labels, &task.held_out.choices);
    let predict = |mask: &ParamMask| task.predict(&mask.ablate_complement(&task.model));
    // Shares of no rows are undefined; they are reported as 0.
    let accuracy_of = |predicted: &[usize]| accuracy(predicted, labels).unwrap_or(0.0);
    let agreement_of = |predicted: &[usize]| agreement(predicted, choices).unwrap_or(0.0);
    let mask = &circuit.mask;
    let inside = predict(mask)?;
    let outside = predict(&circuit.complement_source().complement())?;
    let mut random = [0.0; 3];
    for draw in 0..settings.random_draws {
        let purpose = format!("random mask/{}/{}", task.name, circuit.target_density);
        let rng = &mut stream(settings.seed, &purpose, draw as u64);
        let predicted = predict(&ParamMask::random(task.model.config(), mask.count(), rng))?;
        let balanced = balanced_agreement(&predicted, choices).unwrap_or(0.0);
        for (sum, share) in
            random.iter_mut().zip([accuracy_of(&predicted), agreement_of(&predicted), balanced])
        {
            *sum += share / settings.random_draws as f64;
        }
    }
    let record = Extraction {
        preset: preset.name().to_owned(),
        task: task.name.clone(),
        target_density: circuit.target_density,
        density: mask.density(),
        reached: circuit.reached,
        epochs: circuit.epochs,
        steps: circuit.steps,
        held_out_rows: labels.len(),
        accuracy_full: task.accuracy_full(),
        accuracy_circuit: accuracy_of(&inside),
        accuracy_complement: accuracy_of(&outside),
        accuracy_random: random[0],
        agreement: agreement_of(&inside),
        agreement_complement: agreement_of(&outside),
        agreement_random: random[1],
        balanced_agreement_random: random[2],
        accuracy_shuffled: shuffled
            .map(|circuit| Ok::<_, anyhow::Error>(accuracy_of(&predict(&circuit.mask)?)))
            .transpose()?,
        composition: composition(mask),
        mask_sha256: mask.sha256(),
    };
    Ok(Extracted { record, mask: circuit.mask })
}

fn composition(mask: &ParamMask) -> Vec<TensorCount> {
    let count = |(id, kept, size)| match id {
        ParamId::Block(layer, param) => TensorCount { layer, tensor: param.name().to_owned(), kept, size },
        _ => unreachable!("masks hold block parameters only"),
    };
    mask.counts().into_iter().map(count).collect()
}
