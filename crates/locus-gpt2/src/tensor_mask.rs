//! The part of a mask that belongs to one parameter.

use fixedbitset::FixedBitSet;

use crate::scalar::Scalar;

/// Scalars of a parameter that are inside a mask: a bit for each, in the order of the parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMask(FixedBitSet);

/// Number of scalars in one word.
const PER_WORD: usize = usize::BITS as usize;

impl TensorMask {
    /// Number of scalars of the parameter, inside and outside.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the parameter has no scalar.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of scalars inside.
    pub fn count(&self) -> usize {
        self.0.count_ones(..)
    }

    /// Whether a scalar is inside; `false` beyond the last one.
    pub fn contains(&self, index: usize) -> bool {
        self.0.contains(index)
    }

    /// Whether each scalar is inside.
    pub fn iter(&self) -> impl Iterator<Item = bool> {
        let bits = |&word: &usize| (0..PER_WORD).map(move |bit| word >> bit & 1 == 1);
        self.0.as_slice().iter().flat_map(bits).take(self.len())
    }

    /// Indices of the scalars inside, in ascending order.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.0.ones()
    }

    /// Copies the values inside, and writes zeros where they are outside.
    ///
    /// # Panics
    /// When either side has another length than the parameter.
    pub fn copy_inside<F: Scalar>(&self, from: &[F], to: &mut [F]) {
        assert_eq!([from.len(), to.len()], [self.len(); 2], "values of a parameter");
        let chunks = from.chunks(PER_WORD).zip(to.chunks_mut(PER_WORD));
        for ((from, to), &word) in chunks.zip(self.0.as_slice()) {
            for (bit, (&from, to)) in from.iter().zip(to).enumerate() {
                *to = if word >> bit & 1 == 1 { from } else { F::zero() };
            }
        }
    }

    /// Writes zeros over the values outside.
    ///
    /// # Panics
    /// When there are more or fewer values than the parameter has.
    pub fn clear_outside<F: Scalar>(&self, values: &mut [F]) {
        assert_eq!(values.len(), self.len(), "values of a parameter");
        for (values, &word) in values.chunks_mut(PER_WORD).zip(self.0.as_slice()) {
            for (bit, value) in values.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *value = F::zero();
                }
            }
        }
    }

    pub(crate) fn complement(&self) -> Self {
        let mut mask = self.clone();
        mask.0.toggle_range(..);
        mask
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        TensorMask(&self.0 | &other.0)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        TensorMask(&self.0 & &other.0)
    }

    pub(crate) fn intersection_count(&self, other: &Self) -> usize {
        self.0.intersection_count(&other.0)
    }

    /// A byte for each scalar, 1 inside and 0 outside: how mask files have it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.iter().map(u8::from).collect()
    }
}

/// Collects one `bool` for each scalar, true inside.
impl FromIterator<bool> for TensorMask {
    fn from_iter<I: IntoIterator<Item = bool>>(inside: I) -> Self {
        let (mut words, mut len) = (Vec::new(), 0);
        for inside in inside {
            if len % PER_WORD == 0 {
                words.push(0);
            }
            words[len / PER_WORD] |= usize::from(inside) << (len % PER_WORD);
            len += 1;
        }
        TensorMask(FixedBitSet::with_capacity_and_blocks(len, words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths around a word, against one `bool` for each scalar.
    #[test]
    fn bits_are_what_they_were_made_from() {
        for len in [0, 1, PER_WORD - 1, PER_WORD, PER_WORD + 1, 3 * PER_WORD, 3 * PER_WORD + 7] {
            let inside: Vec<bool> = (0..len).map(|i| i * 7919 % 13 < 5).collect();
            let mask: TensorMask = inside.iter().copied().collect();
            assert_eq!((mask.len(), mask.is_empty()), (len, len == 0));
            assert_eq!(mask.iter().collect::<Vec<_>>(), inside);
            assert_eq!(mask.count(), inside.iter().filter(|inside| **inside).count());
            assert_eq!(mask.indices().collect::<Vec<_>>(), positions(&inside));
            assert!((0..len).all(|i| mask.contains(i) == inside[i]) && !mask.contains(len));
            let not: Vec<bool> = inside.iter().map(|inside| !inside).collect();
            assert_eq!(mask.complement(), not.into_iter().collect());
            assert_eq!(mask.complement().complement(), mask);
            let other: TensorMask = (0..len).map(|i| i % 3 == 0).collect();
            let both = |rule: fn(bool, bool) -> bool| -> TensorMask {
                (0..len).map(|i| rule(inside[i], i % 3 == 0)).collect()
            };
            assert_eq!(mask.union(&other), both(|a, b| a || b));
            assert_eq!(mask.intersection(&other), both(|a, b| a && b));
            assert_eq!(mask.intersection_count(&other), both(|a, b| a && b).count());
            let values: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            let kept = values.iter().zip(&inside).map(|(&value, &inside)| if inside { value } else { 0.0 });
            let kept: Vec<f32> = kept.collect();
            let (mut copied, mut cleared) = (vec![-1.0; len], values.clone());
            mask.copy_inside(&values, &mut copied);
            mask.clear_outside(&mut cleared);
            assert_eq!((&copied, &cleared), (&kept, &kept));
        }
    }

    fn positions(inside: &[bool]) -> Vec<usize> {
        (0..inside.len()).filter(|&i| inside[i]).collect()
    }

    #[test]
    #[should_panic(expected = "values of a parameter")]
    fn values_of_another_parameter_are_refused() {
        let mask: TensorMask = [true, false].into_iter().collect();
        mask.clear_outside(&mut [1.0f32; 3]);
    }
}
