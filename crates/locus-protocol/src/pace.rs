//! How fast this machine does each kind of a run's work, timed on small samples of that very work.
//!
//! Work on many rows is `begin + steps (step + tokens token)`: two batches of different size give the two slopes. Units
//! of large models use all threads in turn, those of small models one thread each, so that samples of small models are
//! timed side by side and divided by their number. A sample that cannot be run counts as no time: the unit behind it
//! will say why.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use locus_circuits::edges::{
    Attribution, Edge, EdgeSet, Graph, LogitDiff, Pair, StandardAblation, attribute_edges, patch_edges,
    run_circuit,
};
use locus_circuits::masks::{
    BinaryConcrete, MaskProgress, MaskTrainer, ReadOut, ScheduledTopK, TaskObjective, TrainingMonitor,
    TrainingStateView,
};
use locus_circuits::{Tracing, trace_fact};
use locus_data::StudyData;
use locus_data::seed::stream;
use locus_editors::{ClampedSgd, Hparams, LazyEdited};
use locus_gpt2::ndarray::Array2;
use locus_gpt2::{
    Checkpoint, Gpt2, HeadTraining, ParamMask, PromptTargets, Scalar, ScoreHead, compiled, last_hidden_of,
};
use locus_metrics::token::beats;
use rayon::prelude::*;

use crate::discovery::{agreement_pairs, hierarchy_pairs};
use crate::editors::{COMPARED, Comparison, WritableScope};
use crate::edits::{WANTED, WATCHED};
use crate::neutral::NeutralText;
use crate::plan::{PlannedUnit, Work};
use crate::records::Scope;
use crate::requests::PreparedRequest;
use crate::settings::{MAIN_DENSITIES, Preset, SWEEP_TASK, Settings, is_large};
use crate::tracing::facts_of_requests;

/// Shortest time of a measurement: shorter work is repeated.
const SHORTEST: Duration = Duration::from_millis(60);
/// Time after which no further editor of a large model is timed; those left out count as the nearest one.
const EDITORS: Duration = Duration::from_secs(6);
/// Tokens of the smaller of two timed batches of a large model, which makes one piece of work of it.
const PIECE_TOKENS: f64 = 128.0;
/// Rows that samples are taken from, at most.
const ROWS: usize = 512;
/// Edges that are patched one by one.
const PATCHED: usize = 48;

/// Seconds that pieces of work take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    /// Forward pass to the hidden states, per token.
    pub forward: f64,
    /// Forward pass with the probabilities of all tokens, per token.
    pub language: f64,
    /// Training of a score head, per row and epoch.
    pub head: f64,
    /// Training with the recipe of this project.
    pub top_k: StepPace,
    /// Training with the published recipe.
    pub published: StepPace,
    /// Ten steps of fine-tuning of one request.
    pub tuning: TuningPace,
    /// What the comparison of editors begins with, beside reading its text.
    pub comparison: f64,
    /// Search for the values of a request, and its edit, by editor, in the order of [`COMPARED`].
    pub editors: [[f64; 2]; 5],
    /// Attribution to edges with one backward pass, per token.
    pub attribution: f64,
    /// Patching of one edge, per token.
    pub patching: f64,
    /// Run of a circuit of edges, per token.
    pub circuit: f64,
    /// Tracing of a fact.
    pub fact: f64,
}

/// Seconds of ten steps of fine-tuning, and what they lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TuningPace {
    /// In few of the parameters, in half of them and in most.
    pub masked: [f64; 3],
    /// In all parameters.
    pub full: f64,
    /// Whether the new targets came to win in the full model: the calibrated edit is then the published one.
    pub is_calibrated: bool,
}

/// Seconds of a training of masks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepPace {
    /// Before the first step, beside one pass over the rows.
    pub begin: f64,
    /// Of a step, whatever its batch.
    pub step: f64,
    /// Of a step, per token of its batch.
    pub token: f64,
}

impl StepPace {
    /// Seconds of a number of steps with batches of a number of tokens.
    pub fn steps(&self, steps: f64, tokens: f64) -> f64 {
        steps * (self.step + tokens * self.token)
    }

    /// The pace behind the ends of steps, in seconds, whose batches have in turns as many tokens as the larger and the
    /// smaller number; `None` for fewer than three steps.
    fn of_ends(ends: &[f64], [larger, smaller]: [f64; 2]) -> Option<Self> {
        let lasted: Vec<f64> = ends.windows(2).map(|ends| ends[1] - ends[0]).collect();
        let mean = |first: usize| {
            let steps: Vec<f64> = lasted.iter().skip(first).step_by(2).copied().collect();
            (!steps.is_empty()).then(|| steps.iter().sum::<f64>() / steps.len() as f64)
        };
        // The first step is that of the larger batch, and its beginning is not known.
        let (small, large) = (mean(0)?, mean(1)?);
        let token = if larger > smaller { ((large - small) / (larger - smaller)).max(0.0) } else { 0.0 };
        let begin = ends[0] - large - token * (larger + smaller);
        Some(StepPace { begin: begin.max(0.0), step: (small - token * smaller).max(0.0), token })
    }
}

impl Pace {
    /// Times the kinds of work that occur in the units of a run.
    pub fn measure<F: Scalar>(
        checkpoint: &Checkpoint<F>,
        data: &StudyData,
        settings: &Settings,
        units: &[PlannedUnit],
    ) -> Self {
        F::run::<PaceJob>((checkpoint, data, settings, units))
    }
}

type PaceIn<'a, F> = (&'a Checkpoint<F>, &'a StudyData, &'a Settings, &'a [PlannedUnit]);

compiled!(PaceJob<'a>: <F> PaceIn<'a, F> => Pace, measured);

fn measured<F: Scalar>((checkpoint, data, settings, units): PaceIn<F>) -> Pace {
    let large = is_large(checkpoint.model.config());
    let copies = if large { 1 } else { rayon::current_num_threads() };
    let mut sample = Sample { checkpoint, data, settings, large, copies, rows: Vec::new() };
    sample.rows = sample.sequences().unwrap_or_default();
    let has = |wanted: fn(&Work) -> bool| units.iter().any(|unit| wanted(&unit.work));
    let trains =
        |preset| units.iter().any(|unit| matches!(&unit.work, Work::Circuits(id) if id.preset == preset));
    let mut pace = Pace::default();
    // Of no interest, but the first pass is slower than later ones.
    let _ = sample.forward();
    pace.forward = sample.forward().unwrap_or_default();
    pace.language = sample.language().unwrap_or(1.5 * pace.forward);
    if has(|work| matches!(work, Work::Task(_) | Work::Circuits(_))) {
        pace.head = sample.head().unwrap_or_default();
    }
    if trains(Preset::ScheduledTopK) || has(|work| matches!(work, Work::EdgeMasks)) {
        pace.top_k = sample.top_k().unwrap_or_default();
    }
    if trains(Preset::Published) {
        pace.published = sample.published().unwrap_or_default();
    }
    if has(|work| matches!(work, Work::Edits { .. } | Work::Calibration)) {
        pace.tuning = sample.tuning().unwrap_or_default();
    }
    if has(|work| matches!(work, Work::Editor { .. } | Work::Unedited)) {
        (pace.comparison, pace.editors) = sample.editors().unwrap_or_default();
    }
    if has(|work| matches!(work, Work::Edges(_) | Work::EdgeMasks)) {
        [pace.attribution, pace.patching, pace.circuit] = sample.edges().unwrap_or_default();
    }
    if has(|work| matches!(work, Work::Tracing)) {
        pace.fact = sample.fact().unwrap_or_default();
    }
    pace
}

/// What samples of work are taken from.
struct Sample<'a, F> {
    checkpoint: &'a Checkpoint<F>,
    data: &'a StudyData,
    settings: &'a Settings,
    large: bool,
    /// Number of samples that run side by side.
    copies: usize,
    /// Tokenised rows of a task.
    rows: Vec<Vec<u32>>,
}

impl<F: Scalar> Sample<'_, F> {
    /// Rows of the first task that fit the model, or prompts of requests where no task is used.
    fn sequences(&self) -> Result<Vec<Vec<u32>>> {
        let (tokenizer, config) = (&self.checkpoint.tokenizer, self.checkpoint.model.config());
        let task = self.settings.tasks.iter().find_map(|task| self.data.task(task));
        let texts: Vec<String> = match task {
            Some(task) => task.rows.iter().map(|row| row.text.clone()).collect(),
            None => self.data.requests.iter().map(locus_data::EditRequest::full_prompt).collect(),
        };
        let mut rows = Vec::new();
        for text in texts.iter().step_by(texts.len().div_ceil(ROWS).max(1)) {
            rows.push(tokenizer.encode_some("text", text)?);
        }
        rows.retain(|row| row.len() <= config.n_positions);
        anyhow::ensure!(rows.len() > 2, "too few rows");
        Ok(rows)
    }

    fn tokens(rows: &[Vec<u32>]) -> f64 {
        rows.iter().map(Vec::len).sum::<usize>() as f64
    }

    /// As many rows as have about a number of tokens.
    fn rows_of(&self, tokens: f64) -> usize {
        let mean = Self::tokens(&self.rows) / self.rows.len().max(1) as f64;
        ((tokens / mean.max(1.0)).round() as usize).clamp(1, self.rows.len().max(1))
    }

    /// Seconds of some work on all threads, or of each piece where pieces run side by side.
    fn timed<R>(&self, work: impl Fn() -> Result<R> + Sync) -> Result<f64> {
        let (begun, mut rounds) = (Instant::now(), 0);
        while rounds == 0 || begun.elapsed() < SHORTEST {
            (0..self.copies).into_par_iter().try_for_each(|_| work().map(drop))?;
            rounds += 1;
        }
        Ok(begun.elapsed().as_secs_f64() / (rounds * self.copies) as f64)
    }

    fn forward(&self) -> Result<f64> {
        let rows = &self.rows[..self.rows_of(4.0 * PIECE_TOKENS)];
        let model = &self.checkpoint.model;
        Ok(self.timed(|| Ok(last_hidden_of(model, rows)?))? / Self::tokens(rows))
    }

    fn language(&self) -> Result<f64> {
        let text = self.neutral().context("no neutral text")?;
        let packed = NeutralText::new(self.checkpoint, text)?.context("no line of two tokens")?.packed;
        let seconds = self.timed(|| NeutralText::new(self.checkpoint, text))?;
        Ok(seconds / packed.targets.len() as f64)
    }

    fn neutral(&self) -> Option<&str> {
        self.data.neutral.as_deref().or(self.settings.text.as_deref())
    }

    fn head(&self) -> Result<f64> {
        let (n, d) = (self.rows.len(), self.checkpoint.model.config().n_embd);
        let features = Array2::from_shape_fn((n, d), |(i, j)| F::from_f64(((i * 7 + j) % 5) as f64 - 2.0));
        let (training, classes) = (HeadTraining { epochs: 2, ..HeadTraining::default() }, alternating(n));
        let train = || {
            let rng = &mut stream(0, "pace", 0);
            Ok(ScoreHead::train(features.view(), &classes, 2, &training, rng))
        };
        Ok(self.timed(train)? / (n * training.epochs) as f64)
    }

    fn top_k(&self) -> Result<StepPace> {
        let recipe = self.settings.scheduled_top_k;
        let rows = self.two_batches(recipe.batch_sequences);
        let recipe = ScheduledTopK { batch_sequences: rows[0], steps_per_target: 2, hold: 2, ..recipe };
        // Sparse masks are faster, so that each density counts; the first one twice, as its first step is left out.
        // Most trainings pass through the main ones alone, and steps of a large model take seconds.
        let densities = if self.large { MAIN_DENSITIES.to_vec() } else { self.settings.densities.clone() };
        let targets: Vec<f64> = densities.iter().take(1).chain(&densities).copied().collect();
        self.training(&recipe, &targets, rows)
    }

    fn published(&self) -> Result<StepPace> {
        let settings = self.settings;
        let task = settings.published_tasks.first().or(settings.tasks.first());
        let task = task.map_or(SWEEP_TASK, String::as_str);
        let recipe = settings.published_recipe(task, settings.densities[0]);
        let rows = self.two_batches(recipe.batch_sequences);
        let recipe = BinaryConcrete { batch_sequences: rows[0], max_epochs: 2, ..recipe };
        self.training(&recipe, &[f64::MIN_POSITIVE], rows)
    }

    /// Numbers of rows of two batches: of about the size of the run's for small models, of four and two pieces of work
    /// for large ones, as products of fewer rows are slower.
    fn two_batches(&self, batch: usize) -> [usize; 2] {
        let batch = if self.large { self.rows_of(4.0 * PIECE_TOKENS) } else { batch };
        let larger = batch.min(2 * self.rows.len() / 3).max(1);
        [larger, (larger / 2).max(1)]
    }

    fn training(
        &self,
        trainer: &(dyn MaskTrainer<F> + Sync),
        targets: &[f64],
        [larger, smaller]: [usize; 2],
    ) -> Result<StepPace> {
        let rows = &self.rows[..(larger + smaller).min(self.rows.len())];
        let model = &self.checkpoint.model;
        let classes = alternating(rows.len());
        let shape = (2, model.config().n_embd);
        let weight = Array2::from_shape_fn(shape, |(i, j)| F::from_f64(0.02 * (((i + j) % 3) as f64 - 1.0)));
        let head = ScoreHead { weight };
        let objective = TaskObjective { model, read_out: ReadOut::Head(&head, &classes), sequences: rows };
        let tokens = Self::tokens(rows) / rows.len() as f64;
        let one = |_| {
            let mut ends = StepEnds { begun: Instant::now(), seconds: Vec::new() };
            trainer.train(&objective, targets, 0, &mut ends)?;
            let tokens = [larger, smaller].map(|rows| rows as f64 * tokens);
            StepPace::of_ends(&ends.seconds, tokens).context("too few steps")
        };
        let all: Vec<StepPace> = (0..self.copies).into_par_iter().map(one).collect::<Result<_>>()?;
        let share =
            |of: fn(&StepPace) -> f64| all.iter().map(of).sum::<f64>() / (self.copies * self.copies) as f64;
        Ok(StepPace {
            begin: share(|pace| pace.begin),
            step: share(|pace| pace.step),
            token: share(|pace| pace.token),
        })
    }

    fn tuning(&self) -> Result<TuningPace> {
        let Checkpoint { model, tokenizer } = self.checkpoint;
        // Requests that are written together read the shared weights once.
        let n = if self.large { 4 } else { 16 };
        let requests = self.settings.requests(self.data).iter().take(n);
        let requests: Vec<PreparedRequest> =
            requests.map(|request| PreparedRequest::new(tokenizer, request)).collect::<Result<_>>()?;
        anyhow::ensure!(!requests.is_empty(), "no request");
        let targets = requests.iter().map(|request| {
            let (prompt, new) = (request.prompt(), request.target_new());
            let correct = request.target_true().unwrap_or(new);
            PromptTargets::<F>::prefix_sharing(model.config(), &[(prompt, new), (prompt, correct)])
        });
        let targets: Vec<PromptTargets<F>> = targets.collect::<locus_gpt2::Result<_>>()?;
        let to_write: Vec<_> = requests.iter().map(PreparedRequest::token_request).collect();
        let editor = ClampedSgd { max_steps: 10, ..ClampedSgd::default() };
        let write = |start: &Gpt2<F>, mask: Option<&ParamMask>| {
            let won = |i: usize, edited: &LazyEdited<F>| {
                let nll = edited.nll_per_token(&targets[i]);
                Ok::<_, anyhow::Error>(beats(nll[0], nll[1]))
            };
            editor.fine_tune_watched(start, &to_write, mask, &WATCHED, |i, edited, _, _| won(i, edited))
        };
        let n = requests.len() as f64;
        let twentieth = ParamMask::from_fn(model.config(), |_, i| i % 20 == 7);
        let half = ParamMask::from_fn(model.config(), |_, i| i * 7919 % 64 < 32);
        let mut masked = [0.0; 3];
        for (seconds, mask) in masked.iter_mut().zip([twentieth.clone(), half, twentieth.complement()]) {
            let start = mask.ablate_complement(model);
            *seconds = self.timed(|| write(&start, Some(&mask)))? / n;
        }
        let wins = AtomicUsize::new(0);
        let written = self.timed(|| {
            let won = write(model, None)?.into_iter().filter(|&won| won);
            wins.store(won.count(), Relaxed);
            Ok(())
        });
        let full = written? / n;
        Ok(TuningPace { masked, full, is_calibrated: wins.into_inner() as f64 >= WANTED * n })
    }

    fn editors(&self) -> Result<(f64, [[f64; 2]; 5])> {
        let model = &self.checkpoint.model;
        let built_in = || Hparams::for_model(model.config(), None);
        let hparams = self.settings.hparams.clone().map_or_else(built_in, Ok)?;
        // A few lines, so that reading them takes no time beside the rest.
        let text: Vec<&str> = self.neutral().context("no text")?.lines().take(8).collect();
        let text = text.join("\n");
        let n = if self.large { 1 } else { 2 * self.copies };
        let requests = self.settings.requests(self.data);
        let requests = &requests[..n.min(requests.len())];
        anyhow::ensure!(!requests.is_empty(), "no request");
        let begun = Instant::now();
        let comparison =
            Comparison::new(self.checkpoint, requests, &text, &text, &hparams, self.settings.seed)?;
        let comparing = begun.elapsed().as_secs_f64();
        let full = WritableScope { scope: Scope::Full, target_density: 1.0, mask: None };
        let mut editors = [[0.0; 2]; 5];
        let begun = Instant::now();
        // One of each kind first: a search for values, then fine-tuning.
        let first = COMPARED.iter().position(|name| *name == "r-rome").unwrap_or_default();
        let mut latest = [0.0; 2];
        for at in std::iter::once(first).chain((0..COMPARED.len()).filter(|&at| at != first)) {
            if !self.large || begun.elapsed() < EDITORS {
                let start = Instant::now();
                let ready = comparison.prepare(COMPARED[at])?;
                comparison.run(&ready, &full)?;
                let both = start.elapsed().as_secs_f64();
                let start = Instant::now();
                comparison.run(&ready, &full)?;
                let write = start.elapsed().as_secs_f64();
                latest = [(both - write).max(0.0), write].map(|seconds| seconds / requests.len() as f64);
                editors[at] = latest;
            } else {
                editors[at] = if at > first { editors[first] } else { latest };
            }
        }
        Ok((comparing, editors))
    }

    fn edges(&self) -> Result<[f64; 3]> {
        let Checkpoint { model, tokenizer } = self.checkpoint;
        let task = self.settings.pair_tasks.first().context("no task")?;
        // About as many as make one piece of work.
        let n = 8;
        let pairs: Vec<Pair> = if task == SWEEP_TASK {
            hierarchy_pairs(tokenizer, &self.data.requests, n)?
        } else {
            agreement_pairs(tokenizer, &self.data.task(task).context("no rows")?.rows, n)?
        };
        anyhow::ensure!(!pairs.is_empty(), "no pair");
        let tokens = pairs.iter().map(|pair| pair.clean.len()).sum::<usize>() as f64;
        let (graph, ablation) = (Graph::new(model.config()), StandardAblation::Corrupted);
        let all: Vec<Edge> = graph.edges().collect();
        let some: Vec<Edge> = all.iter().step_by(all.len().div_ceil(PATCHED)).copied().collect();
        let tenth = EdgeSet::from_edges(graph, all.iter().step_by(10).copied());
        let attribution =
            self.timed(|| Ok(attribute_edges(model, &pairs, &LogitDiff, Attribution::Eap, &ablation)?))?;
        let patching = self.timed(|| Ok(patch_edges(model, &pairs, &LogitDiff, &ablation, &some)?))?;
        let circuit = self.timed(|| Ok(run_circuit(model, &pairs, &LogitDiff, &tenth, &ablation)?))?;
        // What patching begins with is two passes with records of all sources, as attribution has.
        let patching = (patching - 0.5 * attribution).max(0.1 * patching) / some.len() as f64;
        Ok([attribution / tokens, patching / tokens, circuit / tokens])
    }

    fn fact(&self) -> Result<f64> {
        let Checkpoint { model, tokenizer } = self.checkpoint;
        let facts = facts_of_requests(tokenizer, self.settings.requests(self.data))?;
        let fact = facts.get(facts.len() / 2).context("no fact")?;
        let how = Tracing::new(model, std::slice::from_ref(fact), self.settings.seed);
        // A fact's cells already run side by side.
        let alone = Sample { copies: 1, rows: Vec::new(), ..*self };
        alone.timed(|| Ok(trace_fact(model, fact, &how)?))
    }
}

/// Two classes in turns.
fn alternating(n: usize) -> Vec<usize> {
    (0..n).map(|i| i % 2).collect()
}

/// Listens to a training and notes when each step ends.
struct StepEnds {
    begun: Instant,
    seconds: Vec<f64>,
}

impl<F> TrainingMonitor<F> for StepEnds {
    fn progress(&mut self, _: MaskProgress) {}

    fn offer(&mut self, _: TrainingStateView<'_, F>) -> locus_gpt2::Result<()> {
        self.seconds.push(self.begun.elapsed().as_secs_f64());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 2 s and a tenth of a second per token, after 5 s and a pass over all 30 tokens.
    #[test]
    fn two_batches_give_the_pace_back() {
        let planted = StepPace { begin: 5.0, step: 2.0, token: 0.1 };
        let mut at = planted.begin + planted.token * 30.0;
        let ends: Vec<f64> = [20.0, 10.0, 20.0, 10.0, 20.0]
            .iter()
            .map(|&tokens| {
                at += planted.steps(1.0, tokens);
                at
            })
            .collect();
        let found = StepPace::of_ends(&ends, [20.0, 10.0]).unwrap();
        for (found, planted) in
            [(found.begin, planted.begin), (found.step, planted.step), (found.token, planted.token)]
        {
            assert!((found - planted).abs() < 1e-9, "{found} for {planted}");
        }
        assert_eq!(StepPace::of_ends(&ends[..2], [20.0, 10.0]), None);
    }

    /// Every kind of work of the bundled model's study can be timed.
    #[test]
    fn all_kinds_of_work_are_timed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
        let checkpoint = Checkpoint::<f32>::from_pretrained(&folder).unwrap();
        let data = StudyData::read(folder.join("data")).unwrap();
        let config = checkpoint.model.config();
        let mut settings = Settings::quick(1, Preset::ScheduledTopK);
        settings.hparams = Some(Hparams::for_model(config, Some(&folder)).unwrap());
        let units = crate::plan::plan(&settings, config, settings.requests(&data).len());
        let pace = Pace::measure(&checkpoint, &data, &settings, &units);
        let Pace {
            forward, language, head, tuning, comparison, attribution, patching, circuit, fact, ..
        } = pace;
        let steps = [pace.top_k, pace.published].map(|pace| pace.steps(1.0, 100.0));
        let writes = pace.editors.map(|[_, write]| write);
        let one = [forward, language, head, comparison, attribution, patching, circuit, fact];
        let mut all = one.iter().chain(&tuning.masked).chain([&tuning.full]).chain(&steps).chain(&writes);
        assert!(all.all(|&seconds| seconds > 0.0 && seconds < 100.0), "{pace:?}");
    }
}
