//! Raw results: one record per measurement, and the labels that records carry. All tables, figures and claims are
//! computed from records alone.
//!
//! A density is a share of the maskable (block) parameters, in (0, 1]. An NLL is a mean per target token, in nats. An
//! interval is a 95 % percentile bootstrap interval.

use locus_metrics::Interval;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// Preset: the published recipe (arXiv 2406.17241), unchanged.
pub const PUBLISHED: &str = "published";
/// Preset: hard masks trained at a scheduled density, a recipe of this project.
pub const SCHEDULED_TOP_K: &str = "scheduled-top-k";
/// The task of the hierarchy sentences, whose circuits are swept over sizes.
pub const HIERARCHY: &str = "hierarchy";
/// Task of an edit made without a task's circuit.
pub const NO_TASK: &str = "none";
/// Editor in records of the unedited model.
pub const UNEDITED: &str = "none";
/// Method of a [`MaskComparison`]: the mask that was trained, the only one that is also measured on the other tasks.
pub const TRAINED: &str = "trained mask";

/// Presets that were renamed: (former name, present name).
const RENAMED: [(&str, &str); 2] = [("study", PUBLISHED), ("faithful", SCHEDULED_TOP_K)];

/// The present name of the preset that was formerly called `name`; `None` when there was none.
pub fn renamed_preset(name: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(former, _)| *former == name).map(|(_, present)| *present)
}

/// Name of a preset in the purposes of random streams: its former name. Streams are derived from these strings, so the
/// present name would draw other noise and other resamples, and change every number.
pub fn stream_name(preset: &str) -> &str {
    RENAMED.iter().find(|(_, present)| *present == preset).map_or(preset, |(former, _)| former)
}

/// Deserialises a preset's name; a former one is refused.
fn preset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    match renamed_preset(&name) {
        Some(present) => Err(D::Error::custom(format!("preset {name} is now called {present}"))),
        None => Ok(name),
    }
}

/// Everything measured in one run of the study.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// Circuits and controls, one record per mask.
    pub extractions: Vec<Extraction>,
    /// Edits, one record per mask, scope, kind of edit and request.
    pub edits: Vec<EditOutcome>,
    /// The requests that were edited.
    #[serde(default)]
    pub requests: Vec<RequestInfo>,
    /// The calibrated edit, if it was run.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Overlaps, one record per density and unordered pair of tasks, and per further seed of one task.
    pub overlaps: Vec<Overlap>,
    /// Circuits of edges, one record per task and scoring method.
    #[serde(default)]
    pub discoveries: Vec<Discovery>,
    /// Circuits of parameters found on the same pairs, one record per task, method, size and task tested on.
    #[serde(default)]
    pub mask_comparisons: Vec<MaskComparison>,
    /// Edits by different editors, one record per editor, scope and request.
    #[serde(default)]
    pub editor_outcomes: Vec<EditorOutcome>,
    /// Causal tracing, if it was run and the model knew at least one fact.
    #[serde(default)]
    pub tracing: Option<TracingRecord>,
    /// What was asked for and could not be measured.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// Something that was asked for and could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Table that lacks it, for example `X1`.
    pub table: String,
    /// Task that was left out; empty when no single task is meant.
    pub task: String,
    /// Reason, without a full stop.
    pub why: String,
}

impl Skipped {
    /// An entry for a table; `task` is empty when no single task is meant.
    pub fn new(table: &str, task: &str, why: impl Into<String>) -> Self {
        Skipped { table: table.into(), task: task.into(), why: why.into() }
    }
}

/// Causal tracing averaged over facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracingRecord {
    /// Number of facts traced: those whose answer is the model's likeliest next token.
    pub facts: usize,
    /// Number of facts left out, because the model does not know them.
    pub unknown: usize,
    /// Number of corrupted samples per fact.
    pub samples: usize,
    /// Standard deviation of the noise on the entries of the subject's token embeddings.
    pub noise: f64,
    /// Number of layers restored together, for MLP and attention.
    pub window: usize,
    /// Mean clean probability of the answer.
    pub clean: f64,
    /// Mean corrupted probability of the answer.
    pub corrupted: f64,
    /// Mean indirect effects.
    pub effects: Vec<TracedEffect>,
}

/// Mean indirect effects of one kind of state at one position in the prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedEffect {
    /// Kind of state that was restored.
    pub what: String,
    /// Position of the tokens relative to the subject.
    pub place: String,
    /// Number of facts that have such tokens.
    pub facts: usize,
    /// Mean indirect effect by layer, as a difference of probabilities, with its interval over the facts; zero where
    /// there is no fact.
    pub by_layer: Vec<Interval>,
}

/// One request written by one editor, measured on all its prompts. NLLs are `[new target, true target]`, after the
/// edit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditorOutcome {
    /// Editor, or [`UNEDITED`].
    pub editor: String,
    /// Scope in which the editor could change parameters.
    pub scope: Scope,
    /// Target density of the circuit that defines the scope; 1 for the whole model.
    pub target_density: f64,
    /// Number of the request.
    pub case_id: u64,
    /// Whether the editor refused; the numbers are then those of the unedited model.
    pub refused: bool,
    /// NLLs after the prompt.
    pub rewrite: [f64; 2],
    /// NLLs after each paraphrase.
    pub paraphrase: Vec<[f64; 2]>,
    /// NLLs after each prompt about another subject with the same true target.
    pub neighborhood: Vec<[f64; 2]>,
    /// Increase of the NLL of neutral text by the edit, in nats per token.
    pub drift: f64,
}

/// A circuit of parameters found by one method, measured on held-out pairs of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskComparison {
    /// Task the circuit was found on.
    pub task: String,
    /// Method that found the circuit: [`TRAINED`], or the name of a score or control.
    pub method: String,
    /// Task of the pairs it was measured on.
    pub tested_on: String,
    /// Density asked for, in (0, 1].
    pub target_density: f64,
    /// Density of the circuit; 0 for a circuit without parameters.
    pub density: f64,
    /// Number of pairs measured on, over which all intervals are taken.
    pub held_out_pairs: usize,
    /// Share of pairs on which the full model prefers the correct answer.
    pub accuracy_full: Interval,
    /// Share of pairs on which the circuit alone prefers the correct answer.
    pub accuracy: Interval,
    /// Share of pairs on which the circuit's complement alone prefers the correct answer.
    pub accuracy_complement: Interval,
    /// `full - empty` of the mean logit difference, empty being the model without blocks.
    pub span: Interval,
    /// `(circuit - empty) / (full - empty)` of the mean logit difference; `None` for a circuit without parameters and
    /// where the interval of `span` contains 0.
    pub faithfulness: Option<Interval>,
}

/// A method that scores edges, measured on held-out pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// Task the pairs were made from.
    pub task: String,
    /// Method that scored the edges.
    pub method: String,
    /// Number of pairs that edges were scored on.
    pub pairs: usize,
    /// Number of pairs that the circuits were measured on.
    pub held_out_pairs: usize,
    /// Number of edges of the graph.
    pub edges: usize,
    /// `full - empty` of the mean metric, empty being the model with every edge ablated, with its interval over the
    /// held-out pairs. Where it contains 0, faithfulness is undefined: the curves are empty and the areas `None`.
    pub span: Interval,
    /// Faithfulness at every size of the ranking by absolute score, sizes ascending.
    pub curve: Vec<CurvePoint>,
    /// Faithfulness at every size of the ranking by score, in which edges that hurt come last.
    pub curve_signed: Vec<CurvePoint>,
    /// Area under `curve_signed` over the share of edges (MIB's CPR). The intervals of the areas are over held-out pairs;
    /// for random rankings, over the rankings.
    pub cpr: Option<Interval>,
    /// Area between `curve` and 1 over the share of edges (MIB's CMD).
    pub cmd: Option<Interval>,
    /// Area between `curve` and 1 over the logarithm of the share, divided by the length of that axis.
    pub cmd_log: Option<Interval>,
    /// Number of edges that were patched one by one: all, or a random sample in a large graph, where exact patching
    /// has no record.
    #[serde(default)]
    pub patched: usize,
    /// Pearson's correlation of the scores of the patched edges with their exact effects, with its interval over edges;
    /// for random rankings, the mean and the interval over the rankings. `None` for exact patching, and where all
    /// scores are equal.
    #[serde(default)]
    pub correlation: Option<Interval>,
}

/// One size of a faithfulness curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Share of the edges that was asked for, before pruning.
    pub share: f64,
    /// Normalised faithfulness of the circuit: 0 for no edges, 1 for the full model.
    pub faithfulness: f64,
}

/// One mask, measured on the held-out rows of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extraction {
    /// [`PUBLISHED`] or [`SCHEDULED_TOP_K`].
    #[serde(deserialize_with = "preset")]
    pub preset: String,
    /// Task name, for example `hierarchy` or `blimp_dna1`.
    pub task: String,
    /// Density asked for, in (0, 1].
    pub target_density: f64,
    /// Kind of mask: [`Scope::Circuit`], or a control.
    pub scope: Scope,
    /// Number of the mask among those of its kind: the seed of a trained mask, the draw of a random one; counted from
    /// 0.
    pub draw: usize,
    /// Training schedule of the mask.
    pub schedule: Schedule,
    /// Density of the mask.
    pub density: f64,
    /// Whether the target was reached within the preset's epochs.
    pub reached: bool,
    /// Epochs since the start of the trajectory.
    pub epochs: usize,
    /// Optimiser steps since the start of the trajectory.
    pub steps: usize,
    /// Number of held-out rows that the shares below are taken over.
    pub held_out_rows: usize,
    /// Accuracy of the full model against the labels.
    pub accuracy_full: f64,
    /// Accuracy of a model of random weights with a head trained in the same way: what the words alone tell a linear
    /// head. `None` for masks of such a model, and in records that are older than the measure.
    #[serde(default)]
    pub accuracy_random_weights: Option<f64>,
    /// Accuracy of the mask alone.
    pub accuracy: f64,
    /// Accuracy of the complement alone.
    pub accuracy_complement: f64,
    /// Share of rows on which the mask alone and the full model choose the same class.
    pub agreement: f64,
    /// Balanced agreement of the mask with the full model: the mean of the agreement within each of the full model's
    /// classes, so that chance is 0.5 for two classes whatever their sizes; `None` where the full model chooses one
    /// class only.
    pub balanced_agreement: Option<f64>,
    /// Share of rows on which the complement and the full model choose the same class.
    pub agreement_complement: f64,
    /// NLL of neutral text with the mask alone, in nats per token; `None` without such text.
    pub neutral_nll: Option<f64>,
    /// Mean KL divergence from the full model's next-token distribution to that of the mask alone, in nats per token of
    /// neutral text; `None` without such text.
    pub neutral_kl: Option<f64>,
    /// Parameters kept, per tensor.
    pub composition: Vec<TensorCount>,
    /// SHA-256 of the mask.
    pub mask_sha256: String,
    /// SHA-256 of the mask that is edited, where the recipe draws it anew.
    #[serde(default)]
    pub edited_sha256: Option<String>,
}

/// Schedule on which a mask was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// One trajectory passes through all densities, so that small masks are trained for longer than large ones.
    Sweep,
    /// A trajectory of its own for each density, all of equal length.
    OwnTrajectory,
    /// One trajectory on rows that were split one by one instead of in groups (the published split).
    SplitByRows,
}

/// Number of parameters of one tensor that a circuit keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorCount {
    /// Layer, counted from 0.
    pub layer: usize,
    /// Tensor name within the block: `ln_1.weight`, `attn.c_attn.bias`, `mlp.c_proj.weight`, ...
    pub tensor: String,
    /// Number of the tensor's parameters in the circuit.
    pub kept: usize,
    /// Number of parameters of the tensor.
    pub size: usize,
}

/// Scope of an edit: which block parameters are present and which of these may change. The kinds of mask have the names
/// of the scopes that they make. Unless something else is said, what is absent is zero and what is present may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The intact model.
    Full,
    /// The intact model with its blocks frozen: embeddings and final LayerNorm alone may change.
    FrozenFull,
    /// The circuit alone.
    Circuit,
    /// Every maskable parameter outside the circuit.
    Complement,
    /// The circuit alone with its blocks frozen: embeddings and final LayerNorm alone may change.
    FrozenCircuit,
    /// The intact model, of whose blocks only the circuit may change.
    CircuitInPlace,
    /// A uniformly random mask of the circuit's density.
    Random,
    /// Every maskable parameter outside a uniformly random mask.
    RandomComplement,
    /// A matched mask: the circuit's membership permuted within each tensor and class of |w|, so that the mask keeps as
    /// many parameters of every tensor and size as the circuit, but knows no task.
    Matched,
    /// Every maskable parameter outside a matched mask.
    MatchedComplement,
    /// The intact model, of whose blocks only a matched mask may change.
    MatchedInPlace,
    /// A mask trained by the circuit's recipe on shuffled labels.
    Shuffled,
    /// Every maskable parameter outside a mask trained on shuffled labels.
    ShuffledComplement,
    /// The largest weights by magnitude, as many as the circuit has.
    Magnitude,
    /// Every maskable parameter outside the largest weights.
    MagnitudeComplement,
    /// The circuit that the recipe finds in a model of random weights.
    RandomWeights,
    /// The complement of the circuit that the recipe finds in a model of random weights.
    RandomWeightsComplement,
    /// The intact model of random weights.
    RandomWeightsFull,
}

impl Scope {
    /// The scope that has the parameters which this one lacks; `None` for scopes that are no mask.
    pub fn complement(self) -> Option<Scope> {
        Some(match self {
            Scope::Circuit => Scope::Complement,
            Scope::Random => Scope::RandomComplement,
            Scope::Matched => Scope::MatchedComplement,
            Scope::Shuffled => Scope::ShuffledComplement,
            Scope::Magnitude => Scope::MagnitudeComplement,
            Scope::RandomWeights => Scope::RandomWeightsComplement,
            _ => return None,
        })
    }
}

/// Step size and length of the fine-tuning edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EditKind {
    /// The published edit stopped after 10 steps, as in two of the 17 published runs.
    #[serde(rename = "10 steps")]
    Steps10,
    /// The published edit with 50 steps, as in 15 of the 17 published runs.
    #[serde(rename = "50 steps")]
    Steps50,
    /// 10 steps with learning rate and clamp scaled by one factor, the smallest with which the full model takes the
    /// edits (see [`Calibration`]).
    #[serde(rename = "calibrated")]
    Calibrated,
}

impl EditKind {
    /// Every kind, in the order of the tables.
    pub const ALL: [EditKind; 3] = [EditKind::Steps10, EditKind::Steps50, EditKind::Calibrated];

    /// The name in tables and records.
    pub fn label(self) -> &'static str {
        match self {
            EditKind::Steps10 => "10 steps",
            EditKind::Steps50 => "50 steps",
            EditKind::Calibrated => "calibrated",
        }
    }
}

/// How the calibrated edit was found: the published learning rate and clamp are multiplied by the smallest power of two
/// with which the full model prefers the new target for the wanted share of some requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Factor of learning rate and clamp.
    pub factor: f64,
    /// Share of requests whose new target is to win in the full model.
    pub wanted: f64,
    /// Share of the calibration's requests whose new target wins in the full model with this factor.
    pub success: f64,
    /// Increase of the NLL of neutral text by these edits, in nats per token; `None` without such text.
    pub drift: Option<f64>,
    /// Number of requests that the factor was chosen on.
    pub requests: usize,
}

/// One request of the study.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestInfo {
    /// Number of the request.
    pub case_id: u64,
    /// Level of the request.
    pub level: Level,
    /// Number of the connected component of requests that share a subject or true target (articles aside); requests of
    /// different components have no entity in common.
    pub component: usize,
    /// The request in words; `None` in records that are older than the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wording: Option<Wording>,
}

/// A request in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wording {
    /// Prompt that is edited, with the subject in it.
    pub prompt: String,
    /// Target that the edit writes.
    pub target_new: String,
    /// Target that the model should prefer before the edit.
    pub target_true: String,
}

/// Level of a request in the two-level hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Even cases: "A British Shorthair is a kind of" cat.
    Hyponym,
    /// Odd cases: "A cat is a kind of" animal.
    Hypernym,
}

/// One request edited in one scope, measured after its prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditOutcome {
    /// Preset of the mask; empty for the full model.
    #[serde(deserialize_with = "preset")]
    pub preset: String,
    /// Task whose circuit was used, directly or for a control; [`NO_TASK`] for the full model and random masks.
    pub task: String,
    /// Target density of the mask; 1 for the full model.
    pub target_density: f64,
    /// Scope of the edit.
    pub scope: Scope,
    /// Number of the mask among those of its kind, as in [`Extraction`].
    pub draw: usize,
    /// Step size and length of the edit.
    pub edit: EditKind,
    /// Number of the request.
    pub case_id: u64,
    /// Level of the request.
    pub level: Level,
    /// NLL of the new target before the edit.
    pub pre_new: f64,
    /// NLL of the true target before the edit.
    pub pre_true: f64,
    /// Share of other requests' true targets (of the same level) that are less probable than the true one before the
    /// edit; ties count half, so that chance is 0.5. `None` when there are no others.
    pub discrimination: Option<f64>,
    /// NLL of the new target after the edit.
    pub post_new: f64,
    /// NLL of the true target after the edit.
    pub post_true: f64,
    /// Optimiser steps taken.
    pub steps: usize,
    /// Steps after which the new target was first seen to win, of those at which that was measured: 1, 2, 5, 10, 20 and
    /// 50. `None` when it never was.
    pub steps_to_success: Option<usize>,
    /// Share of paraphrases after which the new target wins after the edit; `None` without paraphrases.
    pub paraphrase: Option<f64>,
    /// Share of prompts about other subjects after which the true target wins after the edit; `None` without them.
    pub neighbourhood: Option<f64>,
    /// Increase of the NLL of neutral text by the edit, in nats per token; `None` without such text, and for requests on
    /// which it was not measured.
    pub drift: Option<f64>,
}

/// Overlap of the circuits of two tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Preset of both masks.
    #[serde(deserialize_with = "preset")]
    pub preset: String,
    /// Target density of both masks.
    pub target_density: f64,
    /// First task.
    pub task_a: String,
    /// Second task; equal to the first for two masks of one task that were trained with different seeds.
    pub task_b: String,
    /// Seed of the second mask, counted from 0; the first mask has seed 0.
    pub draw_b: usize,
    /// Number of parameters in both circuits.
    pub intersection: usize,
    /// Number of parameters in the first circuit.
    pub size_a: usize,
    /// Number of parameters in the second circuit.
    pub size_b: usize,
    /// Number of maskable parameters of the model.
    pub population: usize,
    /// Expected number of parameters shared by independent masks with the same density in every tensor.
    pub expected_intersection_stratified: f64,
    /// Expected number of parameters shared by independent masks with the same density in every tensor and class of |w|.
    pub expected_intersection_matched: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_presets_are_refused_by_a_line_with_the_present_name() {
        let json = |preset: &str| {
            format!(
                r#"{{"preset":"{preset}","target_density":0.5,"task_a":"a","task_b":"b","intersection":1,"size_a":2,
                    "draw_b":0,
                    "size_b":3,"population":4,"expected_intersection_stratified":0.5,
                    "expected_intersection_matched":0.5}}"#
            )
        };
        let read = |preset: &str| serde_json::from_str::<Overlap>(&json(preset));
        for (former, present) in RENAMED {
            assert_eq!(read(present).unwrap().preset, present);
            let why = read(former).unwrap_err().to_string();
            assert!(why.starts_with(&format!("preset {former} is now called {present}")), "{why}");
        }
    }

    #[test]
    fn streams_keep_the_former_names() {
        assert_eq!(
            [PUBLISHED, SCHEDULED_TOP_K, HIERARCHY].map(stream_name),
            ["study", "faithful", "hierarchy"]
        );
    }
}
