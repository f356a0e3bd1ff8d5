//! Models whose circuit is known because it was written into their weights: a ground truth to test discovery methods
//! against (`locus selftest`).
//!
//! The planted models are ordinary GPT-2s: LayerNorm, softmax and GELU are all at work. What keeps LayerNorm from
//! mixing features is a pair of coordinates with `+C` and `-C` at every position, `C` far above any feature: the
//! variance is then nearly constant, and the gains undo it. Every feature is balanced by minus itself in one more
//! coordinate, so means are zero.
//!
//! Besides the circuit there are parts that must not be found: heads of zeros; heads and MLPs that write into
//! coordinates which nothing reads (their outputs differ between clean and corrupted prompts, without effect); heads
//! that write where the circuit reads, but attend to a token that never differs.

use locus_gpt2::{BlockParam, Config, Gpt2, ParamId};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::edges::{EdgeSet, Graph, Pair};

mod saturated;

pub use saturated::{lookup, neuron_at_rest};

/// A model, pairs on which it shows its behaviour, and the edges that carry it.
#[derive(Clone, Debug)]
pub struct Planted {
    /// Name of the behaviour.
    pub name: &'static str,
    /// The weights.
    pub model: Gpt2<f64>,
    /// Clean and corrupted prompts that differ in every way the circuit is sensitive to.
    pub pairs: Vec<Pair>,
    /// The edges of the circuit that was written in.
    pub truth: EdgeSet,
}

/// Coordinates of the pair that holds the variance.
const PLUS: usize = 0;
const MINUS: usize = 1;
/// Coordinate of minus the sum of all features.
const BALANCE: usize = 2;
const FIRST_FREE: usize = 3;
/// Size of the variance pair; features are about 1.
const C: f64 = 400.0;
/// Logit of an answer whose feature is 1.
const ANSWER_LOGIT: f64 = 6.0;

/// A linear model: attention is uniform, MLPs write nothing and the LayerNorms' epsilon is far above any variance, so
/// that they centre and scale by a constant. The effect of an edge is then its attribution. `truth` is every edge
/// whose source can write something: all but those of the MLPs.
pub fn linear() -> Planted {
    let mut config = Config::new(2, 2, 16, 8, 20);
    config.layer_norm_epsilon = 1e12;
    config.initializer_range = 0.3;
    let mut model = Gpt2::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(5));
    for layer in 0..config.n_layer {
        let d = config.n_embd;
        let qkv = model.get_mut(ParamId::Block(layer, BlockParam::AttnInWeight));
        qkv.chunks_mut(3 * d).for_each(|row| row[..2 * d].fill(0.0)); // queries and keys
        model.get_mut(ParamId::Block(layer, BlockParam::MlpOutWeight)).fill(0.0);
        for gain in [BlockParam::Ln1Weight, BlockParam::Ln2Weight] {
            model.get_mut(ParamId::Block(layer, gain)).fill(1e6);
        }
    }
    model.get_mut(ParamId::FinalNormWeight).fill(1e6);
    let pairs = (0..3)
        .map(|i| Pair {
            clean: vec![1 + i, 2, 3],
            corrupted: vec![4 + i, 2, 7],
            correct: vec![8],
            incorrect: vec![9, 10],
        })
        .collect();
    let graph = Graph::new(&config);
    let values = ["<v>", "logits"];
    let truth = graph.edges().filter(|&edge| {
        let name = graph.name(edge);
        !name.starts_with('m') && values.iter().any(|end| name.ends_with(end))
    });
    Planted { name: "linear", truth: EdgeSet::from_edges(graph, truth), model, pairs }
}

/// Induction: after `... A B ... A` comes `B`. A head of the first layer tells every token which one came before; a
/// head of the second looks for the place that came after the present token, and copies the token there.
pub fn induction() -> Planted {
    const TOKENS: usize = 10; // 0 begins every prompt
    const POSITIONS: usize = 8;
    let mut build = Builder::new(2, 4, 15, POSITIONS, TOKENS);
    let token = build.block(TOKENS);
    let answer = build.block(TOKENS);
    let before = build.block(TOKENS);
    let position = build.block(POSITIONS);
    build.embed(|t| vec![(token + t, 1.0), (answer + t, 1.0)], |p| vec![(position + p, 1.0)]);
    build.read_answers(answer..answer + TOKENS);

    // a0.h0: from position p to p - 1, whatever the tokens; writes the token's name into `before`.
    let mut previous = HeadWeights::new();
    for p in 0..POSITIONS {
        previous.key.push((position + p, p, 1.0));
        if p > 0 {
            previous.query.push((position + p, p - 1, 45.0));
        }
    }
    for t in 0..TOKENS {
        previous.value.push((token + t, t, 1.0));
        previous.output.push((t, before + t, 1.0));
    }
    build.head(0, 0, &previous);

    // a1.h0: to the place after an earlier copy of the present token; else to the first token, which says nothing.
    let mut copy = HeadWeights::new();
    for t in 0..TOKENS {
        copy.query.push((token + t, t, 30.0));
        copy.key.push((before + t, t, 1.0));
        if t > 0 {
            copy.value.push((token + t, t, 1.0));
            copy.output.push((t, answer + t, 1.0));
        }
    }
    copy.key.push((position, TOKENS, 1.0));
    copy.query_bias.push((TOKENS, 15.0));
    build.head(1, 0, &copy);
    build.distract(&[(0, 1), (1, 1)], &[0, 1], token..token + TOKENS);
    build.watch_first_token(&[(0, 3), (1, 3)], (position, token, answer + 7));

    let pair = |clean: [u32; 7], corrupted: [u32; 7], correct: u32, incorrect: u32| Pair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        correct: vec![correct],
        incorrect: vec![incorrect],
    };
    let pairs = vec![
        // Another token before B: nothing matches.
        pair([0, 4, 1, 2, 5, 3, 1], [0, 4, 6, 2, 5, 3, 1], 2, 5),
        pair([0, 7, 8, 9, 4, 2, 8], [0, 7, 1, 9, 4, 2, 8], 9, 4),
        // Another token in the place of B: something else is copied.
        pair([0, 4, 1, 2, 5, 3, 1], [0, 4, 1, 9, 5, 3, 1], 2, 9),
        pair([0, 3, 6, 8, 2, 7, 6], [0, 3, 6, 5, 2, 7, 6], 8, 5),
        // Another present token: it looks elsewhere.
        pair([0, 4, 1, 2, 5, 3, 1], [0, 4, 1, 2, 5, 3, 4], 2, 3),
        pair([0, 5, 9, 3, 1, 8, 9], [0, 5, 9, 3, 1, 8, 5], 3, 8),
    ];
    let truth = ["input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<q>", "input->a1.h0<v>", "a1.h0->logits"];
    build.planted("induction", pairs, &truth)
}

/// Either of two: two heads fetch one fact, which the prompt says twice, and an MLP of the second layer answers when at
/// least one of them has it. Ablating one edge before the MLP changes nothing, and the MLP is saturated, so that
/// neither patching nor the gradient at the clean run shows these edges. `truth` holds both circuits; either does the
/// task.
pub fn either() -> Planted {
    const TOKENS: usize = 8; // 0 begins, 1 is no and 2 is yes, 3 to 5 ask, 6 and 7 answer
    const POSITIONS: usize = 4;
    let mut build = Builder::new(2, 4, 12, POSITIONS, TOKENS);
    let token = build.block(TOKENS);
    let answer = build.block(TOKENS);
    let facts = build.block(2);
    let position = build.block(POSITIONS);
    build.embed(|t| vec![(token + t, 1.0), (answer + t, 1.0)], |p| vec![(position + p, 1.0)]);
    build.read_answers(answer..answer + TOKENS);
    for fact in 0..2 {
        let mut fetch = HeadWeights::new();
        fetch.key.push((position + 1 + fact, 0, 1.0));
        fetch.query_bias.push((0, 45.0));
        fetch.value.extend([(token + 1, 0, -1.0), (token + 2, 0, 1.0)]);
        fetch.output.push((0, facts + fact, 1.0));
        build.head(0, fact, &fetch);
    }
    // With s the sum of the facts, gelu(8 (s + 3/2)) - gelu(8 (s + 1/2)) is 0 for s = -2 and 8 for s = 0 and s = 2.
    const SLOPE: f64 = 8.0;
    for (unit, sign) in [(0, 1.0), (1, -1.0)] {
        build.unit(
            1,
            unit,
            &[(facts, SLOPE), (facts + 1, SLOPE)],
            SLOPE * (1.0 + 0.5 * sign),
            &[(answer + 6, sign / SLOPE), (answer + 7, -sign / SLOPE)],
        );
    }
    let bias = build.model.get_mut(ParamId::Block(1, BlockParam::MlpOutBias));
    (bias[answer + 6], bias[answer + 7]) = (-0.5, 0.5);
    build.distract(&[(0, 2), (1, 0), (1, 1)], &[0], token..token + TOKENS);
    build.watch_first_token(&[(0, 3), (1, 3)], (position, token, facts));
    let pairs = (3..6).map(|ask| Pair {
        clean: vec![0, 2, 2, ask],
        corrupted: vec![0, 1, 1, ask],
        correct: vec![6],
        incorrect: vec![7],
    });
    let truth = ["input->a0.h0<v>", "input->a0.h1<v>", "a0.h0->m1", "a0.h1->m1", "m1->logits"];
    build.planted("either of two", pairs.collect(), &truth)
}

/// Exclusive or: two heads fetch one bit each, an MLP of the second layer combines them. No edge alone tells the
/// answer.
pub fn exclusive_or() -> Planted {
    const TOKENS: usize = 8; // 0 begins, 1 and 2 are the first bit, 3 and 4 the second, 5 asks, 6 and 7 answer
    const POSITIONS: usize = 5;
    let mut build = Builder::new(2, 4, 12, POSITIONS, TOKENS);
    let token = build.block(TOKENS);
    let answer = build.block(TOKENS);
    let bits = build.block(2);
    let position = build.block(POSITIONS);
    build.embed(|t| vec![(token + t, 1.0), (answer + t, 1.0)], |p| vec![(position + p, 1.0)]);
    build.read_answers(answer..answer + TOKENS);
    for bit in 0..2 {
        let mut fetch = HeadWeights::new();
        fetch.key.push((position + 1 + bit, 0, 1.0));
        fetch.query_bias.push((0, 45.0));
        fetch.value.extend([(token + 1 + 2 * bit, 0, 1.0), (token + 2 + 2 * bit, 0, -1.0)]);
        fetch.output.push((0, bits + bit, 1.0));
        build.head(0, bit, &fetch);
    }
    // One unit for each way of being equal: gelu(4 (s - 1)) is 4 for s = 2 and almost 0 for s = 0 and s = -2.
    const SLOPE: f64 = 4.0;
    for (unit, sign) in [(0, 1.0), (1, -1.0)] {
        build.unit(
            1,
            unit,
            &[(bits, sign * SLOPE), (bits + 1, sign * SLOPE)],
            -SLOPE,
            &[(answer + 6, 1.0 / SLOPE), (answer + 7, -1.0 / SLOPE)],
        );
    }
    // Without either unit the answer is "different".
    let bias = build.model.get_mut(ParamId::Block(1, BlockParam::MlpOutBias));
    (bias[answer + 6], bias[answer + 7]) = (-0.5, 0.5);
    build.distract(&[(0, 2), (1, 0), (1, 1)], &[0], token..token + TOKENS);
    build.watch_first_token(&[(0, 3), (1, 3)], (position, token, bits));

    let mut pairs = Vec::new();
    for (first, second) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
        let equal = (first == 1) == (second == 3);
        let (correct, incorrect) = if equal { (6, 7) } else { (7, 6) };
        for corrupted in [vec![0, 3 - first, second, 5], vec![0, first, 7 - second, 5]] {
            pairs.push(Pair {
                clean: vec![0, first, second, 5],
                corrupted,
                correct: vec![correct],
                incorrect: vec![incorrect],
            });
        }
    }
    let truth = ["input->a0.h0<v>", "input->a0.h1<v>", "a0.h0->m1", "a0.h1->m1", "m1->logits"];
    build.planted("exclusive or", pairs, &truth)
}

/// A head as lists of weights: `(residual coordinate, head coordinate, weight)`, and the reverse for its output.
#[derive(Default)]
struct HeadWeights {
    query: Vec<(usize, usize, f64)>,
    query_bias: Vec<(usize, f64)>,
    key: Vec<(usize, usize, f64)>,
    value: Vec<(usize, usize, f64)>,
    output: Vec<(usize, usize, f64)>,
}

impl HeadWeights {
    fn new() -> Self {
        HeadWeights::default()
    }
}

/// Writes weights, feature by feature.
struct Builder {
    config: Config,
    model: Gpt2<f64>,
    free: usize,
    rng: ChaCha8Rng,
}

impl Builder {
    fn new(layers: usize, heads: usize, width: usize, positions: usize, tokens: usize) -> Self {
        let config = Config::new(layers, heads, heads * width, positions, tokens);
        let mut model = Gpt2::zeros(&config);
        // The scale that LayerNorm divides by, put back by the gains; nothing reads the variance pair and the balance.
        let gain = C * (2.0 / config.n_embd as f64).sqrt();
        for layer in 0..layers {
            for norm in [BlockParam::Ln1Weight, BlockParam::Ln2Weight] {
                model.get_mut(ParamId::Block(layer, norm))[FIRST_FREE..].fill(gain);
            }
        }
        Builder { config, model, free: FIRST_FREE, rng: ChaCha8Rng::seed_from_u64(1) }
    }

    /// Reserves `n` fresh coordinates and returns the first.
    fn block(&mut self, n: usize) -> usize {
        let first = self.free;
        self.free += n;
        assert!(self.free + 4 <= self.config.n_embd, "no coordinates left for what nobody reads");
        first
    }

    fn embed(
        &mut self,
        token: impl Fn(usize) -> Vec<(usize, f64)>,
        position: impl Fn(usize) -> Vec<(usize, f64)>,
    ) {
        let d = self.config.n_embd;
        for (id, n, features) in [
            (ParamId::TokenEmbedding, self.config.vocab_size, &token as &dyn Fn(usize) -> Vec<(usize, f64)>),
            (ParamId::PositionEmbedding, self.config.n_positions, &position),
        ] {
            for i in 0..n {
                let row = &mut self.model.get_mut(id)[i * d..(i + 1) * d];
                for (at, value) in features(i) {
                    row[at] += value;
                    row[BALANCE] -= value;
                }
                if id == ParamId::PositionEmbedding {
                    (row[PLUS], row[MINUS]) = (C, -C);
                }
            }
        }
    }

    /// Lets the unembedding, which is tied, see only the coordinates of the answers.
    fn read_answers(&mut self, answers: std::ops::Range<usize>) {
        let gain = ANSWER_LOGIT * C * (2.0 / self.config.n_embd as f64).sqrt();
        self.model.get_mut(ParamId::FinalNormWeight)[answers].fill(gain);
    }

    fn head(&mut self, layer: usize, head: usize, weights: &HeadWeights) {
        let (d, width) = (self.config.n_embd, self.config.d_head());
        let into = self.model.get_mut(ParamId::Block(layer, BlockParam::AttnInWeight));
        for (qkv_input, list) in [&weights.query, &weights.key, &weights.value].into_iter().enumerate() {
            for &(from, to, weight) in list {
                assert!(to < width, "head coordinate {to} of {width}");
                into[from * 3 * d + qkv_input * d + head * width + to] += weight;
            }
        }
        let bias = self.model.get_mut(ParamId::Block(layer, BlockParam::AttnInBias));
        for &(to, weight) in &weights.query_bias {
            bias[head * width + to] += weight;
        }
        let out = self.model.get_mut(ParamId::Block(layer, BlockParam::AttnOutWeight));
        for &(from, to, weight) in &weights.output {
            out[(head * width + from) * d + to] += weight;
            out[(head * width + from) * d + BALANCE] -= weight;
        }
    }

    fn unit(
        &mut self,
        layer: usize,
        unit: usize,
        reads: &[(usize, f64)],
        bias: f64,
        writes: &[(usize, f64)],
    ) {
        let (d, f) = (self.config.n_embd, self.config.d_mlp());
        for &(from, weight) in reads {
            self.model.get_mut(ParamId::Block(layer, BlockParam::MlpInWeight))[from * f + unit] += weight;
        }
        self.model.get_mut(ParamId::Block(layer, BlockParam::MlpInBias))[unit] += bias;
        let out = self.model.get_mut(ParamId::Block(layer, BlockParam::MlpOutWeight));
        for &(to, weight) in writes {
            out[unit * d + to] += weight;
            out[unit * d + BALANCE] -= weight;
        }
    }

    /// Adds heads and MLPs that read tokens and write random features where nothing reads.
    fn distract(&mut self, heads: &[(usize, usize)], mlps: &[usize], tokens: std::ops::Range<usize>) {
        let unread = self.free..self.config.n_embd;
        let width = self.config.d_head();
        for &(layer, head) in heads {
            let mut noise = HeadWeights::new();
            for token in tokens.clone() {
                for to in 0..width {
                    noise.query.push((token, to, self.rng.random_range(-1.0..1.0)));
                    noise.key.push((token, to, self.rng.random_range(-1.0..1.0)));
                    noise.value.push((token, to, self.rng.random_range(-1.0..1.0)));
                }
            }
            for from in 0..width {
                for to in unread.clone() {
                    noise.output.push((from, to, self.rng.random_range(-0.5..0.5)));
                }
            }
            self.head(layer, head, &noise);
        }
        for &layer in mlps {
            for unit in 8..16 {
                let reads: Vec<_> = tokens.clone().map(|t| (t, self.rng.random_range(-2.0..2.0))).collect();
                let writes: Vec<_> =
                    unread.clone().map(|to| (to, self.rng.random_range(-0.5..0.5))).collect();
                self.unit(layer, unit, &reads, 0.0, &writes);
            }
        }
    }

    /// Heads that look at the first token alone, which is always the same, and write where the circuit reads.
    fn watch_first_token(
        &mut self,
        heads: &[(usize, usize)],
        (position, token, into): (usize, usize, usize),
    ) {
        for &(layer, head) in heads {
            let mut watch = HeadWeights::new();
            watch.key.push((position, 0, 1.0));
            watch.query_bias.push((0, 60.0));
            watch.value.push((token, 1, 0.05));
            watch.output.push((1, into, 1.0));
            self.head(layer, head, &watch);
        }
    }

    fn planted(self, name: &'static str, pairs: Vec<Pair>, truth: &[&str]) -> Planted {
        let graph = Graph::new(&self.config);
        let edges = truth.iter().map(|name| graph.parse(name).expect("an edge of this graph"));
        Planted { name, truth: EdgeSet::from_edges(graph, edges), model: self.model, pairs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::{
        Attribution, Edge, Faithfulness, LogitDiff, QuadratureRule, RankBy, StandardAblation,
        attribute_edges, auroc, patch_edges, run_clean,
    };

    /// An edge is in the circuit when patching it alone moves some pair's logit difference by this share of the gap.
    const EFFECT: f64 = 1e-3;

    /// Edges with an effect on at least one pair, by patching every edge.
    fn effective(planted: &Planted) -> EdgeSet {
        let graph = planted.truth.graph();
        let edges: Vec<Edge> = graph.edges().collect();
        let mut found = EdgeSet::empty(graph);
        for pair in &planted.pairs {
            let pair = std::slice::from_ref(pair);
            let exact =
                patch_edges(&planted.model, pair, &LogitDiff, &StandardAblation::Corrupted, &edges).unwrap();
            for &edge in &edges {
                if exact.get(edge).abs() > EFFECT * ANSWER_LOGIT {
                    found.insert(edge);
                }
            }
        }
        found
    }

    fn names(set: &EdgeSet) -> Vec<String> {
        set.edges().map(|edge| set.graph().name(edge)).collect()
    }

    #[test]
    fn the_circuits_are_what_patching_every_edge_finds() {
        for planted in [induction(), exclusive_or(), lookup(), neuron_at_rest()] {
            assert_eq!(names(&effective(&planted)), names(&planted.truth), "{}", planted.name);
            let clean = run_clean(&planted.model, &planted.pairs, &LogitDiff).unwrap();
            assert!(clean.iter().all(|&gap| gap > 0.5 * ANSWER_LOGIT), "{}: {clean:?}", planted.name);
        }
        let linear = linear();
        let found = effective(&linear);
        assert!(found.edges().all(|edge| linear.truth.contains(edge)));
    }

    /// What plain attribution misses for want of a gradient, and the method made for it finds.
    #[test]
    fn saturated_circuits_have_effects_without_gradients() {
        let methods = [
            (lookup(), Attribution::QkFix),
            (lookup(), Attribution::AtpStar),
            (neuron_at_rest(), Attribution::Relp),
        ];
        for (Planted { name, model, pairs, truth }, method) in methods {
            let scores = |method| {
                attribute_edges(&model, &pairs, &LogitDiff, method, &StandardAblation::Corrupted).unwrap()
            };
            let best = |scores| EdgeSet::top_n(scores, truth.count(), RankBy::Absolute);
            let found = scores(method);
            assert_eq!(names(&best(&found)), names(&truth), "{name}, {method:?}");
            let plain = scores(Attribution::Eap);
            let chosen = best(&plain);
            let missed: Vec<Edge> = truth.edges().filter(|&edge| !chosen.contains(edge)).collect();
            assert!(missed.len() >= 2, "{name}: plain attribution has {:?}", names(&chosen));
            for edge in missed {
                assert!(plain.get(edge).abs() < 1e-3 * found.get(edge).abs(), "{name}");
            }
        }
    }

    #[test]
    fn other_attributions_recover_the_circuits_too() {
        for (planted, method) in [(induction(), Attribution::QkFix), (exclusive_or(), Attribution::Relp)] {
            let Planted { name, model, pairs, truth } = &planted;
            let ablation = &StandardAblation::Corrupted;
            let scores = attribute_edges(model, pairs, &LogitDiff, method, ablation).unwrap();
            let area = auroc(&scores, truth, RankBy::Absolute);
            assert!(area >= 0.99, "{name}, {method:?}: AUROC {area}");
        }
    }

    #[test]
    fn integrated_gradients_recover_the_circuits() {
        for planted in [induction(), exclusive_or(), lookup(), neuron_at_rest()] {
            let Planted { name, model, pairs, truth } = &planted;
            let method = Attribution::IgInputs(QuadratureRule::Midpoint, 20);
            let scores =
                attribute_edges(model, pairs, &LogitDiff, method, &StandardAblation::Corrupted).unwrap();
            let area = auroc(&scores, truth, RankBy::Absolute);
            assert!(area >= 0.99, "{name}: AUROC {area}");
            let found = EdgeSet::top_n(&scores, truth.count(), RankBy::Absolute).pruned();
            let faithfulness = |set: &EdgeSet| {
                Faithfulness::of(model, pairs, &LogitDiff, set, &StandardAblation::Corrupted)
                    .unwrap()
                    .normalised()
                    .unwrap()
            };
            let f = faithfulness(&found);
            assert!((f - 1.0).abs() <= 0.01, "{name}: faithfulness {f} of {:?}", names(&found));
            // The control: everything but the circuit.
            let wrong = faithfulness(&truth.complement());
            assert!(wrong.abs() < 0.05, "{name}: faithfulness {wrong} of the complement");
        }
    }
}
