//! What circuits are made of: T6, its figure, and C5.
//!
//! "60 % LayerNorm" can mean several things, and not a share of the circuit: LayerNorms hold far fewer than 5
//! % of the parameters. All readings are computed: D0-D3 in [`Measures`].

use locus_metrics::Interval;

use super::{
    TableOptions,
    select::{Density, task_order},
};
use crate::records::{Extraction, Records, TensorCount};

/// Kinds of module a block is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    LayerNorm,
    Attention,
    Mlp,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::LayerNorm, Self::Attention, Self::Mlp];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::LayerNorm => "LayerNorm",
            Self::Attention => "attention",
            Self::Mlp => "MLP",
        }
    }

    fn of(tensor: &str) -> Option<Self> {
        match tensor.split('.').next()? {
            "ln_1" | "ln_2" => Some(Self::LayerNorm),
            "attn" => Some(Self::Attention),
            "mlp" => Some(Self::Mlp),
            _ => None,
        }
    }
}

/// Which tensors of a module are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    Weights,
    Biases,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::All, Self::Weights, Self::Biases];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Weights => "weights",
            Self::Biases => "biases",
        }
    }

    fn holds(self, tensor: &str) -> bool {
        match self {
            Self::All => true,
            Self::Weights => tensor.ends_with(".weight"),
            Self::Biases => tensor.ends_with(".bias"),
        }
    }
}

/// One group of tensors of one circuit. Undefined where the group or the circuit is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measures {
    /// D0: share of the group's parameters that the circuit keeps.
    pub(crate) density: Option<f64>,
    /// Share of the circuit's parameters that lie in the group.
    pub(crate) share: Option<f64>,
    /// Density over the circuit's global density.
    pub(crate) lift: Option<f64>,
    /// D1: density over the sum of the three kinds' densities.
    pub(crate) density_share: Option<f64>,
    /// D2: share of the k densest tensors that belong to the group, k being the number of LayerNorm tensors.
    pub(crate) top_share: Option<f64>,
    /// D3: share of the group's tensors that are denser than the circuit as a whole.
    pub(crate) above_global: Option<f64>,
}

/// The tensors of one circuit, those of unknown kind left out.
pub(crate) struct Composition<'a> {
    tensors: Vec<(Kind, &'a TensorCount)>,
}

impl<'a> Composition<'a> {
    /// The composition of a circuit, or of one of its layers.
    pub(crate) fn new(circuit: &'a Extraction, layer: Option<usize>) -> Self {
        let fits = |t: &&TensorCount| t.size > 0 && layer.is_none_or(|layer| t.layer == layer);
        let with_kind = |t: &'a TensorCount| Some((Kind::of(&t.tensor)?, t));
        Self { tensors: circuit.composition.iter().filter(fits).filter_map(with_kind).collect() }
    }

    /// Share kept of the parameters of a kind.
    pub(crate) fn density(&self, kind: Kind, part: Part) -> Option<f64> {
        let (kept, size) = self.totals(|k, t| k == kind && part.holds(&t.tensor));
        ratio(kept, size)
    }

    /// Share of the circuit's parameters, here and in the other layers (`circuit_size` in all), that lie in
    /// the group.
    pub(crate) fn share_of(&self, kind: Kind, part: Part, circuit_size: f64) -> Option<f64> {
        ratio(self.totals(|k, t| k == kind && part.holds(&t.tensor)).0, circuit_size)
    }

    /// Every measure of a kind; D1 and D2 compare it with the other kinds' tensors of the same part.
    pub(crate) fn measures(&self, kind: Kind, part: Part) -> Measures {
        let (circuit, population) = self.totals(|_, _| true);
        let global = ratio(circuit, population);
        let density = self.density(kind, part);
        let densities: f64 = Kind::ALL.iter().filter_map(|&k| self.density(k, part)).sum();
        let own = |(k, t): &&(Kind, &TensorCount)| *k == kind && part.holds(&t.tensor);
        let tensors = self.tensors.iter().filter(own);
        let above = tensors.clone().filter(|(_, t)| Some(tensor_density(t)) > global).count();
        Measures {
            density,
            share: self.share_of(kind, part, circuit),
            lift: density.zip(global).and_then(|(d, g)| ratio(d, g)),
            density_share: density.and_then(|d| ratio(d, densities)),
            top_share: self.top_share(kind, part),
            above_global: ratio(above as f64, tensors.count() as f64),
        }
    }

    /// D2. Tensors tied at the threshold share the places that are left, so that the order of names decides
    /// nothing.
    fn top_share(&self, kind: Kind, part: Part) -> Option<f64> {
        let of_part: Vec<(Kind, f64)> = self
            .tensors
            .iter()
            .filter(|(_, t)| part.holds(&t.tensor))
            .map(|(k, t)| (*k, tensor_density(t)))
            .collect();
        let places = of_part.iter().filter(|(k, _)| *k == Kind::LayerNorm).count();
        let mut descending: Vec<f64> = of_part.iter().map(|(_, density)| *density).collect();
        descending.sort_by(|a, b| b.total_cmp(a));
        let threshold = *descending.get(places.checked_sub(1)?)?;
        let count = |keep: &dyn Fn(&(Kind, f64)) -> bool| of_part.iter().filter(|&t| keep(t)).count() as f64;
        let left = places as f64 - count(&|t| t.1 > threshold);
        let tied_weight = left / count(&|t| t.1 == threshold);
        let own = count(&|t| t.0 == kind && t.1 > threshold)
            + tied_weight * count(&|t| t.0 == kind && t.1 == threshold);
        Some(own / places as f64)
    }

    /// Parameters kept in the circuit, and in all, of the tensors that `member` picks.
    pub(crate) fn totals(&self, member: impl Fn(Kind, &TensorCount) -> bool) -> (f64, f64) {
        let picked = self.tensors.iter().filter(|(k, t)| member(*k, t));
        picked.fold((0.0, 0.0), |(kept, size), (_, t)| (kept + t.kept as f64, size + t.size as f64))
    }
}

fn tensor_density(t: &TensorCount) -> f64 {
    t.kept as f64 / t.size as f64
}

fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}

/// The circuits of one preset and size, by task. Circuits without a composition are left out.
pub(crate) fn circuits<'a>(records: &'a Records, preset: &str, size: Density) -> Vec<&'a Extraction> {
    let fits = |e: &&Extraction| {
        e.preset == preset
            && Density::of(e.target_density) == size
            && !Composition::new(e, None).tensors.is_empty()
    };
    let mut circuits: Vec<&Extraction> = records.extractions.iter().filter(fits).collect();
    circuits.sort_by_key(|e| task_order(&e.task));
    circuits
}

/// Mean of a measure over circuits of different tasks, with its interval over tasks; tasks without it are
/// left out.
pub(crate) fn mean_over_tasks(
    circuits: &[&Extraction],
    measure: impl Fn(&Extraction) -> Option<f64>,
    options: &TableOptions,
    purpose: &str,
) -> Option<Interval> {
    let (tasks, values): (Vec<&str>, Vec<f64>) =
        circuits.iter().filter_map(|e| Some((e.task.as_str(), measure(e)?))).unzip();
    options.mean(&values, &tasks, purpose)
}
