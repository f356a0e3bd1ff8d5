//! Edge scores and interventions against the identities they must meet, in f64 on random models and prompts.

use locus_circuits::edges::{
    Attribution, Destination, Edge, EdgeScores, EdgeSet, Graph, Kl, LogitDiff, Metric, Pair, ProbDiff,
    QuadratureRule, StandardAblation, attribute_edges, attribute_edges_per_pair, patch_edges, run_circuit,
    run_clean,
};
use locus_circuits::internal::{Formulation, run_circuit_as};
use locus_circuits::planted::{self, Planted};
use locus_gpt2::{Config, Gpt2, Norm, ParamId};
use locus_testkit::{assert_close, random_vector};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::cases;

/// Tolerance of identities, which hold up to the order of additions; sums here have a few hundred terms.
const IDENTITY: f64 = 1e-9;

#[derive(Clone, Debug)]
struct Problem {
    config: Config,
    seed: u64,
    pairs: Vec<Pair>,
}

impl Problem {
    /// A model with weights large enough that every non-linearity matters.
    fn model(&self) -> Gpt2<f64> {
        let mut config = self.config.clone();
        config.initializer_range = 0.4;
        let mut model = Gpt2::init(&config, &mut ChaCha8Rng::seed_from_u64(self.seed));
        for (i, id) in ParamId::all(&config).filter(|id| id.is_vector()).enumerate() {
            let noise = random_vector(id.len(&config), self.seed ^ (i as u64 + 1));
            model.get_mut(id).iter_mut().zip(noise).for_each(|(w, noise)| *w += 0.2 * noise);
        }
        model
    }

    fn graph(&self) -> Graph {
        Graph::new(&self.config)
    }
}

fn problem() -> impl Strategy<Value = Problem> {
    let shape = (1usize..=3, 1usize..=3, 2usize..=4, any::<u64>());
    shape.prop_flat_map(|(layers, heads, width, seed)| {
        let config = Config::new(layers, heads, heads * width, 8, 11);
        let token = 0u32..11;
        let pair = (1usize..=6).prop_flat_map(move |n| {
            let prompt = || prop::collection::vec(token.clone(), n);
            (prompt(), prompt(), 0..=n, prop::sample::subsequence((0u32..11).collect::<Vec<_>>(), 2..=4))
                .prop_map(|(clean, other, shared, answers)| {
                    let corrupted = [&clean[..shared], &other[shared..]].concat();
                    let (correct, incorrect) = answers.split_at(1);
                    Pair { clean, corrupted, correct: correct.to_vec(), incorrect: incorrect.to_vec() }
                })
        });
        prop::collection::vec(pair, 1..=3).prop_map(move |pairs| Problem {
            config: config.clone(),
            seed,
            pairs,
        })
    })
}

fn eap(problem: &Problem, metric: &dyn Metric<f64>) -> EdgeScores {
    attribute_edges(&problem.model(), &problem.pairs, metric, Attribution::Eap, &StandardAblation::Corrupted)
        .unwrap()
}

/// Where clean and corrupted prompts are equal, scores are 0 but for rounding (the BLAS may round a row of a product by
/// its place in it), and no relative difference means anything.
fn scores_close(name: &str, nothing_differs: bool, actual: &EdgeScores, expected: &ndarray::Array2<f64>) {
    if nothing_differs {
        let all = actual.matrix().iter().chain(expected);
        return all.for_each(|&score| close(name, score, 0.0));
    }
    let [actual, expected] = [actual.matrix(), expected].map(|scores| scores.as_slice().unwrap());
    assert_close(name, actual, expected, IDENTITY);
}

fn close(name: &str, actual: f64, expected: f64) {
    let scale = actual.abs().max(expected.abs()).max(1.0);
    assert!((actual - expected).abs() <= IDENTITY * scale, "{name}: {actual:e} against {expected:e}");
}

proptest! {
    #![proptest_config(cases(24))]

    /// I2: the edges of a source add up to the derivative of the loss when the source's whole output moves. Checked by
    /// central differences through the intervention-free model: the token embedding is moved for `input`.
    #[test]
    fn edges_of_a_source_add_up(problem in problem()) {
        let model = problem.model();
        // One pair, because moving an embedding moves it wherever the token is.
        let pair = problem.pairs[0].clone();
        let scores = attribute_edges(&model, std::slice::from_ref(&pair), &LogitDiff, Attribution::Eap,
            &StandardAblation::Zero).unwrap();
        let loss = |alpha: f64| {
            // Zero ablation: delta of `input` is minus the token embedding. The tied head must not move with it, so the
            // position embeddings carry the change.
            let mut moved = model.clone();
            let d = problem.config.n_embd;
            for (position, &token) in pair.clean.iter().enumerate() {
                let row: Vec<f64> = model.get(ParamId::TokenEmbedding)[token as usize * d..][..d].to_vec();
                let wpe = &mut moved.get_mut(ParamId::PositionEmbedding)[position * d..][..d];
                wpe.iter_mut().zip(row).for_each(|(w, x)| *w -= alpha * x);
            }
            -run_clean(&moved, std::slice::from_ref(&pair), &LogitDiff).unwrap()[0]
        };
        let h = 1e-5;
        let numeric = (8.0 * (loss(h) - loss(-h)) - (loss(2.0 * h) - loss(-2.0 * h))) / (12.0 * h);
        let analytic = scores.node_scores()[0];
        prop_assert!((numeric - analytic).abs() <= 1e-6 * numeric.abs().max(1.0), "{numeric} against {analytic}");
    }

    /// I3: equal prompts give zeros.
    #[test]
    fn nothing_differs_nothing_scores(mut problem in problem()) {
        for pair in &mut problem.pairs {
            pair.corrupted = pair.clean.clone();
        }
        for metric in [&LogitDiff as &dyn Metric<f64>, &ProbDiff, &Kl] {
            prop_assert!(eap(&problem, metric).matrix().iter().all(|&score| score.abs() < 1e-12));
        }
    }

    /// KL has its minimum at the clean run, so its gradient there is zero.
    #[test]
    fn divergence_has_no_slope_at_the_clean_run(problem in problem()) {
        prop_assert!(eap(&problem, &Kl).matrix().iter().all(|&score| score.abs() < 1e-10));
    }

    /// I4: along the path of the inputs, the scores of the edges that leave `input` add up to the change of the loss.
    #[test]
    fn integrated_gradients_are_complete(problem in problem()) {
        let mut model = problem.model();
        // A gentle model: the integrand must be smooth enough for sixty-four points.
        for id in ParamId::all(&problem.config).filter(|id| !id.is_vector()) {
            model.get_mut(id).iter_mut().for_each(|w| *w *= 0.5);
        }
        model.get_mut(ParamId::PositionEmbedding).iter_mut().enumerate()
            .for_each(|(i, w)| *w += if i % 2 == 0 { 1.0 } else { -1.0 });
        let method = Attribution::IgInputs(QuadratureRule::GaussLegendre, 64);
        let scores = attribute_edges(&model, &problem.pairs, &LogitDiff, method, &StandardAblation::Corrupted).unwrap();
        let swapped: Vec<Pair> = problem.pairs.iter()
            .map(|p| Pair { clean: p.corrupted.clone(), corrupted: p.clean.clone(), ..p.clone() }).collect();
        let clean: f64 = run_clean(&model, &problem.pairs, &LogitDiff).unwrap().iter().sum();
        let corrupted: f64 = run_clean(&model, &swapped, &LogitDiff).unwrap().iter().sum();
        let change = (clean - corrupted) / problem.pairs.len() as f64;
        let total = scores.node_scores()[0];
        prop_assert!((total - change).abs() <= 1e-6 * change.abs().max(1.0), "{total} against {change}");
    }

    /// I1: the scores into the logits add up to the effect of the final residual stream, whose loss is linear but for
    /// the final LayerNorm: check with that LayerNorm's derivative by central differences along the whole difference.
    #[test]
    fn edges_into_a_reader_add_up(problem in problem()) {
        let model = problem.model();
        let pair = std::slice::from_ref(&problem.pairs[0]);
        let graph = problem.graph();
        let scores = attribute_edges(&model, pair, &LogitDiff, Attribution::Eap, &StandardAblation::Corrupted).unwrap();
        let column = graph.column(Destination::Logits);
        let total: f64 = scores.matrix().column(column).sum();
        let batch = |tokens: &Vec<u32>| locus_gpt2::Batch::new(&problem.config, &[tokens]).unwrap();
        let last = |tokens: &Vec<u32>| {
            let b = batch(tokens);
            let x = model.run(&b).until_layer(problem.config.n_layer).resid();
            x.row(x.nrows() - 1).to_owned()
        };
        let (clean, corrupted) = (last(&pair[0].clean), last(&pair[0].corrupted));
        let loss = |alpha: f64| {
            let x = &clean + &((&corrupted - &clean) * alpha);
            let hidden = model.layer_norm(Norm::Final, x.view().insert_axis(ndarray::Axis(0)));
            let logits = model.logits(hidden.view()).into_raw_vec_and_offset().0;
            -LogitDiff.value(&pair[0], &logits, &logits)
        };
        let h = 1e-5;
        let numeric = (8.0 * (loss(h) - loss(-h)) - (loss(2.0 * h) - loss(-2.0 * h))) / (12.0 * h);
        prop_assert!((numeric - total).abs() <= 1e-6 * numeric.abs().max(1.0), "{numeric} against {total}");
    }

    /// Scores of single pairs average to the scores of all, whatever the batching.
    #[test]
    fn scores_per_pair_average_to_the_scores(problem in problem()) {
        let model = problem.model();
        for method in [Attribution::Eap, Attribution::CleanCorrupted, Attribution::IgInputs(QuadratureRule::Midpoint, 3),
                       Attribution::IgActivations(QuadratureRule::Left, 2), Attribution::Relp, Attribution::AtpStar] {
            let all = attribute_edges(&model, &problem.pairs, &ProbDiff, method, &StandardAblation::Corrupted).unwrap();
            let each =
                attribute_edges_per_pair(&model, &problem.pairs, &ProbDiff, method, &StandardAblation::Corrupted).unwrap();
            let mut mean = ndarray::Array2::<f64>::zeros(all.matrix().dim());
            for (pair, scores) in problem.pairs.iter().zip(&each) {
                mean += scores.matrix();
                let alone = attribute_edges(&model, std::slice::from_ref(pair), &ProbDiff, method,
                    &StandardAblation::Corrupted).unwrap();
                scores_close("alone", pair.clean == pair.corrupted, &alone, &scores.matrix().to_owned());
            }
            mean /= problem.pairs.len() as f64;
            let nothing = problem.pairs.iter().all(|pair| pair.clean == pair.corrupted);
            scores_close("mean", nothing, &all, &mean);
        }
    }

    /// All edges kept is the clean run, none kept the corrupted one; an ablation equal to the clean run changes
    /// nothing; both formulations agree on any circuit.
    #[test]
    fn interventions(problem in problem(), pick in any::<u64>()) {
        let (model, graph) = (problem.model(), problem.graph());
        let metric = &LogitDiff;
        let clean = run_clean(&model, &problem.pairs, metric).unwrap();
        let swapped: Vec<Pair> = problem.pairs.iter()
            .map(|p| Pair { clean: p.corrupted.clone(), corrupted: p.clean.clone(), ..p.clone() }).collect();
        let corrupted = run_clean(&model, &swapped, metric).unwrap();
        let run = |circuit: &EdgeSet, pairs: &[Pair], ablation, formulation| {
            run_circuit_as(&model, pairs, metric, circuit, ablation, formulation).unwrap()
        };
        let noise = random_vector(graph.n_edges(), pick);
        let some = EdgeSet::from_edges(graph, graph.edges().zip(&noise).filter(|(_, x)| **x > 0.3).map(|(e, _)| e));
        let same: Vec<Pair> = problem.pairs.iter()
            .map(|p| Pair { corrupted: p.clean.clone(), ..p.clone() }).collect();
        for formulation in [Formulation::Dropped, Formulation::Kept, Formulation::Shorter] {
            for ablation in &StandardAblation::ALL {
                let full = run(&EdgeSet::full(graph), &problem.pairs, ablation, formulation);
                assert_close("all kept", &full, &clean, IDENTITY);
                assert_close("one way or the other", &run(&some, &problem.pairs, ablation, formulation),
                    &run(&some, &problem.pairs, ablation, Formulation::Dropped), IDENTITY);
            }
            let none = run(&EdgeSet::empty(graph), &problem.pairs, &StandardAblation::Corrupted, formulation);
            assert_close("none kept", &none, &corrupted, IDENTITY);
            assert_close("nothing differs", &run(&some, &same, &StandardAblation::Corrupted, formulation), &clean, IDENTITY);
        }
    }

    /// Patching one edge equals running the circuit of all others.
    #[test]
    fn one_edge_at_a_time(problem in problem(), pick in any::<prop::sample::Index>()) {
        let (model, graph) = (problem.model(), problem.graph());
        let edges: Vec<Edge> = graph.edges().collect();
        let edge = edges[pick.index(edges.len())];
        let mut others = EdgeSet::full(graph);
        others.remove(edge);
        for ablation in &StandardAblation::ALL {
            let exact = patch_edges(&model, &problem.pairs, &LogitDiff, ablation, &[edge]).unwrap();
            let clean: f64 = run_clean(&model, &problem.pairs, &LogitDiff).unwrap().iter().sum();
            let without = run_circuit(&model, &problem.pairs, &LogitDiff, &others, ablation).unwrap();
            let change = (clean - without.iter().sum::<f64>()) / problem.pairs.len() as f64;
            close("effect", exact.get(edge), change);
            prop_assert_eq!(exact.matrix().iter().filter(|x| x.is_nan()).count(), graph.n_edges() - 1);
        }
    }

    /// EAP is the slope of exact patching at a vanishing difference: shrink the corrupted embedding towards the clean
    /// one.
    #[test]
    fn small_differences_are_patched_as_estimated(problem in problem()) {
        let mut model = problem.model();
        let (graph, d) = (problem.graph(), problem.config.n_embd);
        // Token 0 is clean, token 1 almost the same: every difference is of order epsilon.
        let epsilon = 1e-5;
        let nudge = random_vector(d, problem.seed);
        let wte = model.get_mut(ParamId::TokenEmbedding);
        for i in 0..d {
            wte[d + i] = wte[i] + epsilon * nudge[i];
        }
        let pair = Pair { clean: vec![3, 0, 4], corrupted: vec![3, 1, 4], correct: vec![5], incorrect: vec![6] };
        let pairs = std::slice::from_ref(&pair);
        let estimate = attribute_edges(&model, pairs, &LogitDiff, Attribution::Eap, &StandardAblation::Corrupted).unwrap();
        let edges: Vec<Edge> = graph.edges().collect();
        let exact = patch_edges(&model, pairs, &LogitDiff, &StandardAblation::Corrupted, &edges).unwrap();
        let scale = exact.matrix().iter().fold(0f64, |max, x| max.max(x.abs()));
        for edge in edges {
            let (a, b) = (estimate.get(edge), exact.get(edge));
            // The rest is of second order: epsilon times the curvature.
            prop_assert!((a - b).abs() <= 2e-2 * scale.max(1e-9), "{}: {a:e} against {b:e}", graph.name(edge));
        }
    }
}

/// EAP, EAP-IG and exact patching are the same number for every edge of a linear model.
#[test]
fn linear_planted_model() {
    let Planted { model, pairs, truth, .. } = planted::linear();
    let graph = truth.graph();
    assert_eq!(graph.n_edges(), 46);
    let edges: Vec<Edge> = graph.edges().collect();
    let exact = patch_edges(&model, &pairs, &LogitDiff, &StandardAblation::Corrupted, &edges).unwrap();
    let live = edges.iter().filter(|&&edge| exact.get(edge).abs() > 1e-6).count();
    assert!(live >= 12, "{live} edges do something");
    for method in [
        Attribution::Eap,
        Attribution::CleanCorrupted,
        Attribution::IgInputs(QuadratureRule::Left, 5),
        Attribution::IgActivations(QuadratureRule::Midpoint, 2),
        Attribution::Relp,
        Attribution::QkFix,
    ] {
        let estimate =
            attribute_edges(&model, &pairs, &LogitDiff, method, &StandardAblation::Corrupted).unwrap();
        let (estimate, exact) = (estimate.matrix().as_slice().unwrap(), exact.matrix().as_slice().unwrap());
        assert_close(&format!("{method:?}"), estimate, exact, 1e-9);
    }
}
