//! Gradients against differences of the loss, in f64.

use anyhow::Result;
use locus_circuits::edges::{
    Attribution, Destination, Graph, LogitDiff, Metric, Pair, StandardAblation, attribute_edges, run_clean,
};
use locus_gpt2::ndarray::Axis;
use locus_gpt2::{Batch, BlockParam, Gpt2, Norm, ParamId, ParamSet};
use rayon::prelude::*;

use super::{Check, Questions};

/// Largest difference between a derivative and the fourth-order differences of the loss, relative to the derivative's
/// size.
///
/// A smaller step has a smaller truncation error and a larger rounding error. In f64 the loss carries a rounding error
/// of about 1e-14, the derivatives here are of the order of 0.01 to 1 and the best step is about 1e-3, where both errors
/// are below 1e-9; a wrong term in the backward pass is off by far more than 1e-6.
const TOLERANCE: f64 = 1e-6;
/// Derivative below which the rounding of the loss itself counts: differences are then relative to this.
const FLOOR: f64 = 1e-3;
/// Steps; the best one counts, because a wrong derivative agrees with none.
const STEPS: [f64; 4] = [1e-3, 1e-4, 1e-5, 1e-2];

/// Checks the derivatives along random directions, one for each kind of parameter (all layers together): each entry
/// moves up or down by the root mean square of its tensor times the step. For random signs the derivative has mean 0 and
/// the standard deviation `sqrt(sum (gradient * rms)^2)`; what differs is measured against the larger of the derivative
/// and that deviation, so that an accidental zero is no excuse and no alarm.
pub(super) fn check_parameters(
    model: &Gpt2<f64>,
    questions: &Questions,
    seed: u64,
    report: &mut dyn FnMut(Check),
) -> Result<()> {
    let layers = model.config().n_layer;
    let mut kinds: Vec<(&str, Vec<ParamId>)> = vec![
        ("wte.weight", vec![ParamId::TokenEmbedding]),
        ("wpe.weight", vec![ParamId::PositionEmbedding]),
        ("ln_f.weight", vec![ParamId::FinalNormWeight]),
        ("ln_f.bias", vec![ParamId::FinalNormBias]),
    ];
    let of_blocks = |param: BlockParam| (0..layers).map(|layer| ParamId::Block(layer, param)).collect();
    kinds.extend(BlockParam::ALL.map(|param| (param.name(), of_blocks(param))));

    let directions: Vec<Direction> = kinds.iter().map(|(_, ids)| Direction::new(model, ids, seed)).collect();
    // The gradient is reduced to two numbers a kind before other copies of the weights are made.
    let slopes: Vec<Slope> = {
        let (_, gradient) = questions.gradient(model)?;
        directions.iter().map(|direction| direction.slope(&gradient)).collect()
    };
    let (mut worst, mut wrong) = (0.0, Vec::new());
    for (((kind, _), direction), slope) in kinds.iter().zip(&directions).zip(slopes) {
        let loss = |step: f64| questions.loss(&direction.moved(model, step));
        let (numeric, difference) = differences(slope.derivative, slope.deviation, loss)?;
        if difference <= TOLERANCE {
            worst = difference.max(worst);
        } else {
            wrong.push(format!("{kind} ({:e} against {numeric:e})", slope.derivative));
        }
    }
    let detail = if wrong.is_empty() {
        format!("{} kinds of parameters agree with differences of the loss to {worst:.0e}", kinds.len())
    } else {
        format!("derivatives that differences of the loss contradict: {}", wrong.join(", "))
    };
    report(Check { name: "gradients".into(), passed: Some(wrong.is_empty()), detail });
    Ok(())
}

/// Derivative along the direction of a kind of parameters.
struct Slope {
    derivative: f64,
    /// Standard deviation of the derivative over random signs.
    deviation: f64,
}

/// Direction along which some tensors move: for each, how far an entry goes, and what its signs are drawn from.
struct Direction(Vec<(ParamId, f64, u64)>);

impl Direction {
    fn new(model: &Gpt2<f64>, ids: &[ParamId], seed: u64) -> Self {
        Direction(ids.par_iter().map(|&id| (id, scale(model.get(id)), salt(id, seed))).collect())
    }

    fn slope(&self, gradient: &ParamSet<f64>) -> Slope {
        let (mut derivative, mut square) = (0.0, 0.0);
        for &(id, scale, salt) in &self.0 {
            for (i, g) in gradient.get(id).iter().enumerate() {
                let along = g * scale * sign(salt, i);
                derivative += along;
                square += along * along;
            }
        }
        Slope { derivative, deviation: square.sqrt() }
    }

    /// The model after a step.
    fn moved(&self, model: &Gpt2<f64>, step: f64) -> Gpt2<f64> {
        let mut moved = model.clone();
        for &(id, scale, salt) in &self.0 {
            let entries = moved.get_mut(id).par_iter_mut().with_min_len(1 << 12).enumerate();
            entries.for_each(|(i, w)| *w += step * scale * sign(salt, i));
        }
        moved
    }
}

/// Root mean square of a tensor; 1 for one of zeros.
fn scale(tensor: &[f64]) -> f64 {
    let rms = (tensor.iter().map(|w| w * w).sum::<f64>() / tensor.len().max(1) as f64).sqrt();
    if rms > 0.0 { rms } else { 1.0 }
}

fn salt(id: ParamId, seed: u64) -> u64 {
    let name = id.to_string();
    name.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |salt, byte| mixed(salt ^ u64::from(byte)))
}

/// Pseudo-random sign of an entry.
fn sign(salt: u64, i: usize) -> f64 {
    if mixed(salt.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))) >> 63 == 0 {
        1.0
    } else {
        -1.0
    }
}

/// The finaliser of SplitMix64.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fourth-order central difference of a loss at 0 with the step that agrees best with a derivative, and how far the two
/// are apart, relative to the larger of them, `typical` and [`FLOOR`]. Infinite where a loss is not finite.
fn differences(derivative: f64, typical: f64, loss: impl Fn(f64) -> Result<f64>) -> Result<(f64, f64)> {
    let mut best = (f64::NAN, f64::INFINITY);
    for h in STEPS {
        let numeric = (8.0 * (loss(h)? - loss(-h)?) - (loss(2.0 * h)? - loss(-2.0 * h)?)) / (12.0 * h);
        let size = numeric.abs().max(derivative.abs()).max(typical).max(FLOOR);
        let difference = (numeric - derivative).abs() / size;
        if difference < best.1 || best.0.is_nan() {
            best = (numeric, if difference.is_nan() { f64::INFINITY } else { difference });
        }
        if best.1 <= TOLERANCE {
            break;
        }
    }
    Ok(best)
}

/// Checks two sums of the scores of attribution patching. The edges that leave the embedding add up, with ablation by
/// zero, to the derivative of the loss when the embeddings shrink; those that enter the logits add up to the derivative
/// of the loss when the last residual stream moves towards the corrupted run.
pub(super) fn check_edges(
    model: &Gpt2<f64>,
    questions: &Questions,
    report: &mut dyn FnMut(Check),
) -> Result<()> {
    let [correct, incorrect] = questions.answers.map(|token| vec![token]);
    let [clean, corrupted] = [0, 1].map(|i| questions.sequences[i].clone());
    // One pair, because moving an embedding moves it wherever the token is.
    let pair = [Pair { clean, corrupted, correct, incorrect }];
    let graph = Graph::new(model.config());
    let scores = |ablation| attribute_edges(model, &pair, &LogitDiff, Attribution::Eap, &ablation);

    let leaving = scores(StandardAblation::Zero)?.node_scores()[0];
    let shrunk = |step: f64| {
        // The tied head must not move with the embedding, so the position embeddings carry the change.
        let (mut moved, d) = (model.clone(), model.config().n_embd);
        for (position, &token) in pair[0].clean.iter().enumerate() {
            let embedding = &model.get(ParamId::TokenEmbedding)[token as usize * d..][..d];
            let sum = &mut moved.get_mut(ParamId::PositionEmbedding)[position * d..][..d];
            sum.iter_mut().zip(embedding).for_each(|(w, x)| *w -= step * x);
        }
        Ok(-run_clean(&moved, &pair, &LogitDiff)?[0])
    };
    report(sum_check("edges from input", leaving, differences(leaving, 0.0, shrunk)?));

    let entering =
        scores(StandardAblation::Corrupted)?.matrix().column(graph.column(Destination::Logits)).sum();
    let last = |tokens: &Vec<u32>| -> Result<_> {
        let batch = Batch::new(model.config(), &[tokens])?;
        let states = model.run(&batch).until_layer(model.config().n_layer).resid();
        Ok(states.row(states.nrows() - 1).to_owned())
    };
    let (clean, corrupted) = (last(&pair[0].clean)?, last(&pair[0].corrupted)?);
    let towards = |step: f64| {
        let state = &clean + &((&corrupted - &clean) * step);
        let hidden = model.layer_norm(Norm::Final, state.view().insert_axis(Axis(0)));
        let logits = model.logits(hidden.view()).into_raw_vec_and_offset().0;
        Ok(-LogitDiff.value(&pair[0], &logits, &logits))
    };
    report(sum_check("edges to logits", entering, differences(entering, 0.0, towards)?));
    Ok(())
}

fn sum_check(name: &str, sum: f64, (numeric, difference): (f64, f64)) -> Check {
    let passed = difference <= TOLERANCE;
    let detail = if passed {
        format!("scores add up to the slope of the loss, {sum:.6}, to {difference:.0e}")
    } else {
        format!("scores add up to {sum:e}; differences of the loss say {numeric:e}")
    };
    Check { name: name.into(), passed: Some(passed), detail }
}
