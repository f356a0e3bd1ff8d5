//! What is measured of a circuit, as written to files.

use locus_metrics::Interval;
use serde::Serialize;

/// A circuit measured on pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitEvaluation {
    /// Number of pairs.
    pub pairs: usize,
    /// Mean metric of the full model.
    pub clean: Interval,
    /// Mean metric with everything ablated.
    pub empty: Interval,
    /// `clean - empty`, the denominator of faithfulness.
    pub span: Interval,
    /// Share of the pairs on which the full model's metric is above 0.
    pub preferred: f64,
    /// Why faithfulness is undefined; `None` where it is defined.
    pub undefined: Option<String>,
    /// Circuits of all sizes, from small to large; empty without a ranking.
    pub curve: Vec<SizeMeasures>,
    /// Areas under the curve; `None` without a ranking, or where faithfulness is undefined.
    pub areas: Option<Areas>,
    /// Areas of random rankings, means with the 2.5 % and 97.5 % quantiles over rankings.
    pub random_areas: Option<Areas>,
    /// The circuit; `None` when only a ranking was given.
    pub circuit: Option<CircuitMeasures>,
}

/// The circuits of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SizeMeasures {
    /// Share of the edges that were selected.
    pub share: f64,
    /// Number of edges selected.
    pub selected: usize,
    /// Number of edges left after pruning, in the order of absolute scores.
    pub edges_absolute: usize,
    /// Number of edges left after pruning, in the order of scores.
    pub edges_signed: usize,
    /// Faithfulness of the circuit of the largest absolute scores.
    pub absolute: Option<Interval>,
    /// Faithfulness of the circuit of the largest scores.
    pub signed: Option<Interval>,
    /// Faithfulness of all edges outside the circuit of the largest absolute scores.
    pub complement: Option<Interval>,
    /// Mean faithfulness of circuits of random rankings, with the quantiles over rankings.
    pub random: Option<Interval>,
}

/// Areas under a curve of faithfulness.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Areas {
    /// MIB's CPR, of the ranking by score.
    pub cpr: Interval,
    /// MIB's CMD, of the ranking by absolute score.
    pub cmd: Interval,
    /// CMD over the logarithm of the share.
    pub cmd_log: Interval,
}

/// One circuit with its controls.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitMeasures {
    /// Number of edges, or of parameters of a mask.
    pub size: usize,
    /// Share of all edges or block parameters.
    pub share: f64,
    /// Mean metric.
    pub metric: f64,
    /// Faithfulness.
    pub faithfulness: Option<Interval>,
    /// Faithfulness of everything outside.
    pub complement: Option<Interval>,
    /// Mean faithfulness of random circuits of the size, with the quantiles over draws.
    pub random: Option<Interval>,
    /// Likewise of circuits with as many edges of each kind, or as many parameters in each tensor.
    pub matched: Option<Interval>,
    /// Mean incompleteness over knock-outs, with the quantiles over knock-outs; `None` for masks.
    pub incompleteness: Option<Interval>,
    /// Edges with the fall of faithfulness when each alone is removed, largest first; empty for masks.
    pub removals: Vec<Removal>,
}

/// What an edge contributes to a circuit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Removal {
    /// Name of the edge.
    pub edge: String,
    /// Fall of faithfulness when it is removed.
    pub drop: f64,
}
