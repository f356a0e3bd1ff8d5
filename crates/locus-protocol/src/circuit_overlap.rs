//! Two circuits side by side: what they share, beside what chance gives.
//!
//! For `a` and `b` of `N` edges, `i` of them shared: the Jaccard index `i / (a + b - i)`, the index at the expected
//! `a b / N`, and the distribution of `i` for independent circuits of these sizes
//! ([`Hypergeometric`]: 95 % interval, `P(X >= i)`, `P(X <= i)`). Circuits crowd in some
//! layers, so the expectation is also given with the sizes of every layer kept: what two circuits share beyond that is
//! not a matter of layers.

use locus_circuits::edges::{Destination, Edge, EdgeScores, EdgeSet, Graph};
use locus_gpt2::{ParamId, ParamMask};
use locus_metrics::hypergeometric::Hypergeometric;
use locus_metrics::overlap::Counts;
use locus_metrics::rank::spearman;
use serde::Serialize;

/// What two subsets of one population share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// What the population is: `all`, `layer 3`, `logits`, `nodes`.
    pub part: String,
    /// Number of elements.
    pub population: usize,
    /// Elements of the first.
    pub a: usize,
    /// Elements of the second.
    pub b: usize,
    /// Elements of both.
    pub shared: usize,
    /// Number shared that independent subsets of these sizes are expected to share.
    pub expected: f64,
    /// Numbers between which independent subsets share with 95 % probability.
    pub chance: (usize, usize),
    /// Probability that independent subsets share at least as many.
    pub p_more: f64,
    /// Probability that independent subsets share at most as many.
    pub p_fewer: f64,
    /// Jaccard index; `None` of two empty subsets.
    pub jaccard: Option<f64>,
    /// Jaccard index at the expected number.
    pub expected_jaccard: Option<f64>,
}

/// Two circuits side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitComparison {
    /// What is compared: `edges` or `parameters`.
    pub unit: String,
    /// The whole circuits.
    pub all: Overlap,
    /// Number that independent circuits with as many elements in every layer are expected to share.
    pub expected_by_layer: f64,
    /// Jaccard index at that number.
    pub expected_jaccard_by_layer: Option<f64>,
    /// Nodes that some edge of the circuit touches; `None` for masks.
    pub nodes: Option<Overlap>,
    /// Parts by layer of the destination; last the logits.
    pub layers: Vec<Overlap>,
    /// Spearman's correlation of the scores of edges that both score; `None` without such scores.
    pub score_correlation: Option<f64>,
}

impl Overlap {
    /// # Panics
    /// When the counts contradict each other.
    fn new(part: String, [population, a, b, shared]: [usize; 4]) -> Self {
        let counts = Counts::new(shared, a, b, population).expect("counts of two subsets");
        let chance = Hypergeometric::new(a, b, population).expect("subsets of the population");
        Overlap {
            part,
            population,
            a,
            b,
            shared,
            expected: counts.expected_intersection().unwrap_or(0.0),
            chance: chance.interval(),
            p_more: chance.at_least(shared),
            p_fewer: chance.at_most(shared),
            jaccard: counts.jaccard(),
            expected_jaccard: counts.expected_jaccard(),
        }
    }
}

/// Compares two circuits of edges, and the scores of their files.
///
/// # Panics
/// When they belong to graphs of different shape.
pub fn compare_edges(a: (&EdgeSet, &EdgeScores), b: (&EdgeSet, &EdgeScores)) -> CircuitComparison {
    let (scores, (a, b)) = ([a.1, b.1], (a.0, b.0));
    let graph = a.graph();
    assert_eq!(graph, b.graph(), "circuits of one graph");
    // Counts by layer of the destination: population, a, b, shared.
    let mut layers = vec![[0; 4]; graph.n_layer + 1];
    for edge in graph.edges() {
        let (in_a, in_b) = (a.contains(edge), b.contains(edge));
        let layer = match graph.destination(edge.destination) {
            Destination::Head(layer, ..) | Destination::Mlp(layer) => layer,
            Destination::Logits => graph.n_layer,
        };
        add(&mut layers[layer], [true, in_a, in_b, in_a && in_b]);
    }
    let mut nodes = [0; 4];
    for (in_a, in_b) in touched(graph, a).into_iter().zip(touched(graph, b)) {
        add(&mut nodes, [true, in_a, in_b, in_a && in_b]);
    }
    let named = |layer: usize| {
        if layer == graph.n_layer { "logits".to_owned() } else { format!("layer {layer}") }
    };
    let both = |edge: &Edge| scores.iter().all(|scores| !scores.get(*edge).is_nan());
    let scored: Vec<Edge> = graph.edges().filter(both).collect();
    let column = |of: usize| -> Vec<f64> { scored.iter().map(|&edge| scores[of].get(edge)).collect() };
    CircuitComparison {
        nodes: Some(Overlap::new("nodes".into(), nodes)),
        score_correlation: if scored.len() < 3 { None } else { spearman(&column(0), &column(1)) },
        ..by_layer(
            "edges",
            layers.into_iter().enumerate().map(|(layer, counts)| (named(layer), counts)).collect(),
        )
    }
}

/// Compares two masks of parameters.
///
/// # Panics
/// When they belong to models of different shape.
pub fn compare_masks_of_parameters(a: &ParamMask, b: &ParamMask) -> CircuitComparison {
    let mut layers = vec![[0; 4]; a.config().n_layer];
    let shared = a.intersection_counts(b);
    for (((id, in_a, size), (_, in_b, _)), shared) in a.counts().into_iter().zip(b.counts()).zip(shared) {
        let ParamId::Block(layer, _) = id else { unreachable!("masks hold block parameters only") };
        for (sum, n) in layers[layer].iter_mut().zip([size, in_a, in_b, shared]) {
            *sum += n;
        }
    }
    let named = |(layer, counts)| (format!("layer {layer}"), counts);
    by_layer("parameters", layers.into_iter().enumerate().map(named).collect())
}

fn add(sums: &mut [usize; 4], counted: [bool; 4]) {
    for (sum, counted) in sums.iter_mut().zip(counted) {
        *sum += usize::from(counted);
    }
}

/// Whether an edge of the circuit begins or ends at each node, in the order of sources.
fn touched(graph: Graph, circuit: &EdgeSet) -> Vec<bool> {
    let mut touched = vec![false; graph.n_sources()];
    for edge in circuit.edges() {
        touched[edge.source] = true;
        if let Some(node) = graph.node_of(graph.destination(edge.destination)) {
            touched[graph.row(node)] = true;
        }
    }
    touched
}

fn by_layer(unit: &str, layers: Vec<(String, [usize; 4])>) -> CircuitComparison {
    let mut all = [0; 4];
    for (_, counts) in &layers {
        for (sum, n) in all.iter_mut().zip(counts) {
            *sum += n;
        }
    }
    let layers: Vec<Overlap> = layers.into_iter().map(|(part, counts)| Overlap::new(part, counts)).collect();
    let expected: f64 = layers.iter().map(|layer| layer.expected).sum();
    let [population, a, b, shared] = all;
    let counts = Counts::new(shared, a, b, population).expect("counts of two subsets");
    CircuitComparison {
        unit: unit.to_owned(),
        all: Overlap::new("all".into(), all),
        expected_by_layer: expected,
        expected_jaccard_by_layer: counts.jaccard_of(expected),
        nodes: None,
        layers,
        score_correlation: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_circuits::edges::random_edges;
    use locus_data::seed::stream;
    use locus_gpt2::Config;

    const GRAPH: Graph = Graph { n_layer: 3, n_head: 4 };

    fn unscored() -> EdgeScores {
        let shape = (GRAPH.n_sources(), GRAPH.n_destinations());
        EdgeScores::new(GRAPH, locus_gpt2::ndarray::Array2::from_elem(shape, f64::NAN))
    }

    fn set(names: &[&str]) -> EdgeSet {
        EdgeSet::from_edges(GRAPH, names.iter().map(|name| GRAPH.parse(name).unwrap()))
    }

    #[test]
    fn counts_by_hand() {
        let a = set(&["input->m0", "m0->m1", "a1.h2->m1", "m1->logits"]);
        let b = set(&["input->m0", "a1.h2->m1", "a2.h0->logits"]);
        let scores = unscored();
        let found = compare_edges((&a, &scores), (&b, &scores));
        assert_eq!((found.all.a, found.all.b, found.all.shared), (4, 3, 2));
        assert_eq!(found.all.jaccard, Some(2.0 / 5.0));
        assert_eq!(found.all.expected, 12.0 / GRAPH.n_edges() as f64);
        let parts: Vec<(&str, usize, usize, usize)> =
            found.layers.iter().map(|layer| (layer.part.as_str(), layer.a, layer.b, layer.shared)).collect();
        assert_eq!(
            parts,
            [("layer 0", 1, 1, 1), ("layer 1", 2, 1, 1), ("layer 2", 0, 0, 0), ("logits", 1, 1, 0)]
        );
        let nodes = found.nodes.unwrap();
        // input, m0, m1, a1.h2 against input, m0, m1, a1.h2, a2.h0.
        assert_eq!((nodes.a, nodes.b, nodes.shared, nodes.population), (4, 5, 4, GRAPH.n_sources()));
        assert_eq!(found.score_correlation, None);
        assert_eq!(found.layers.iter().map(|layer| layer.population).sum::<usize>(), GRAPH.n_edges());
    }

    /// The null world: random circuits share what chance gives, by the interval in about 95 of 100 cases.
    #[test]
    fn random_circuits_share_what_chance_gives() {
        let scores = unscored();
        let (mut inside, mut small) = (0, 0);
        for draw in 0..200 {
            let [a, b] = [0, 1].map(|of| random_edges(GRAPH, 40, &mut stream(of, "overlap", draw)));
            let found = compare_edges((&a, &scores), (&b, &scores)).all;
            inside += usize::from((found.chance.0..=found.chance.1).contains(&found.shared));
            small += usize::from(found.p_more < 0.05);
        }
        assert!(inside >= 184, "{inside} of 200");
        assert!(small <= 18, "{small} of 200");
    }

    #[test]
    fn a_circuit_shares_all_with_itself() {
        let a = random_edges(GRAPH, 30, &mut stream(1, "overlap", 0));
        let scores = EdgeScores::random(GRAPH, &mut stream(1, "scores", 0));
        let found = compare_edges((&a, &scores), (&a, &scores));
        assert_eq!((found.all.jaccard, found.score_correlation), (Some(1.0), Some(1.0)));
        assert!(found.all.p_more < 1e-20 && found.all.p_fewer == 1.0, "{:?}", found.all);
        assert!(found.expected_by_layer >= found.all.expected);

        let config = Config::new(2, 2, 6, 8, 9);
        let mask = ParamMask::random(&config, 200, &mut stream(1, "mask", 0));
        let masks = compare_masks_of_parameters(&mask, &mask.complement());
        assert_eq!((masks.all.shared, masks.all.a, masks.unit.as_str()), (0, 200, "parameters"));
        assert_eq!(masks.all.p_more, 1.0);
        assert!(masks.all.p_fewer < 1e-20 && masks.layers.len() == 2, "{masks:?}");
    }
}
