//! A circuit measured on pairs: the curve of its ranking over all sizes, its areas, and the circuit itself beside its
//! complement and random ones.
//!
//! With `m(C)` the mean metric over pairs with all edges outside `C` ablated, `G` all edges,
//!
//! ```text
//! F(C)  = (m(C) - m({})) / (m(G) - m({}))
//! CPR   = integral of F(top k by score) dk,  CMD = integral of |1 - F(top k by |score|)| dk     k in MIB's sizes
//! incompleteness(K) = |F(C \ K) - F(G \ K)|                      for random halves K of C
//! drop(e)           = F(C) - F(C \ {e})                          for edges e of C
//! ```
//!
//! Sources: Mueller et al. 2025 (MIB, arXiv 2504.13151) for sizes, areas and orders; Wang et al. 2022 (arXiv 2211.00593,
//! section 4) for completeness and minimality, here with random knock-outs where they also search for the worst.

use anyhow::Result;
use locus_circuits::edges::{
    Ablation, CurveAreas, Edge, EdgeScores, EdgeSet, Faithfulness, FaithfulnessCurve, Graph, MIB_FRACTIONS,
    Metric, Pair, RankBy, matched_edges, random_edges, run_circuit, run_clean,
};
use locus_data::seed::{shuffle, stream};
use locus_gpt2::{Gpt2, ParamMask, Scalar};
use locus_metrics::bootstrap::{RESAMPLES, bootstrap_mean};
use locus_metrics::{Interval, Stream};

use crate::circuit_records::{Areas, CircuitEvaluation, CircuitMeasures, Removal, SizeMeasures};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationSettings {
    /// Number of random rankings, random circuits, matched circuits and knock-outs.
    pub draws: usize,
    /// Largest number of edges that are removed one by one.
    pub removals: usize,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// A model, pairs, and what is measured on them.
#[derive(Clone, Copy)]
pub struct Bench<'a, F> {
    /// The model.
    pub model: &'a Gpt2<F>,
    /// The pairs.
    pub pairs: &'a [Pair],
    /// The metric.
    pub metric: &'a dyn Metric<F>,
    /// What ablated edges carry.
    pub ablation: &'a dyn Ablation<F>,
}

/// Measures a ranking of edges, a circuit of edges, or both. `progress` is called with the number of runs done and
/// planned, after each.
///
/// # Errors
/// When a pair does not fit the model or there is none.
///
/// # Panics
/// When ranking or circuit belong to a model of another shape.
pub fn evaluate_edges<F: Scalar>(
    bench: Bench<F>,
    ranking: Option<&EdgeScores>,
    circuit: Option<&EdgeSet>,
    settings: EvaluationSettings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<CircuitEvaluation> {
    let Bench { model, pairs, metric, ablation } = bench;
    let EvaluationSettings { draws, removals, seed } = settings;
    let mut plan = Plan::default();
    let ranked = ranking.map(|scores| PlannedCurve::new(scores, draws, seed, &mut plan));
    let single = circuit.map(|circuit| PlannedCircuit::new(circuit, draws, removals, seed, &mut plan));
    let graph = Graph::new(model.config());
    let empty = plan.add(EdgeSet::empty(graph));

    let clean = run_clean(model, pairs, metric)?;
    let mut values = Vec::with_capacity(plan.circuits.len());
    for circuit in &plan.circuits {
        values.push(run_circuit(model, pairs, metric, circuit, ablation)?);
        progress(values.len(), plan.circuits.len());
    }
    let measured = Measured::new(clean, values[empty].clone(), metric.higher_is_better(), seed);
    let (curve, areas, random_areas) = match &ranked {
        Some(planned) => planned.measures(&values, &measured),
        None => (Vec::new(), None, None),
    };
    let circuit = single.map(|planned| planned.measures(&values, &measured));
    Ok(CircuitEvaluation { curve, areas, random_areas, circuit, ..measured.head() })
}

/// Measures a mask of parameters: everything outside is zero. Faithfulness 0 is the model without blocks.
///
/// # Errors
/// When a pair does not fit the model or there is none.
///
/// # Panics
/// When the mask belongs to a model of another shape.
pub fn evaluate_mask<F: Scalar>(
    bench: Bench<F>,
    mask: &ParamMask,
    settings: EvaluationSettings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<CircuitEvaluation> {
    let Bench { model, pairs, metric, .. } = bench;
    let EvaluationSettings { draws, seed, .. } = settings;
    let config = model.config();
    let (mut done, runs) = (0, 3 + 2 * draws);
    let mut run = |mask: &ParamMask| -> Result<Vec<f64>> {
        let values = run_clean(&mask.ablate_complement(model), pairs, metric)?;
        done += 1;
        progress(done, runs);
        Ok(values)
    };
    let empty = run(&ParamMask::full(config).complement())?;
    let measured = Measured::new(run_clean(model, pairs, metric)?, empty, metric.higher_is_better(), seed);
    let (inside, outside) = (run(mask)?, run(&mask.complement())?);
    let mut random = Vec::with_capacity(draws);
    let mut matched = Vec::with_capacity(draws);
    for draw in 0..draws as u64 {
        let rng = &mut stream(seed, "evaluated mask", draw);
        random.push(run(&ParamMask::random(config, mask.count(), rng))?);
        matched.push(run(&mask.shuffled(rng))?);
    }
    let circuit = CircuitMeasures {
        size: mask.count(),
        share: mask.density(),
        metric: mean(&inside),
        faithfulness: measured.interval(&inside),
        complement: measured.interval(&outside),
        random: measured.over_draws(random.iter()),
        matched: measured.over_draws(matched.iter()),
        incompleteness: None,
        removals: Vec::new(),
    };
    Ok(CircuitEvaluation { circuit: Some(circuit), ..measured.head() })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Circuits to run, each once.
#[derive(Default)]
struct Plan {
    circuits: Vec<EdgeSet>,
}

impl Plan {
    /// The number of a circuit, which is planned if it is not yet.
    fn add(&mut self, circuit: EdgeSet) -> usize {
        let known = self.circuits.iter().position(|other| *other == circuit);
        known.unwrap_or_else(|| {
            self.circuits.push(circuit);
            self.circuits.len() - 1
        })
    }
}

/// The model's and the empty circuit's metric, against which circuits are measured.
struct Measured {
    clean: Vec<f64>,
    empty: Vec<f64>,
    undefined: Option<String>,
    stream: Stream,
}

impl Measured {
    fn new(clean: Vec<f64>, empty: Vec<f64>, higher_is_better: bool, seed: u64) -> Self {
        let stream = Stream::named(seed, "faithfulness");
        let measured = Measured { clean, empty, undefined: None, stream };
        let undefined = if measured.span().contains(0.0) {
            Some("the full model's metric cannot be told from that of the empty circuit")
        } else if higher_is_better && measured.of(&measured.clean).low <= 0.0 {
            Some("the full model hardly prefers the correct answers: its mean metric cannot be told from 0")
        } else {
            None
        };
        Measured { undefined: undefined.map(str::to_owned), ..measured }
    }

    fn of(&self, values: &[f64]) -> Interval {
        bootstrap_mean(values, RESAMPLES, self.stream)
    }

    fn span(&self) -> Interval {
        self.faithfulness(&[]).span(self.stream)
    }

    fn faithfulness(&self, circuit: &[f64]) -> Faithfulness {
        Faithfulness { clean: self.clean.clone(), empty: self.empty.clone(), circuit: circuit.to_vec() }
    }

    fn interval(&self, circuit: &[f64]) -> Option<Interval> {
        if self.undefined.is_some() { None } else { self.faithfulness(circuit).interval(self.stream) }
    }

    fn value(&self, circuit: &[f64]) -> Option<f64> {
        if self.undefined.is_some() { None } else { self.faithfulness(circuit).normalised() }
    }

    /// Mean faithfulness of several circuits with the quantiles over circuits.
    fn over_draws<'a>(&self, circuits: impl Iterator<Item = &'a Vec<f64>>) -> Option<Interval> {
        over_draws(circuits.map(|values| self.value(values)).collect::<Option<_>>()?)
    }

    /// What is known without a circuit.
    fn head(&self) -> CircuitEvaluation {
        let n = self.clean.len();
        CircuitEvaluation {
            pairs: n,
            clean: self.of(&self.clean),
            empty: self.of(&self.empty),
            span: self.span(),
            preferred: self.clean.iter().filter(|&&value| value > 0.0).count() as f64 / n as f64,
            undefined: self.undefined.clone(),
            curve: Vec::new(),
            areas: None,
            random_areas: None,
            circuit: None,
        }
    }
}

/// Mean of several values with their 2.5 % and 97.5 % quantiles; `None` of none.
fn over_draws(values: Vec<f64>) -> Option<Interval> {
    (!values.is_empty()).then(|| Interval::of_resamples(mean(&values), values.iter().copied()))
}

/// The circuits of a ranking, by their numbers in the plan.
struct PlannedCurve {
    sizes: Vec<PlannedSize>,
}

struct PlannedSize {
    share: f64,
    selected: usize,
    /// Number in the plan, and edges left after pruning.
    absolute: (usize, usize),
    signed: (usize, usize),
    complement: usize,
    random: Vec<usize>,
}

impl PlannedCurve {
    fn new(scores: &EdgeScores, draws: usize, seed: u64, plan: &mut Plan) -> Self {
        let graph = scores.graph();
        let orders = [RankBy::Absolute, RankBy::Signed].map(|by| scores.ranked(by));
        let random: Vec<Vec<Edge>> = (0..draws as u64)
            .map(|draw| {
                EdgeScores::random(graph, &mut stream(seed, "evaluated ranking", draw)).ranked(RankBy::Signed)
            })
            .collect();
        let sizes = MIB_FRACTIONS
            .iter()
            .map(|&share| {
                let selected = (share * graph.n_edges() as f64).floor() as usize;
                let cut =
                    |order: &[Edge]| EdgeSet::from_edges(graph, order[..selected].iter().copied()).pruned();
                let [absolute, signed] = [&orders[0], &orders[1]].map(|order| cut(order));
                let complement = plan.add(absolute.complement());
                let (n_absolute, n_signed) = (absolute.count(), signed.count());
                PlannedSize {
                    share,
                    selected,
                    absolute: (plan.add(absolute), n_absolute),
                    signed: (plan.add(signed), n_signed),
                    complement,
                    random: random.iter().map(|order| plan.add(cut(order))).collect(),
                }
            })
            .collect();
        PlannedCurve { sizes }
    }

    fn measures(
        &self,
        values: &[Vec<f64>],
        measured: &Measured,
    ) -> (Vec<SizeMeasures>, Option<Areas>, Option<Areas>) {
        let size = |size: &PlannedSize| SizeMeasures {
            share: size.share,
            selected: size.selected,
            edges_absolute: size.absolute.1,
            edges_signed: size.signed.1,
            absolute: measured.interval(&values[size.absolute.0]),
            signed: measured.interval(&values[size.signed.0]),
            complement: measured.interval(&values[size.complement]),
            random: measured.over_draws(size.random.iter().map(|&number| &values[number])),
        };
        let sizes = self.sizes.iter().map(size).collect();
        if measured.undefined.is_some() {
            return (sizes, None, None);
        }
        let curve = |number: &dyn Fn(&PlannedSize) -> usize| FaithfulnessCurve {
            clean: measured.clean.clone(),
            empty: measured.empty.clone(),
            circuits: self.sizes.iter().map(|size| (size.share, values[number(size)].clone())).collect(),
        };
        let (absolute, signed) = (curve(&|size| size.absolute.0), curve(&|size| size.signed.0));
        let of =
            |curve: &FaithfulnessCurve, area: fn(CurveAreas) -> f64| curve.interval(measured.stream, area);
        let areas = || {
            Some(Areas {
                cpr: of(&signed, |areas| areas.cpr)?,
                cmd: of(&absolute, |areas| areas.cmd)?,
                cmd_log: of(&absolute, |areas| areas.cmd_log)?,
            })
        };
        let n_draws = self.sizes[0].random.len();
        let of_draw = |draw: usize| Some(CurveAreas::of(&curve(&|size| size.random[draw]).points()?));
        let of_draws: Vec<CurveAreas> = (0..n_draws).filter_map(of_draw).collect();
        let over = |area: fn(&CurveAreas) -> f64| over_draws(of_draws.iter().map(area).collect());
        let random = || {
            Some(Areas {
                cpr: over(|areas| areas.cpr)?,
                cmd: over(|areas| areas.cmd)?,
                cmd_log: over(|areas| areas.cmd_log)?,
            })
        };
        (sizes, areas(), random())
    }
}

/// A circuit and its controls, by their numbers in the plan.
struct PlannedCircuit {
    size: usize,
    share: f64,
    circuit: usize,
    complement: usize,
    random: Vec<usize>,
    matched: Vec<usize>,
    /// The circuit and the model without each knock-out.
    knock_outs: Vec<(usize, usize)>,
    removals: Vec<(String, usize)>,
}

impl PlannedCircuit {
    fn new(circuit: &EdgeSet, draws: usize, removals: usize, seed: u64, plan: &mut Plan) -> Self {
        let (graph, size) = (circuit.graph(), circuit.count());
        let full = EdgeSet::full(graph);
        let edges: Vec<Edge> = circuit.edges().collect();
        let without = |set: &EdgeSet, gone: &[Edge]| {
            let mut rest = set.clone();
            gone.iter().for_each(|&edge| rest.remove(edge));
            rest
        };
        let draw = |purpose: &str, draw: u64| stream(seed, purpose, draw);
        let random = (0..draws as u64)
            .map(|n| plan.add(random_edges(graph, size, &mut draw("evaluated circuit", n))))
            .collect();
        let matched = (0..draws as u64)
            .map(|n| plan.add(matched_edges(circuit, &mut draw("matched circuit", n))))
            .collect();
        let drawn = |purpose: &str, n: u64, most: usize| {
            let mut drawn = edges.clone();
            shuffle(&mut drawn, &mut draw(purpose, n));
            drawn.truncate(most);
            drawn
        };
        let knock_outs = (0..draws as u64)
            .map(|n| {
                let gone = drawn("knock-out", n, size.div_ceil(2));
                (plan.add(without(circuit, &gone)), plan.add(without(&full, &gone)))
            })
            .collect();
        let removals = drawn("removals", 0, removals)
            .into_iter()
            .map(|edge| (graph.name(edge), plan.add(without(circuit, &[edge]))))
            .collect();
        PlannedCircuit {
            size,
            share: size as f64 / graph.n_edges() as f64,
            circuit: plan.add(circuit.clone()),
            complement: plan.add(circuit.complement()),
            random,
            matched,
            knock_outs,
            removals,
        }
    }

    fn measures(&self, values: &[Vec<f64>], measured: &Measured) -> CircuitMeasures {
        let of = |number: &usize| &values[*number];
        let value = |number: usize| measured.value(&values[number]);
        let difference = |&(circuit, model): &(usize, usize)| Some((value(circuit)? - value(model)?).abs());
        let drop = |(edge, rest): &(String, usize)| {
            Some(Removal { edge: edge.clone(), drop: value(self.circuit)? - value(*rest)? })
        };
        let mut removals: Vec<Removal> = self.removals.iter().filter_map(drop).collect();
        removals.sort_by(|a, b| b.drop.total_cmp(&a.drop));
        CircuitMeasures {
            size: self.size,
            share: self.share,
            metric: mean(of(&self.circuit)),
            faithfulness: measured.interval(of(&self.circuit)),
            complement: measured.interval(of(&self.complement)),
            random: measured.over_draws(self.random.iter().map(of)),
            matched: measured.over_draws(self.matched.iter().map(of)),
            incompleteness: self
                .knock_outs
                .iter()
                .map(difference)
                .collect::<Option<_>>()
                .and_then(over_draws),
            removals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_circuits::edges::{LogitDiff, StandardAblation, edge_mask, faithfulness_curves};
    use locus_circuits::planted::{Planted, exclusive_or};
    use locus_gpt2::ndarray::Array2;

    const SETTINGS: EvaluationSettings = EvaluationSettings { draws: 3, removals: 5, seed: 1 };

    fn bench(planted: &Planted) -> Bench<'_, f64> {
        let Planted { model, pairs, .. } = planted;
        Bench { model, pairs, metric: &LogitDiff, ablation: &StandardAblation::Corrupted }
    }

    /// Scores that mark the planted circuit.
    fn scores(planted: &Planted) -> EdgeScores {
        let graph = planted.truth.graph();
        let shape = (graph.n_sources(), graph.n_destinations());
        let values = Array2::from_shape_fn(shape, |(source, destination)| {
            if planted.truth.contains(Edge { source, destination }) { 2.0 } else { 1e-3 }
        });
        EdgeScores::new(graph, values)
    }

    /// The planted circuit is the model, its complement is nothing, random circuits are not it; every measure that has
    /// an identity meets it.
    #[test]
    fn a_planted_circuit_is_faithful_complete_and_minimal() {
        let planted = exclusive_or();
        let mut calls = Vec::new();
        let found = evaluate_edges(
            bench(&planted),
            Some(&scores(&planted)),
            Some(&planted.truth),
            SETTINGS,
            &mut |done, all| calls.push((done, all)),
        )
        .unwrap();
        let circuit = found.circuit.unwrap();
        assert_eq!(circuit.size, planted.truth.count());
        assert!((circuit.faithfulness.unwrap().value - 1.0).abs() < 0.05, "{circuit:?}");
        assert!(circuit.complement.unwrap().value.abs() < 0.1, "{circuit:?}");
        assert!(circuit.random.unwrap().value < 0.5, "{circuit:?}");
        assert!(circuit.incompleteness.unwrap().value < 0.1, "{circuit:?}");
        assert!(circuit.removals.windows(2).all(|two| two[0].drop >= two[1].drop));
        assert!(circuit.removals[0].drop > 0.2, "{circuit:?}");
        let last = found.curve.last().unwrap();
        assert_eq!((last.share, last.selected), (1.0, planted.truth.graph().n_edges()));
        for interval in [last.absolute, last.signed, last.random] {
            assert!((interval.unwrap().value - 1.0).abs() < 1e-6, "{last:?}");
        }
        assert!(last.complement.unwrap().value.abs() < 1e-6, "nothing is left: {last:?}");
        let (areas, random) = (found.areas.unwrap(), found.random_areas.unwrap());
        let scores = scores(&planted);
        let rankings = [(&scores, RankBy::Signed), (&scores, RankBy::Absolute)];
        let Planted { model, pairs, .. } = &planted;
        let ablation = &StandardAblation::Corrupted;
        let curves =
            faithfulness_curves(model, pairs, &LogitDiff, ablation, &rankings, &MIB_FRACTIONS).unwrap();
        let library: Vec<CurveAreas> =
            curves.iter().map(|curve| CurveAreas::of(&curve.points().unwrap())).collect();
        assert_eq!((areas.cpr.value, areas.cmd.value), (library[0].cpr, library[1].cmd));
        assert!(
            areas.cpr.value > random.cpr.value && areas.cmd.value < random.cmd.value,
            "{areas:?} {random:?}"
        );
        assert_eq!(calls.last().unwrap().0, calls.last().unwrap().1);
        assert!((1..).zip(&calls).all(|(n, call)| call.0 == n), "{calls:?}");
    }

    /// All edges together are the model, and have nothing to complete; so are all parameters.
    #[test]
    fn everything_is_faithful() {
        let planted = exclusive_or();
        let full = EdgeSet::full(planted.truth.graph());
        let found = evaluate_edges(bench(&planted), None, Some(&full), SETTINGS, &mut |_, _| {}).unwrap();
        assert!(found.curve.is_empty() && found.areas.is_none());
        let mask = edge_mask(&full, planted.model.config());
        let masked = evaluate_mask(bench(&planted), &mask, SETTINGS, &mut |_, _| {}).unwrap();
        for circuit in [found.circuit.unwrap(), masked.circuit.unwrap()] {
            for measure in [circuit.faithfulness, circuit.random, circuit.matched] {
                assert!((measure.unwrap().value - 1.0).abs() < 1e-6, "{circuit:?}");
            }
            assert!(circuit.complement.unwrap().value.abs() < 1e-6, "{circuit:?}");
            assert!(circuit.incompleteness.is_none_or(|measure| measure.value < 1e-9), "{circuit:?}");
        }
    }

    /// The null world: a model that does not know the answers.
    #[test]
    fn nothing_is_faithful_to_a_model_without_a_preference() {
        let mut planted = exclusive_or();
        for (i, pair) in planted.pairs.iter_mut().enumerate() {
            if i % 2 == 0 {
                std::mem::swap(&mut pair.correct, &mut pair.incorrect);
            }
        }
        let truth = planted.truth.clone();
        let found =
            evaluate_edges(bench(&planted), Some(&scores(&planted)), Some(&truth), SETTINGS, &mut |_, _| {})
                .unwrap();
        assert!(found.undefined.is_some());
        assert_eq!((found.areas, found.random_areas), (None, None));
        assert!(found.curve.iter().all(|size| size.absolute.is_none() && size.random.is_none()));
        let circuit = found.circuit.unwrap();
        assert_eq!((circuit.faithfulness, circuit.incompleteness), (None, None));
        assert!(circuit.removals.is_empty());
    }
}
