//! RelP: the backward pass with the propagation rules of layer-wise relevance propagation in place of derivatives.
//!
//! A rule treats a factor that depends on a layer's input as a constant of the clean run:
//!
//! ```text
//! LayerNorm, y = (x - mean(x)) r gain + bias     r = 1 / deviation      d_x = r (g - mean(g)),  g = gain d_y
//! GELU,      y = s x                             s = gelu(x) / x        d_x = s d_y
//! ```
//!
//! Linear layers, residual sums and attention have their derivatives. What comes out at a destination, the propagation
//! coefficient, takes the gradient's place in the score of an edge. With constant attention patterns and no biases the
//! model is linear under these rules, and the coefficients times the inputs add up to the loss (conservation).
//!
//! Source: Rezaei Jafari, Eberle, Khakzar, Nanda 2025 (arXiv 2508.21258): LN-rule, Identity-rule and 0-rule, which its
//! code runs on GPT-2. The paper's AH-rule, a constant attention pattern, is left out as in that code: edges into
//! queries and keys would have no score. Deviation: coefficients are of the clean run (the code takes those of the
//! corrupted run, into which it patches clean states), and GELU's secant at 0 is its limit 1/2, without a stabiliser.
//!
//! Letters: `n` rows, `d` width, `f` MLP width, `L` layers.

use locus_gpt2::{BlockParam, Gpt2, Hook, HookPoint, Norm, ParamId, Scalar};
use ndarray::{Array2, ArrayViewMut2, Axis, s};

/// Constants of the rules; a hook of the clean run, which fills them in.
pub(super) struct RelevanceRules<F> {
    /// Rows of the clean run, which come first in the states.
    n: usize,
    n_layer: usize,
    epsilon: f64,
    /// Secants of GELU, `[n, f]` of each layer; while a layer runs, what the MLP is before the activation.
    secants: Vec<Array2<F>>,
    /// Reciprocal deviations `[n]` of the LayerNorms in the order of the pass.
    rstd: Vec<Vec<F>>,
}

impl<F: Scalar> RelevanceRules<F> {
    /// Rules without constants, for a clean run of `n` rows.
    pub fn new(model: &Gpt2<F>, n: usize) -> Self {
        let (n_layer, epsilon) = (model.config().n_layer, model.config().layer_norm_epsilon);
        RelevanceRules { n, n_layer, epsilon, secants: Vec::new(), rstd: Vec::new() }
    }

    /// Turns a coefficient `d [n, d]` at the output of a LayerNorm into one at its input, in place.
    pub fn through_norm(&self, model: &Gpt2<F>, norm: Norm, mut d: ArrayViewMut2<F>) {
        let (rstd, gain) = match norm {
            Norm::Attention(layer) => (2 * layer, ParamId::Block(layer, BlockParam::Ln1Weight)),
            Norm::Mlp(layer) => (2 * layer + 1, ParamId::Block(layer, BlockParam::Ln2Weight)),
            Norm::Final => (2 * self.n_layer, ParamId::FinalNormWeight),
        };
        let gain = model.get(gain);
        let share = F::one() / F::from_f64(gain.len() as f64);
        for (mut d, &rstd) in d.rows_mut().into_iter().zip(&self.rstd[rstd]) {
            let d = d.as_slice_mut().expect("rows are contiguous");
            d.iter_mut().zip(gain).for_each(|(d, &gain)| *d *= gain);
            let mean = sum(d) * share;
            d.iter_mut().for_each(|d| *d = rstd * (*d - mean));
        }
    }

    /// Coefficients `[n, f]` before the activation of a layer, from those behind it.
    pub fn through_activation(&self, layer: usize, d_post: ArrayViewMut2<F>) -> Array2<F> {
        &d_post * &self.secants[layer]
    }

    fn deviations(&self, x: ArrayViewMut2<F>) -> Vec<F> {
        let share = F::one() / F::from_f64(x.ncols() as f64);
        let of_row = |row: &[F]| {
            let mean = sum(row) * share;
            let squares = row.iter().fold(F::zero(), |sum, &x| sum + (x - mean) * (x - mean));
            F::one() / (squares * share + F::from_f64(self.epsilon)).sqrt()
        };
        let rows = x.axis_iter(Axis(0)).take(self.n);
        rows.map(|row| of_row(row.to_slice().expect("rows are contiguous"))).collect()
    }
}

impl<F: Scalar> Hook<F> for RelevanceRules<F> {
    fn call(&mut self, layer: usize, point: HookPoint, state: ArrayViewMut2<F>) {
        match point {
            HookPoint::ResidPre | HookPoint::ResidMid => self.rstd.push(self.deviations(state)),
            HookPoint::ResidPost if layer + 1 == self.n_layer => self.rstd.push(self.deviations(state)),
            HookPoint::MlpPre => self.secants.push(state.slice(s![..self.n, ..]).to_owned()),
            HookPoint::MlpPost => {
                let post = state.slice(s![..self.n, ..]);
                self.secants[layer].zip_mut_with(&post, |pre, &post| {
                    *pre = if *pre == F::zero() { F::from_f64(0.5) } else { post / *pre };
                });
            }
            _ => {}
        }
    }
}

/// Sum in eight lanes, which do not wait for each other.
fn sum<F: Scalar>(x: &[F]) -> F {
    let (blocks, rest) = x.as_chunks::<8>();
    let mut sums = [F::zero(); 8];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, &x)| *sum += x);
    }
    sums.iter().chain(rest).fold(F::zero(), |sum, &x| sum + x)
}
