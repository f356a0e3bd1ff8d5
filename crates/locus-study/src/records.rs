//! Raw results: one record per measurement. Every table, figure and claim is computed from these and from nothing else.

use serde::{Deserialize, Serialize};

/// Everything measured in one run of the study.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// Circuits found, one record per preset, task and target density.
    pub extractions: Vec<Extraction>,
    /// Edits, one record per mask, scope and request.
    pub edits: Vec<EditOutcome>,
    /// Overlaps, one record per density and unordered pair of tasks.
    pub overlaps: Vec<Overlap>,
    /// Circuits of edges, one record per task and method.
    #[serde(default)]
    pub discoveries: Vec<Discovery>,
    /// Circuits of parameters found on the same pairs, one record per task, method, size and task tested on.
    #[serde(default)]
    pub mask_comparisons: Vec<MaskComparison>,
    /// Edits by different editors, one record per editor, scope and request.
    #[serde(default)]
    pub editor_outcomes: Vec<EditorOutcome>,
    /// Causal tracing, where it was run and the model knew a fact.
    #[serde(default)]
    pub tracing: Option<TracingRecord>,
}

/// Causal tracing averaged over facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracingRecord {
    /// Facts traced: those whose answer is the model's likeliest next token.
    pub facts: usize,
    /// Facts left out.
    pub unknown: usize,
    /// Corrupted samples per fact.
    pub samples: usize,
    /// Standard deviation of the noise.
    pub noise: f64,
    /// Layers restored together, for MLP and attention.
    pub window: usize,
    /// Mean clean probability of the answer.
    pub clean: f64,
    /// Mean corrupted probability.
    pub corrupted: f64,
    /// Mean indirect effects.
    pub effects: Vec<TracedEffect>,
}

/// Mean indirect effects of one kind of state at one place in the prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedEffect {
    /// What was restored.
    pub what: String,
    /// Which tokens.
    pub place: String,
    /// Facts that have such tokens.
    pub facts: usize,
    /// Effect by layer.
    pub by_layer: Vec<f64>,
}

/// One request written by one editor, measured on all its prompts. NLLs are `[new, true]` target, means per token, nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditorOutcome {
    /// Editor, or `none` for the unedited model.
    pub editor: String,
    /// Where it could change parameters.
    pub scope: Scope,
    /// Target density of the circuit behind the scope; 1 for the whole model.
    pub target_density: f64,
    /// Number of the request.
    pub case_id: u64,
    /// The editor refused: the numbers are those of the unedited model.
    pub refused: bool,
    /// After the prompt.
    pub rewrite: [f64; 2],
    /// After each paraphrase.
    pub paraphrase: Vec<[f64; 2]>,
    /// After each prompt about another subject with the same true target.
    pub neighborhood: Vec<[f64; 2]>,
    /// Change of the NLL per token of neutral text.
    pub drift: f64,
}

/// A way to find a circuit of parameters, measured on pairs it has not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskComparison {
    /// Task the circuit was found on.
    pub task: String,
    /// How it was found.
    pub method: String,
    /// Task of the pairs it was measured on.
    pub tested_on: String,
    /// Density asked for, in (0, 1].
    pub target_density: f64,
    /// Share of block parameters in the circuit.
    pub density: f64,
    /// Pairs behind every share below.
    pub held_out_pairs: usize,
    /// Share of pairs on which the full model prefers the good answer.
    pub accuracy_full: f64,
    /// The same for the circuit alone.
    pub accuracy: f64,
    /// The same for its complement alone.
    pub accuracy_complement: f64,
    /// `(circuit - empty) / (full - empty)` of the mean logit difference, empty being the model without blocks; `None`
    /// when those two do not differ.
    pub faithfulness: Option<f64>,
}

/// A way to score edges, measured on pairs it has not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// Task the pairs were made from.
    pub task: String,
    /// How edges were scored.
    pub method: String,
    /// Pairs that edges were scored on.
    pub pairs: usize,
    /// Pairs that the circuits were measured on.
    pub held_out_pairs: usize,
    /// Edges of the graph.
    pub edges: usize,
    /// Faithfulness at every size, sizes ascending.
    pub curve: Vec<CurvePoint>,
    /// Area under the faithfulness.
    pub cpr: f64,
    /// Area between faithfulness and 1.
    pub cmd: f64,
    /// The same over the logarithm of the share, per unit of that axis.
    pub cmd_log: f64,
}

/// One size of a faithfulness curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Share of the edges asked for.
    pub share: f64,
    /// Normalised faithfulness of the circuit.
    pub faithfulness: f64,
}

/// One circuit, measured on the held-out rows of its task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extraction {
    /// `study` or `faithful`.
    pub preset: String,
    /// Task name, for example `hierarchy` or `blimp_dna1`.
    pub task: String,
    /// Density asked for, in (0, 1].
    pub target_density: f64,
    /// Share of maskable parameters in the circuit.
    pub density: f64,
    /// Whether the target was reached within the preset's epochs.
    pub reached: bool,
    /// Epochs and optimiser steps taken so far.
    pub epochs: usize,
    /// See `epochs`.
    pub steps: usize,
    /// Number of held-out rows behind every share below.
    pub held_out_rows: usize,
    /// Accuracy of the full model against the labels.
    pub accuracy_full: f64,
    /// Accuracy of the circuit alone.
    pub accuracy_circuit: f64,
    /// Accuracy of the complement alone.
    pub accuracy_complement: f64,
    /// Accuracy of a random mask with the same density (mean over draws).
    pub accuracy_random: f64,
    /// Share of rows on which the circuit and the full model choose the same class.
    pub agreement: f64,
    /// The same for the complement.
    pub agreement_complement: f64,
    /// The same for the random masks (mean over draws).
    pub agreement_random: f64,
    /// Balanced agreement (mean over the full model's two classes) of the random masks: 0.5 is chance whatever the class shares.
    pub balanced_agreement_random: f64,
    /// Accuracy on true labels of a mask trained with the same recipe on shuffled labels, where it was run.
    pub accuracy_shuffled: Option<f64>,
    /// Parameters kept, per tensor.
    pub composition: Vec<TensorCount>,
    /// SHA-256 of the mask.
    pub mask_sha256: String,
}

/// How much of one tensor a circuit keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorCount {
    /// Block number, 0-based.
    pub layer: usize,
    /// Tensor name within the block: `ln_1.weight`, `attn.c_attn.bias`, `mlp.c_proj.weight`, ...
    pub tensor: String,
    /// Parameters in the circuit.
    pub kept: usize,
    /// Parameters in the tensor.
    pub size: usize,
}

/// Where an edit was allowed to change parameters, and which of them were present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The circuit alone.
    Circuit,
    /// Every maskable parameter outside the circuit.
    Complement,
    /// The intact model.
    Full,
    /// A random mask with the circuit's density.
    Random,
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

/// One request edited in one scope. NLLs are means per target token, in nats, after the prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditOutcome {
    /// Preset of the mask; empty for scope `full`.
    pub preset: String,
    /// Task whose circuit was used; `none` for the scopes `full` and `random`.
    pub task: String,
    /// Target density of the mask; 1 for scope `full`.
    pub target_density: f64,
    /// Scope of the edit.
    pub scope: Scope,
    /// Number of the request.
    pub case_id: u64,
    /// Its level.
    pub level: Level,
    /// NLL of the new target before the edit.
    pub pre_new: f64,
    /// NLL of the true target before the edit.
    pub pre_true: f64,
    /// NLL of the new target after the edit.
    pub post_new: f64,
    /// NLL of the true target after the edit.
    pub post_true: f64,
    /// Optimiser steps taken.
    pub steps: usize,
}

/// Overlap of the circuits of two tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Preset of both masks.
    pub preset: String,
    /// Target density of both masks.
    pub target_density: f64,
    /// First task.
    pub task_a: String,
    /// Second task.
    pub task_b: String,
    /// Parameters in both circuits.
    pub intersection: usize,
    /// Parameters in the first circuit.
    pub size_a: usize,
    /// Parameters in the second circuit.
    pub size_b: usize,
    /// Maskable parameters.
    pub population: usize,
    /// Expected intersection of independent masks with the same densities tensor by tensor.
    pub expected_intersection_stratified: f64,
}
