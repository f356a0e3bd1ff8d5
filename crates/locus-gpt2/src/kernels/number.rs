//! The two number types the model runs in: arithmetic, conversion and elementary functions.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, SubAssign};

use ndarray::LinalgScalar;
use num_traits::Float;
use safetensors::Dtype;

use super::simd::SimdNumber;

/// `f32` (the default everywhere) or `f64` (for checks against finite differences and golden values), and no other
/// type: the vectors that it requires cannot be named outside of this crate, so that it cannot be implemented there.
pub trait Number:
    LinalgScalar
    + Float
    + Sum
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Debug
    + Display
    + Default
    + Send
    + Sync
    + SimdNumber
    + 'static
{
    /// The safetensors type tag.
    const DTYPE: Dtype;

    /// Rounds a double to this type.
    fn from_f64(x: f64) -> Self;

    /// Widens to a double.
    fn as_f64(self) -> f64;

    /// `e^x`. For `f32` a polynomial that vectorises and gives the same bits on every machine, within 2 units in the
    /// last place, and 0 where the result is no normal number; for `f64` the standard library's.
    fn fast_exp(self) -> Self;

    /// Hyperbolic tangent through [`Number::fast_exp`], absolute error below 2e-7 for `f32`.
    #[inline(always)]
    fn fast_tanh(self) -> Self {
        let two = Self::one() + Self::one();
        Self::one() - two / ((two * self).fast_exp() + Self::one())
    }

    /// The number itself if all bits of `lane` are set, zero if none is: a choice without a branch.
    fn kept(self, lane: u32) -> Self;

    /// Appends the little-endian bytes, as safetensors stores them.
    fn put_le(self, out: &mut Vec<u8>);
}

impl Number for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }

    #[inline(always)]
    fn as_f64(self) -> f64 {
        f64::from(self)
    }

    // Range reduction x = n ln 2 + r with |r| <= ln 2 / 2, then the degree-6 Taylor-like minimax polynomial of the
    // Cephes library. ln 2 is split in two so that n ln 2 is exact to more than single precision.
    #[inline(always)]
    fn fast_exp(self) -> Self {
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        // Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the last bits; subtracting it gives the
        // number.
        const ROUND: f32 = 12_582_912.0;
        // Comparisons are written so that NaN passes through both of them.
        let x = if self > 88.3 { 88.3 } else { self };
        let x = if x < -87.3 { -87.3 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * LN2_HIGH - n * LN2_LOW;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_199_9e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 5e-1;
        let mantissa = p * r * r + r + 1.0;
        // 2^n; a conversion to an integer would saturate, which takes longer than all the rest.
        let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        // Below the smallest normal number: what is left of it would slow down every product that it goes into.
        if self < -87.3 { 0.0 } else { mantissa * power }
    }

    #[inline(always)]
    fn kept(self, lane: u32) -> Self {
        f32::from_bits(self.to_bits() & lane)
    }

    fn put_le(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Number for f64 {
    const DTYPE: Dtype = Dtype::F64;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn as_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn fast_exp(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn kept(self, lane: u32) -> Self {
        f64::from_bits(self.to_bits() & i64::from(lane.cast_signed()).cast_unsigned())
    }

    fn put_le(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_exp_is_within_two_ulp() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            let ulp = (exact as f32).to_bits().abs_diff(x.fast_exp().to_bits());
            assert!(ulp <= 2, "exp({x}) is off by {ulp} units in the last place");
        }
    }

    #[test]
    fn tanh_saturates_and_keeps_nan() {
        assert_eq!(100f32.fast_tanh(), 1.0);
        assert_eq!((-100f32).fast_tanh(), -1.0);
        assert!(f32::NAN.fast_exp().is_nan());
        assert_eq!((-87.4f32).fast_exp(), 0.0);
        assert_eq!(f32::NEG_INFINITY.fast_exp(), 0.0);
        for i in -500..500 {
            let x = i as f32 / 50.0;
            assert!((f64::from(x.fast_tanh()) - f64::from(x).tanh()).abs() < 2e-7);
        }
    }
}
