//! AdamW on flat slices.

use crate::kernels::number::Number;
use crate::scalar::{Scalar, compiled};

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), as in PyTorch: the decay is multiplied by
/// the learning rate, moments start at zero and are corrected for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate, above 0.
    pub lr: f64,
    /// Decay of the mean of gradients, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of squared gradients, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Share of each parameter removed per unit of learning rate.
    pub weight_decay: f64,
}

compiled!(
    StepJob<'a>: <F> (&'a AdamW, usize, &'a mut [F], &'a [F], (&'a mut [F], &'a mut [F])) => (),
    |(adam, t, params, grads, moments)| AdamW::update(adam, t, params, grads, moments)
);

impl AdamW {
    /// PyTorch's defaults (betas 0.9 and 0.999, epsilon 1e-8, weight decay 0.01) at a learning rate.
    pub fn new(lr: f64) -> Self {
        AdamW { lr, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }

    /// Takes step number `t` (from 1). `moments` holds a mean and a mean square per parameter.
    ///
    /// # Panics
    /// When the lengths differ; the message has all of them.
    pub fn step<F: Scalar>(&self, t: usize, params: &mut [F], grads: &[F], moments: &mut Moments<F>) {
        self.step_part(t, params, grads, moments.parts_mut());
    }

    /// Takes step number `t` of a part of a tensor, with the moments of that part ([`Moments::parts_mut`]).
    ///
    /// # Panics
    /// When the lengths differ; the message has all of them.
    pub fn step_part<F: Scalar>(
        &self,
        t: usize,
        params: &mut [F],
        grads: &[F],
        moments: (&mut [F], &mut [F]),
    ) {
        F::run::<StepJob>((self, t, params, grads, moments));
    }

    fn update<F: Scalar>(
        &self,
        t: usize,
        params: &mut [F],
        grads: &[F],
        (mean, square): (&mut [F], &mut [F]),
    ) {
        let n = params.len();
        let lengths = [grads.len(), mean.len(), square.len()];
        assert!(lengths == [n; 3], "{n} parameters; gradients, means and mean squares: {lengths:?}");
        let one = F::one();
        let (b1, b2) = (F::from_f64(self.beta1), F::from_f64(self.beta2));
        let keep = F::from_f64(1.0 - self.lr * self.weight_decay);
        // lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), with the corrections folded into two scalars.
        let root = (1.0 - self.beta2.powi(t as i32)).sqrt();
        let rate = F::from_f64(self.lr * root / (1.0 - self.beta1.powi(t as i32)));
        let epsilon = F::from_f64(self.epsilon * root);
        for ((param, &grad), (m, v)) in params.iter_mut().zip(grads).zip(mean.iter_mut().zip(square)) {
            *m = b1 * *m + (one - b1) * grad;
            *v = b2 * *v + (one - b2) * grad * grad;
            *param = keep * *param - rate * *m / (v.sqrt() + epsilon);
        }
    }
}

/// Running means of the gradients of one tensor and of their squares.
#[derive(Clone, Debug)]
pub struct Moments<F> {
    mean: Vec<F>,
    square: Vec<F>,
}

impl<F: Number> Moments<F> {
    /// Zeros for `n` parameters.
    pub fn zeros(n: usize) -> Self {
        Moments { mean: vec![F::zero(); n], square: vec![F::zero(); n] }
    }

    /// Means and mean squares.
    pub fn parts(&self) -> (&[F], &[F]) {
        (&self.mean, &self.square)
    }

    /// Means and mean squares, to cut into parts.
    pub fn parts_mut(&mut self) -> (&mut [F], &mut [F]) {
        (&mut self.mean, &mut self.square)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch 2.15.0, AdamW(lr=0.1, weight_decay=0.01) on one parameter of 1.0 with gradients 0.5, -0.25, 1.0.
    #[test]
    fn agrees_with_pytorch() {
        let (mut x, mut moments) = ([1.0f64], Moments::zeros(1));
        let adam = AdamW::new(0.1);
        for (t, (grad, expected)) in
            [(0.5, 0.899_000_002), (-0.25, 0.871_467_298_705_846_3), (1.0, 0.804_784_672_376_384)]
                .into_iter()
                .enumerate()
        {
            adam.step(t + 1, &mut x, &[grad], &mut moments);
            assert!((x[0] - expected).abs() < 1e-12, "step {}: {} against {expected}", t + 1, x[0]);
        }
    }
}
