//! Planted circuits whose edges have an effect and no gradient: plain attribution misses them.
//!
//! In both, another head writes a faint copy of a token, far below what counts as an effect, whose edges do have a
//! gradient. A method that sees nothing of the circuit ranks them first.

use super::{Builder, HeadWeights, Planted};
use crate::edges::Pair;
use locus_gpt2::{BlockParam, ParamId};

/// Size of the faint copy.
const FAINT: f64 = 3e-4;

/// Lookup by a saturated softmax: the last token says whether the marked or the unmarked token is to be repeated. A
/// wrong query or key moves all of the attention, but a small change of either moves none.
///
/// Found by exact patching, integrated gradients and the QK fix ([`Attribution::QkFix`](crate::edges::Attribution)).
pub fn lookup() -> Planted {
    // 0 begins, 1 and 2 are marked, 3 and 4 are the same unmarked, 5 asks for the marked one, 6 for the other
    const TOKENS: usize = 9; // 7 and 8 answer
    const POSITIONS: usize = 4;
    let mut build = Builder::new(2, 4, 12, POSITIONS, TOKENS);
    let token = build.block(TOKENS);
    let answer = build.block(TOKENS);
    let position = build.block(POSITIONS);
    build.embed(|t| vec![(token + t, 1.0), (answer + t, 1.0)], |p| vec![(position + p, 1.0)]);
    build.read_answers(answer..answer + TOKENS);
    let mut find = HeadWeights::new();
    find.query.extend([(token + 5, 0, 60.0), (token + 6, 0, -60.0)]);
    find.key.extend([(token + 1, 0, 1.0), (token + 2, 0, 1.0), (token + 3, 0, -1.0), (token + 4, 0, -1.0)]);
    find.value.extend([(token + 1, 0, 1.0), (token + 3, 0, 1.0), (token + 2, 0, -1.0), (token + 4, 0, -1.0)]);
    find.output.extend([(0, answer + 7, 0.5), (0, answer + 8, -0.5)]);
    build.head(1, 0, &find);
    // The faint copy of what the last token asks and of which tokens are marked, wherever they are.
    let mut faint = HeadWeights::new();
    faint.value.extend([(token + 5, 0, FAINT), (token + 1, 0, FAINT), (token + 4, 0, FAINT)]);
    faint.output.extend([(0, answer + 7, 1.0), (0, answer + 8, -1.0)]);
    build.head(0, 1, &faint);
    build.distract(&[(0, 2), (1, 1)], &[0, 1], token..token + TOKENS);

    let pair = |clean: [u32; 4], corrupted: [u32; 4], correct: u32| Pair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        correct: vec![correct],
        incorrect: vec![15 - correct],
    };
    let pairs = vec![
        // The other question.
        pair([0, 1, 4, 5], [0, 1, 4, 6], 7),
        pair([0, 3, 2, 5], [0, 3, 2, 6], 8),
        // The other mark.
        pair([0, 1, 4, 5], [0, 3, 2, 5], 7),
        pair([0, 4, 1, 6], [0, 2, 3, 6], 8),
    ];
    let truth = ["input->a1.h0<q>", "input->a1.h0<k>", "a1.h0->logits"];
    build.planted("lookup", pairs, &truth)
}

/// A neuron at the minimum of GELU: a head fetches the first token's feature, and a neuron that is at rest in the clean
/// run reads it. GELU has slope 0 there, so a small change of the feature does nothing; the corrupted one wakes the
/// neuron.
///
/// Found by exact patching, integrated gradients and RelP ([`Attribution::Relp`](crate::edges::Attribution)), whose
/// secant is not 0 there.
pub fn neuron_at_rest() -> Planted {
    const TOKENS: usize = 7; // 0 begins, 1 and 2 leave the neuron at rest, 3 wakes it, 4 asks, 5 and 6 answer
    const POSITIONS: usize = 3;
    /// Where GELU in its tanh form has its minimum, and its value there.
    const REST: f64 = -0.752_461_422;
    const LEAST: f64 = -0.170_040_75;
    const AWAKE: f64 = 4.0;
    let mut build = Builder::new(2, 4, 10, POSITIONS, TOKENS);
    let token = build.block(TOKENS);
    let answer = build.block(TOKENS);
    let feature = build.block(1);
    let position = build.block(POSITIONS);
    build.embed(|t| vec![(token + t, 1.0), (answer + t, 1.0)], |p| vec![(position + p, 1.0)]);
    build.read_answers(answer..answer + TOKENS);
    let mut fetch = HeadWeights::new();
    fetch.key.push((position + 1, 0, 1.0));
    fetch.query_bias.push((0, 45.0));
    fetch.value.push((token + 3, 0, 1.0));
    fetch.output.push((0, feature, 1.0));
    build.head(0, 0, &fetch);
    build.unit(1, 0, &[(feature, AWAKE - REST)], REST, &[(answer + 5, -0.5), (answer + 6, 0.5)]);
    // At rest the answers' features are 0.5 and -0.5.
    let bias = build.model.get_mut(ParamId::Block(1, BlockParam::MlpOutBias));
    (bias[answer + 5], bias[answer + 6]) = (0.5 + 0.5 * LEAST, -0.5 - 0.5 * LEAST);
    let mut faint = HeadWeights::new();
    faint.key.push((position + 1, 0, 1.0));
    faint.query_bias.push((0, 45.0));
    faint.value.push((token + 3, 0, -FAINT));
    faint.output.extend([(0, answer + 5, 1.0), (0, answer + 6, -1.0)]);
    build.head(1, 1, &faint);
    build.distract(&[(0, 2), (1, 0)], &[0], token..token + TOKENS);

    let pair = |first: u32| Pair {
        clean: vec![0, first, 4],
        corrupted: vec![0, 3, 4],
        correct: vec![5],
        incorrect: vec![6],
    };
    let truth = ["input->a0.h0<v>", "a0.h0->m1", "m1->logits"];
    build.planted("neuron at rest", vec![pair(1), pair(2)], &truth)
}
