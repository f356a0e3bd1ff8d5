//! Vectors of the two number types, whatever the width of the processor's registers.

use pulp::Simd;

/// A number type with vectors, on whatever processor the program runs. Nothing outside of this crate can name this
/// trait, which seals [`Number`](super::number::Number).
pub trait SimdNumber: Copy {
    /// A register full of numbers.
    type Vector<S: Simd>: Copy;
    /// As many whole vectors as a slice holds.
    fn vectors<S: Simd>(x: &[Self]) -> &[Self::Vector<S>];
    /// As many whole vectors as a slice holds, to write to.
    fn vectors_mut<S: Simd>(x: &mut [Self]) -> &mut [Self::Vector<S>];
    /// One number in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a b + c`.
    fn fused<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>)
    -> Self::Vector<S>;
    /// Sum over the lanes.
    fn sum_lanes<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;
}

macro_rules! simd_number {
    ($number:ty, $vector:ident, $split:ident, $split_mut:ident, $splat:ident, $mul_add:ident, $sum:ident) => {
        impl SimdNumber for $number {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn vectors<S: Simd>(x: &[Self]) -> &[S::$vector] {
                S::$split(x).0
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(x: &mut [Self]) -> &mut [S::$vector] {
                S::$split_mut(x).0
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }

            #[inline(always)]
            fn fused<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$mul_add(a, b, c)
            }

            #[inline(always)]
            fn sum_lanes<S: Simd>(simd: S, a: S::$vector) -> Self {
                simd.$sum(a)
            }
        }
    };
}

simd_number!(f32, f32s, as_simd_f32s, as_mut_simd_f32s, splat_f32s, mul_add_f32s, reduce_sum_f32s);
simd_number!(f64, f64s, as_simd_f64s, as_mut_simd_f64s, splat_f64s, mul_add_f64s, reduce_sum_f64s);

/// Numbers in one vector.
#[inline(always)]
pub(crate) const fn lanes<F: SimdNumber, S: Simd>() -> usize {
    size_of::<F::Vector<S>>() / size_of::<F>()
}
