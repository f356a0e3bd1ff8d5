//! Estimated cost of the units of a plan: operations, seconds and memory.
//!
//! **Operations**: a pass forward of `n` tokens through `N` block parameters costs `2 n N`, one forward and back
//! `6 n N`; heads, attention over a few dozen tokens and the arithmetic on masks are left out.
//!
//! **Seconds**: numbers of steps, tokens, requests and edges of a unit, times what each takes on this machine
//! ([`Pace`]). What several units need, such as a task's score head or an editor's values, is computed once in one
//! process, and again in each process that does one unit; [`Cost`] keeps both apart.
//!
//! **Memory**: the arrays of a unit that grow with the parameters, the edges or the editors' statistics.
//!
//! The published recipe stops when a density is reached. Adam moves a logit by about the learning rate a step, so that
//! the penalty alone takes a logit from its initial mean to `ln(t / (1 - t))`, at which a gate is open with probability
//! `t`, in `(mean - ln(t / (1 - t))) / rate` steps. The task holds some logits back: on the bundled model it took 1.1
//! times as many steps to 50 %, and 1.6 times as many to 25 %. For a trajectory to its last target [`RESISTANCE`] times
//! as many are counted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use locus_circuits::edges::Graph;
use locus_data::StudyData;
use locus_editors::token_lines;
use locus_gpt2::{Checkpoint, Config, HeadTraining, ParamMask, Scalar};

use crate::discovery::patched_edges;
use crate::editors::{COMPARED, DRIFT_TOKENS};
use crate::edits::{DRIFT_EVERY, EditScope};
use crate::pace::Pace;
use crate::plan::{PlannedUnit, TrajectoryId, Work, kinds};
use crate::published::for_task;
use crate::records::{EditKind, Schedule, Scope};
use crate::settings::{MAIN_DENSITIES, Preset, PublishedTrajectory, Settings, is_large};

/// Steps of the published recipe against those that its penalty alone would take.
const RESISTANCE: f64 = 2.0;
/// Share of the rows that masks are trained on.
const TRAINED_ON: f64 = 0.8;
/// Passes forward and back over the pairs of a task that finding and measuring circuits of edges takes.
const PASSES_OF_EDGES: f64 = 40.0;
/// Steps of the search for a target vector, and passes that measure an edit, per request and editor.
const STEPS_OF_EDITOR: f64 = 30.0;
/// Runs of the model per traced fact: states, layers and draws of noise.
const RUNS_OF_TRACING: f64 = 400.0;
/// Factors that the calibration tries before one is large enough, and the requests that it tries them on.
const CALIBRATION: (f64, usize) = (3.0, 32);
/// Tokens of neutral text on which masks and edits are measured.
const NEUTRAL_TOKENS: f64 = 256.0;
/// Tokens of text that key statistics come from, at most.
const STATISTICS_TOKENS: usize = 100_000;
/// Share of the parameters up to which an edit is one of few, and share outside up to which it is one of most.
const FEW: f64 = 1.0 / 8.0;
/// Seconds that any unit takes for its files.
const FILES: f64 = 1e-3;

/// Seconds of a unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// What this unit alone needs.
    pub own: f64,
    /// What other units of the same process may need, too, by name.
    pub shared: Vec<(String, f64)>,
}

impl Cost {
    /// Seconds in a process that does nothing else.
    pub fn alone(&self) -> f64 {
        self.own + self.shared.iter().map(|(_, seconds)| seconds).sum::<f64>()
    }

    /// Seconds of each of some units that are done in turn in one process: what they share is the first one's.
    pub fn in_turn(costs: &[Cost]) -> Vec<f64> {
        let mut seen = BTreeSet::new();
        let mut new =
            |(name, seconds): &(String, f64)| if seen.insert(name.clone()) { *seconds } else { 0.0 };
        costs.iter().map(|cost| cost.own + cost.shared.iter().map(&mut new).sum::<f64>()).collect()
    }
}

/// Sizes that the cost of a plan depends on.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Block parameters of the model.
    pub params: usize,
    /// Shape of the model.
    pub config: Config,
    /// Bytes of a number.
    pub bytes: usize,
    /// Rows of each task, and their mean length in tokens.
    pub rows: BTreeMap<String, (usize, f64)>,
    /// Mean length of a request's prompt with its target, in tokens.
    pub request_tokens: f64,
    /// Number of requests.
    pub requests: usize,
    /// Tokens of the text of key statistics.
    pub text_tokens: usize,
}

impl Sizes {
    /// The sizes of a run.
    ///
    /// # Errors
    /// When a text cannot be tokenised.
    pub fn new<F: Scalar>(checkpoint: &Checkpoint<F>, data: &StudyData, settings: &Settings) -> Result<Self> {
        let count = |text: &str| Ok::<_, anyhow::Error>(checkpoint.tokenizer.encode(text)?.len());
        let mut rows = BTreeMap::new();
        for name in &settings.tasks {
            let Some(task) = data.task(name) else { continue };
            let mut tokens = 0;
            for row in &task.rows {
                tokens += count(&row.text)?;
            }
            rows.insert(name.clone(), (task.rows.len(), tokens as f64 / task.rows.len().max(1) as f64));
        }
        let requests = settings.requests(data);
        let mut tokens = 0;
        for request in requests {
            tokens += count(&request.full_prompt())? + count(&request.target_new)?;
        }
        let text = settings.text.as_deref().or(data.neutral.as_deref()).filter(|_| settings.compare_editors);
        let lines = text.map(|text| token_lines(checkpoint, text, STATISTICS_TOKENS)).transpose()?;
        let config = checkpoint.model.config();
        Ok(Sizes {
            params: ParamMask::n_maskable(config),
            config: config.clone(),
            bytes: size_of::<F>(),
            rows,
            request_tokens: tokens as f64 / requests.len().max(1) as f64,
            requests: requests.len(),
            text_tokens: lines.into_iter().flatten().map(|line| line.len()).sum(),
        })
    }

    /// Estimated floating-point operations of a unit.
    pub fn flops(&self, unit: &PlannedUnit, settings: &Settings) -> f64 {
        let forward = 2.0 * self.params as f64;
        let training = 3.0 * forward;
        let requests = |n: f64| n * self.request_tokens;
        match &unit.work {
            Work::Task(task) => 2.0 * self.tokens(task, settings) * forward,
            Work::Circuits(id) => {
                let held_out = (1.0 - TRAINED_ON) * self.tokens(&id.task, settings);
                let measured = 2.0 * id.densities(settings).len() as f64 * held_out * forward;
                self.trained_tokens(id, settings) * training + measured
            }
            Work::Controls(id) => {
                let masks = 1 + settings.matched_draws(&id.task) + settings.random_draws;
                let masks = (masks * id.densities(settings).len()) as f64;
                2.0 * masks * (1.0 - TRAINED_ON) * self.tokens(&id.task, settings) * forward
            }
            Work::Calibration => {
                requests(10.0 * CALIBRATION.0 * self.requests.min(CALIBRATION.1) as f64) * training
            }
            Work::Edits { scope, part: (number, size), .. } => {
                let n = self.requests.saturating_sub(number * size).min(*size) as f64;
                requests(n * steps(kinds(scope, settings).iter())) * training
            }
            Work::Edges(_) | Work::EdgeMasks => {
                requests(PASSES_OF_EDGES * settings.max_pairs as f64) * training
            }
            Work::Unedited => requests(4.0 * self.requests as f64) * forward,
            Work::Editor { .. } => requests(STEPS_OF_EDITOR * self.requests as f64) * training,
            Work::Tracing => requests(RUNS_OF_TRACING * self.requests as f64) * forward,
        }
    }

    /// Estimated seconds of a unit.
    pub fn cost(&self, unit: &PlannedUnit, settings: &Settings, pace: &Pace) -> Cost {
        let n = self.requests as f64;
        // Readings of neutral text: before the edits of each kind, and after those of one pair in so many.
        let drift = |n: f64| {
            let readings = 1.0 + 2.0 * (n / 2.0 / DRIFT_EVERY as f64).ceil();
            readings * NEUTRAL_TOKENS * pace.language
        };
        match &unit.work {
            Work::Task(task) => Cost { own: FILES, shared: vec![self.head(task, "", pace, settings)] },
            Work::Circuits(id) => {
                let shown = id.densities(settings).len() as f64;
                let measured = shown * self.measured(&id.task, 2.0, settings, pace);
                let own = FILES + self.training(id, settings, pace) + measured;
                Cost { own, shared: self.heads(id, pace, settings) }
            }
            Work::Controls(id) => {
                let masks = 1 + settings.matched_draws(&id.task) + settings.random_draws;
                let masks = (masks * id.densities(settings).len()) as f64;
                let own = FILES + masks * self.measured(&id.task, 2.0, settings, pace);
                Cost { own, shared: self.heads(id, pace, settings) }
            }
            Work::Calibration => {
                let (tried, most) = CALIBRATION;
                let tried = if pace.tuning.is_calibrated { 1.0 } else { tried };
                let requests = self.requests.min(most) as f64;
                let edits = requests * (pace.tuning.full + self.judged(pace, 1)) + drift(requests);
                Cost { own: FILES + tried * edits, shared: Vec::new() }
            }
            Work::Edits { scope, part: (number, size), .. } => {
                let n = self.requests.saturating_sub(number * size).min(*size) as f64;
                // A calibrated edit that is the published one is not made anew.
                let (kinds, calibrated) = (kinds(scope, settings), pace.tuning.is_calibrated);
                let made = kinds.iter().filter(|kind| !(calibrated && **kind == EditKind::Calibrated));
                let tens = steps(made.clone()) / 10.0;
                let made = made.count();
                let share = written(scope);
                let of_share = usize::from(share > FEW) + usize::from(share >= 1.0 - FEW);
                let tuning = if share < 1.0 { pace.tuning.masked[of_share] } else { pace.tuning.full };
                let edits = n * (tens * tuning + self.judged(pace, made)) + made as f64 * drift(n);
                Cost { own: FILES + edits, shared: Vec::new() }
            }
            Work::Edges(_) => Cost { own: FILES + self.edges(settings, pace), shared: Vec::new() },
            Work::EdgeMasks => Cost { own: FILES + self.edge_masks(settings, pace), shared: Vec::new() },
            Work::Unedited => {
                let own = FILES + n * self.judged(pace, 1);
                Cost { own, shared: vec![self.comparison(pace)] }
            }
            Work::Editor { editor, .. } => {
                let at = COMPARED.iter().position(|name| name == editor).unwrap_or_default();
                let [search, write] = pace.editors[at];
                let drifts = if editor.ends_with("at once") { 1.0 } else { n };
                let own = FILES + n * write + drifts * DRIFT_TOKENS as f64 * pace.language;
                Cost { own, shared: vec![self.comparison(pace), (format!("values of {editor}"), n * search)] }
            }
            Work::Tracing => Cost { own: FILES + n * pace.fact, shared: Vec::new() },
        }
    }

    /// Estimated bytes that a unit needs at its peak, in a process of its own.
    pub fn memory(&self, unit: &PlannedUnit, settings: &Settings) -> u64 {
        let (bytes, params) = (self.bytes as f64, self.params as f64);
        let d = self.config.n_embd as f64;
        let embeddings = (self.config.vocab_size + self.config.n_positions) as f64 * d;
        let model = bytes * (params + embeddings);
        // A bit for each parameter.
        let mask = params / 8.0;
        // Places and values of a third of the weights, by rows and by columns: fewer are multiplied one by one.
        let lists = 12.0 * params / 3.0;
        // Magnitudes, and their classes in each tensor.
        let magnitudes = (bytes + 1.0) * params;
        let pass = 40.0 * bytes * d * 512.0 * self.config.n_layer as f64 / 12.0;
        let top_k = |rows: f64, tokens: f64| {
            // Scores, two moments, gradients and the masked model; before, gradients of one piece of 64 rows after the
            // other, or of all of them for a small model.
            let pieces = (rows.min(64.0) * tokens / settings.scheduled_top_k.piece_tokens as f64).ceil();
            let at_once = if is_large(&self.config) { 1.0 } else { pieces };
            bytes * params * (5.0f64).max(2.0 + at_once) + lists
        };
        // A masked model, the changes of three requests, and the factors of their steps.
        let edits = 4.0 * bytes * params + 3.0 * mask + 3e8;
        let added = match &unit.work {
            Work::Tracing | Work::Unedited => pass,
            // A model of random weights: what a head reads from words alone.
            Work::Task(_) => model + pass,
            Work::Controls(id) => {
                model + magnitudes + 2.0 * bytes * params + 4.0 * id.densities(settings).len() as f64 * mask
            }
            Work::Circuits(id) => {
                let random = if id.scope == Scope::RandomWeights { model } else { 0.0 };
                // The published recipe draws four masks of each density.
                let masks = settings.densities.len() as f64 * mask;
                let training = match id.preset {
                    // Logits, two moments, masked weights, and 12 bytes for each gate that is not flat.
                    Preset::Published => (4.0 * bytes + 0.1 * 12.0) * params + lists + 4.0 * masks,
                    Preset::ScheduledTopK => {
                        let (rows, tokens) = self.rows.get(&id.task).copied().unwrap_or_default();
                        let rows = TRAINED_ON * rows.min(settings.max_rows) as f64;
                        top_k(rows, tokens) + masks
                    }
                };
                random + training.max(model)
            }
            Work::Calibration => edits,
            Work::Edits { scope, .. } => {
                edits
                    + match scope.scope {
                        Scope::RandomWeights | Scope::RandomWeightsComplement | Scope::RandomWeightsFull => {
                            model
                        }
                        Scope::Magnitude | Scope::MagnitudeComplement => bytes * params,
                        // The classes of |w|.
                        Scope::Matched | Scope::MatchedComplement | Scope::MatchedInPlace => params,
                        _ => 0.0,
                    }
            }
            Work::Edges(_) => {
                let graph = Graph::new(&self.config);
                let nodes = (graph.n_sources() + graph.n_destinations()) as f64;
                4.0 * (pass + 128.0 * bytes * d * nodes)
            }
            Work::EdgeMasks => {
                // A trained mask of each density; then those of ten methods more, and what integrates gradients.
                let masks = settings.densities.len() as f64 * mask;
                let training = top_k(settings.max_pairs as f64 / 2.0, self.request_tokens);
                (training + masks).max(3.0 * bytes * params + 11.0 * masks)
            }
            Work::Editor { .. } => {
                // Second moments of keys and their factors, in double precision, for up to six layers.
                let layers = self.config.n_layer.min(6) as f64;
                2.0 * 8.0 * layers * (self.config.d_mlp() as f64).powi(2) + bytes * params + pass
            }
        };
        (model + added + pass) as u64
    }

    /// Training of a task's score head, with the states that it reads; `kind` tells heads of one task apart.
    fn head(&self, task: &str, kind: &str, pace: &Pace, settings: &Settings) -> (String, f64) {
        let epochs = HeadTraining::default().epochs as f64;
        let rows = TRAINED_ON * self.n_rows(task, settings);
        let seconds = self.tokens(task, settings) * pace.forward + rows * epochs * pace.head;
        (format!("head of {task}{kind}"), seconds)
    }

    /// The score heads that a trajectory needs.
    fn heads(&self, id: &TrajectoryId, pace: &Pace, settings: &Settings) -> Vec<(String, f64)> {
        let mut kinds = vec!["", " on random weights"];
        if id.schedule == Schedule::SplitByRows {
            kinds.push(" by rows");
        }
        kinds.into_iter().map(|kind| self.head(&id.task, kind, pace, settings)).collect()
    }

    /// Measurement of a mask on the held-out rows, with a number of passes, and on neutral text.
    fn measured(&self, task: &str, passes: f64, settings: &Settings, pace: &Pace) -> f64 {
        let held_out = (1.0 - TRAINED_ON) * self.tokens(task, settings);
        passes * held_out * pace.forward + NEUTRAL_TOKENS * pace.language
    }

    /// What an edit of a request is judged on beside drift: targets of others before, other prompts after each kind.
    fn judged(&self, pace: &Pace, kinds: usize) -> f64 {
        (20.0 + self.request_tokens * (2.0 + 6.0 * kinds as f64)) * pace.language
    }

    /// The steps of a trajectory.
    fn training(&self, id: &TrajectoryId, settings: &Settings, pace: &Pace) -> f64 {
        let rows = (TRAINED_ON * self.n_rows(&id.task, settings)).max(1.0);
        let tokens = TRAINED_ON * self.tokens(&id.task, settings);
        match id.preset {
            Preset::Published => {
                let mut seconds = 0.0;
                for run in settings.published_trajectories(&id.task) {
                    let batches = (rows / run.recipe.batch_sequences as f64).ceil();
                    let steps = self.published_steps(&id.task, &run.densities, batches, settings);
                    let head = tokens / TRAINED_ON * pace.forward + rows * run.head.epochs as f64 * pace.head;
                    seconds += pace.published.begin + pace.published.steps(steps, tokens / batches) + head;
                }
                seconds
            }
            Preset::ScheduledTopK => {
                let recipe = &settings.scheduled_top_k;
                let batches = (rows / recipe.batch_sequences as f64).ceil();
                let targets = id.targets(settings).len() as f64;
                let own = id.schedule == Schedule::OwnTrajectory;
                let (trainings, length) = if own { (targets, 2.0) } else { (1.0, 1.0) };
                let steps = targets * length * recipe.steps_per_target as f64;
                let begin = pace.top_k.begin + tokens * pace.top_k.token;
                trainings * begin + pace.top_k.steps(steps, tokens / batches)
            }
        }
    }

    /// Steps of the published recipe until its last target, or its last epoch.
    fn published_steps(&self, task: &str, densities: &[f64], batches: f64, settings: &Settings) -> f64 {
        let last = densities.iter().copied().fold(1.0, f64::min);
        let recipe = for_task(task, last).mask_training();
        let most = recipe.max_epochs.min(settings.max_epochs) as f64 * batches;
        let free = (recipe.init_mean - (last / (1.0 - last).max(1e-9)).ln()) / recipe.lr;
        let epochs = (RESISTANCE * free.max(1.0) / batches).ceil();
        (epochs * batches).min(most)
    }

    /// Exact patching, attributions and curves on the pairs of a task.
    fn edges(&self, settings: &Settings, pace: &Pace) -> f64 {
        // Half of the pairs find edges, half measure them.
        let tokens = self.request_tokens * settings.max_pairs as f64 / 2.0;
        let patched = patched_edges(Graph::new(&self.config).n_edges()) as f64;
        let layers = self.config.n_layer as f64;
        // EAP, both ends, five points of inputs, and five of each component.
        let passes = 1.0 + 2.0 + 5.0 + 5.0 * (2.0 * layers + 1.0);
        // Two orders of six methods and ten random ones, at ten sizes each.
        let circuits = 22.0 * 10.0;
        tokens * (patched * pace.patching + passes * pace.attribution + circuits * pace.circuit)
    }

    /// Masks of parameters on the pairs of all tasks.
    fn edge_masks(&self, settings: &Settings, pace: &Pace) -> f64 {
        let (tasks, targets) = (settings.pair_tasks.len() as f64, MAIN_DENSITIES.len() as f64);
        let rows = settings.max_pairs as f64 / 2.0;
        let tokens = self.request_tokens * rows;
        let recipe = &settings.scheduled_top_k;
        let batches = (rows / recipe.batch_sequences as f64).ceil();
        let trained =
            pace.top_k.begin + pace.top_k.steps(targets * recipe.steps_per_target as f64, tokens / batches);
        // A pass per score or point of a path, and two scores that keep each row's gradient for itself.
        let scores = pace.top_k.steps(6.0 + 2.0 * rows, 0.0) * 0.3 + 8.0 * tokens * pace.top_k.token;
        let edges = 6.0 * tokens * pace.attribution;
        // Ten masks per density, and bisections for two of them; each is ablated, inside and outside, and run.
        let masks = targets * (9.0 + tasks) * 2.0;
        let compared = masks * (0.3 * pace.top_k.step + tokens * pace.forward) + 60.0 * 0.2 * pace.top_k.step;
        tasks * (trained + scores + edges + compared)
    }

    /// What the comparison of editors begins with.
    fn comparison(&self, pace: &Pace) -> (String, f64) {
        ("comparison of editors".into(), pace.comparison + self.text_tokens as f64 * pace.forward)
    }

    fn n_rows(&self, task: &str, settings: &Settings) -> f64 {
        let (rows, _) = self.rows.get(task).copied().unwrap_or_default();
        rows.min(settings.max_rows) as f64
    }

    /// Tokens of the rows of a task that are used.
    fn tokens(&self, task: &str, settings: &Settings) -> f64 {
        let (rows, tokens) = self.rows.get(task).copied().unwrap_or_default();
        rows.min(settings.max_rows) as f64 * tokens
    }

    /// Tokens that a trajectory is trained on, over all of its steps.
    fn trained_tokens(&self, id: &TrajectoryId, settings: &Settings) -> f64 {
        let all = TRAINED_ON * self.tokens(&id.task, settings);
        match id.preset {
            Preset::Published => {
                let rows = (TRAINED_ON * self.n_rows(&id.task, settings)).max(1.0);
                let epochs = |run: &PublishedTrajectory| {
                    let batches = (rows / run.recipe.batch_sequences as f64).ceil();
                    self.published_steps(&id.task, &run.densities, batches, settings) / batches
                };
                settings.published_trajectories(&id.task).iter().map(|run| epochs(run) * all).sum()
            }
            Preset::ScheduledTopK => {
                let recipe = &settings.scheduled_top_k;
                let (rows, _) = self.rows.get(&id.task).copied().unwrap_or_default();
                let rows = (TRAINED_ON * rows.min(settings.max_rows) as f64).max(1.0);
                let share = (recipe.batch_sequences as f64 / rows).min(1.0);
                let targets = id.targets(settings).len() as f64;
                let length = if id.schedule == Schedule::OwnTrajectory { 2.0 } else { 1.0 };
                (targets * length * recipe.steps_per_target as f64 * share + 1.0) * all
            }
        }
    }
}

/// Share of the parameters that an edit in a scope may change.
fn written(scope: &EditScope) -> f64 {
    let density = scope.target_density;
    match scope.scope {
        Scope::Complement
        | Scope::ShuffledComplement
        | Scope::RandomWeightsComplement
        | Scope::RandomComplement
        | Scope::MatchedComplement
        | Scope::MagnitudeComplement => 1.0 - density,
        _ => density,
    }
}

/// Steps of edits of some kinds of a request.
fn steps<'a>(kinds: impl Iterator<Item = &'a EditKind>) -> f64 {
    let of = |kind: &EditKind| match kind {
        EditKind::Steps10 | EditKind::Calibrated => 10.0,
        // For every other pair, and the first ten are counted already.
        EditKind::Steps50 => 20.0,
    };
    kinds.map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    fn sizes(rows: BTreeMap<String, (usize, f64)>) -> Sizes {
        let config = Config::new(2, 2, 8, 16, 32);
        Sizes { params: 1000, config, bytes: 4, rows, request_tokens: 8.0, requests: 20, text_tokens: 500 }
    }

    /// Every unit costs something, and twice the parameters cost twice as much.
    #[test]
    fn cost_goes_with_the_parameters() {
        let settings = Settings::full(1, Preset::ScheduledTopK);
        let rows = settings.tasks.iter().map(|task| (task.clone(), (100, 12.0))).collect();
        let sizes = sizes(rows);
        let twice = Sizes { params: 2000, ..sizes.clone() };
        for unit in plan(&settings, &Config::new(2, 2, 8, 16, 32), sizes.requests) {
            let flops = sizes.flops(&unit, &settings);
            assert!(flops > 0.0, "{}", unit.name);
            assert_eq!(twice.flops(&unit, &settings), 2.0 * flops, "{}", unit.name);
        }
    }

    /// Five targets of 90 steps with all 80 rows of 12 tokens, and the pass before the first step.
    #[test]
    fn a_trajectory_costs_its_steps() {
        let settings = Settings::full(1, Preset::ScheduledTopK);
        let rows = [("hierarchy".to_owned(), (100, 12.0))].into();
        let sizes = sizes(rows);
        let units = plan(&settings, &Config::new(2, 2, 8, 16, 32), sizes.requests);
        let unit = units.iter().find(|unit| unit.name == "circuit-scheduled-top-k-hierarchy").unwrap();
        let trained = (5.0 * 90.0 + 1.0) * 80.0 * 12.0 * 6000.0;
        let measured = 2.0 * 5.0 * 20.0 * 12.0 * 2000.0;
        let flops = sizes.flops(unit, &settings);
        assert!((flops / (trained + measured) - 1.0).abs() < 1e-12, "{flops}");
    }

    /// A head that two units share is trained once in one process, and twice in two.
    #[test]
    fn shared_work_is_counted_once_in_one_process() {
        let head = || vec![("head".to_owned(), 3.0)];
        let costs = [Cost { own: 1.0, shared: head() }, Cost { own: 2.0, shared: head() }];
        assert_eq!(costs.iter().map(Cost::alone).sum::<f64>(), 9.0);
        assert_eq!(Cost::in_turn(&costs), [4.0, 2.0]);
    }

    /// 400 steps of 2 + 80 x 12 / 100 s, after 5 s and a pass over 960 tokens.
    #[test]
    fn seconds_of_a_trajectory_follow_the_pace() {
        let mut settings = Settings::full(1, Preset::ScheduledTopK);
        settings.scheduled_top_k.steps_per_target = 80;
        let sizes = sizes([("hierarchy".to_owned(), (100, 12.0))].into());
        let top_k = crate::pace::StepPace { begin: 5.0, step: 2.0, token: 0.01 };
        let pace = Pace { top_k, ..Pace::default() };
        let units = plan(&settings, &Config::new(2, 2, 8, 16, 32), sizes.requests);
        let unit = units.iter().find(|unit| unit.name == "circuit-scheduled-top-k-hierarchy").unwrap();
        let expected = 5.0 + 9.6 + 400.0 * (2.0 + 9.6) + FILES;
        let seconds = sizes.cost(unit, &settings, &pace).alone();
        assert!((seconds / expected - 1.0).abs() < 1e-12, "{seconds} for {expected}");
    }

    /// The penalty alone closes half of the gates in 2.7 / 0.1 steps, which is doubled and rounded up to whole epochs
    /// of two batches.
    #[test]
    fn the_published_recipe_is_expected_to_stop() {
        let settings = Settings::full(1, Preset::ScheduledTopK);
        let steps = |densities: &[f64]| {
            sizes(BTreeMap::new()).published_steps("hierarchy", densities, 2.0, &settings)
        };
        assert_eq!(steps(&[0.5]), 54.0);
        assert!(steps(&[0.5, 0.15]) > steps(&[0.5]));
        let short = Settings { max_epochs: 10, ..settings.clone() };
        assert_eq!(sizes(BTreeMap::new()).published_steps("hierarchy", &[0.05], 2.0, &short), 20.0);
    }

    /// Every unit of a model of GPT-2 small's size takes more than its weights, and little more than what a training of
    /// masks cannot do without: weights, masked weights, gradients, scores and two moments, 2.2 GB; the lists of a sparse
    /// circuit, 0.3 GB; and 0.5 GB where the circuit is of random weights.
    #[test]
    fn memory_grows_with_the_model() {
        let settings = Settings::quick(1, Preset::ScheduledTopK);
        let small = sizes([("hierarchy".to_owned(), (100, 12.0))].into());
        let config = Config::gpt2_small();
        let large = Sizes { params: ParamMask::n_maskable(&config), config, ..small.clone() };
        for unit in plan(&settings, &Config::new(2, 2, 8, 16, 32), small.requests) {
            let [small, large] = [&small, &large].map(|sizes| sizes.memory(&unit, &settings));
            assert!(small < 500_000_000, "{}: {small}", unit.name);
            assert!((500_000_000..3_200_000_000).contains(&large), "{}: {large}", unit.name);
        }
    }
}
