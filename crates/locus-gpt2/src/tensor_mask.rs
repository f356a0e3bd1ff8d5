//! The part of a mask that belongs to one parameter.

use fixedbitset::FixedBitSet;

use crate::scalar::Scalar;

/// Scalars of a parameter that are inside a mask: a bit for each, in the order of the parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMask(FixedBitSet);

/// Number of scalars in one word.
const PER_WORD: usize = usize::BITS as usize;

/// For each byte, a number for each of its bits, from the lowest on: all bits set if it is 1, none if it is 0. A loop over
/// these vectorises, one over bits does not.
static LANES: [[u32; 8]; 256] = {
    let mut lanes = [[0; 8]; 256];
    let mut at = 0;
    while at < 256 * 8 {
        let (byte, bit) = (at / 8, at % 8);
        if byte >> bit & 1 == 1 {
            lanes[byte][bit] = u32::MAX;
        }
        at += 1;
    }
    lanes
};

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
            let eights = from.chunks(8).zip(to.chunks_mut(8));
            for ((from, to), byte) in eights.zip(word.to_le_bytes()) {
                let lanes = &LANES[usize::from(byte)];
                from.iter().zip(to).zip(lanes).for_each(|((from, to), &lane)| *to = from.kept(lane));
            }
        }
    }

    /// Writes zeros over the values outside.
    ///
    /// # Panics
    /// When there are more or fewer values than the parameter has.
    pub fn clear_outside<F: Scalar>(&self, values: &mut [F]) {
        assert_eq!(values.len(), self.len(), "values of a parameter");
        self.clear_outside_from(0, values);
    }

    /// Writes zeros over the values outside, of a part of the parameter that begins with scalar `first`.
    ///
    /// # Panics
    /// When the part goes beyond the parameter.
    pub fn clear_outside_from<F: Scalar>(&self, first: usize, values: &mut [F]) {
        assert!(first + values.len() <= self.len(), "values beyond a parameter");
        let (head, rest) = values.split_at_mut(values.len().min(first.wrapping_neg() % PER_WORD));
        let parts = [head].into_iter().chain(rest.chunks_mut(PER_WORD));
        let mut at = first;
        for values in parts.filter(|values| !values.is_empty()) {
            let word = self.0.as_slice()[at / PER_WORD] >> (at % PER_WORD);
            at += values.len();
            for (values, byte) in values.chunks_mut(8).zip(word.to_le_bytes()) {
                let lanes = &LANES[usize::from(byte)];
                values.iter_mut().zip(lanes).for_each(|(value, &lane)| *value = value.kept(lane));
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
            for (first, end) in [(1, len), (len / 2, len), (PER_WORD, len), (len / 3, 2 * len / 3)] {
                let part = first.min(end)..end;
                let mut cleared = values[part.clone()].to_vec();
                mask.clear_outside_from(part.start, &mut cleared);
                assert_eq!(cleared, kept[part]);
            }
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
