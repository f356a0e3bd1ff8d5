//! Fluency of generated text: an edited model that repeats itself has few distinct n-grams.
//!
//! Source: Zhang et al. 2018 (arXiv:1809.05972); as weighted by ROME (Meng et al. 2022, arXiv:2202.05262), which
//! calls it generation entropy (GE), takes it of 100 tokens including the prompt, split into words by NLTK, and
//! reports the mean over texts times 100.

/// Entropy in bits of the frequencies of n-grams: `sum_g f(g) log2(1 / f(g))`, from 0 (one n-gram repeated) to
/// `log2` of the number of positions (all distinct); `None` of a text shorter than `n`.
///
/// ```
/// use locus_metrics::fluency::ngram_entropy;
/// assert_eq!(ngram_entropy(&["so", "far", "so", "good"], 1), Some(1.5));
/// ```
///
/// # Panics
/// If `n` is zero.
pub fn ngram_entropy<T: Ord>(text: &[T], n: usize) -> Option<f64> {
    let mut ngrams: Vec<&[T]> = text.windows(n).collect();
    ngrams.sort_unstable();
    let mut counts: Vec<usize> = ngrams.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
    // Sums in the order of counts are the same however the n-grams themselves are ordered.
    counts.sort_unstable();
    let total = ngrams.len() as f64;
    let bits = |count: usize| count as f64 / total * (total / count as f64).log2();
    (!ngrams.is_empty()).then(|| counts.into_iter().map(bits).sum())
}

/// Generation entropy, `H2 / 3 + 2 H3 / 3` of the entropies of bigrams and trigrams; `None` of a text that is too
/// short for a trigram.
///
/// ROME's code writes it as the mean of `2/3 H2` and `4/3 H3`.
pub fn generation_entropy<T: Ord>(text: &[T]) -> Option<f64> {
    let (bigrams, trigrams) = (ngram_entropy(text, 2)?, ngram_entropy(text, 3)?);
    Some((bigrams + 2.0 * trigrams) / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entropies_agree_with_the_formulas() {
        let text: Vec<&str> = "the cat sat on the mat and the cat sat on the hat".split(' ').collect();
        // -sum f log2 f over a Counter of n-grams, and mean(2/3 H2, 4/3 H3), evaluated in Python.
        for (n, expected) in [(1, 2.623516641218015), (2, 2.9182958340544896), (3, 2.9139770731827523)] {
            assert!((ngram_entropy(&text, n).unwrap() - expected).abs() < 1e-14);
        }
        assert!((generation_entropy(&text).unwrap() - 2.915416660139998).abs() < 1e-14);
    }

    #[test]
    fn short_texts_have_no_entropy() {
        assert_eq!(ngram_entropy::<u8>(&[], 1), None);
        assert_eq!(generation_entropy(&[1, 2]), None);
        assert_eq!(generation_entropy(&[1, 2, 3]), Some(1.0 / 3.0)); // two bigrams, one trigram
    }

    proptest! {
        #[test]
        fn repetition_has_none(length in 3usize..200) {
            prop_assert_eq!(generation_entropy(&vec![7; length]), Some(0.0));
        }

        #[test]
        fn distinct_ngrams_have_the_logarithm_of_their_number(length in 3usize..200, n in 1usize..4) {
            let text: Vec<usize> = (0..length).collect();
            let positions = (length + 1 - n) as f64;
            prop_assert!((ngram_entropy(&text, n).unwrap() - positions.log2()).abs() < 1e-12);
        }

        #[test]
        fn longer_ngrams_and_bounds(text in prop::collection::vec(0u8..4, 4..60)) {
            let [one, two, three] = [1, 2, 3].map(|n| ngram_entropy(&text, n).unwrap());
            prop_assert!((0.0..=2.0 + 1e-12).contains(&one)); // four letters
            for (n, entropy) in [(2, two), (3, three)] {
                prop_assert!((0.0..=((text.len() + 1 - n) as f64).log2() + 1e-12).contains(&entropy));
            }
            let weighted = generation_entropy(&text).unwrap();
            prop_assert!(weighted >= two.min(three) - 1e-12 && weighted <= two.max(three) + 1e-12);
        }

        #[test]
        fn names_of_tokens_and_direction_do_not_matter(text in prop::collection::vec(0u8..4, 3..60)) {
            let renamed: Vec<&str> = text.iter().map(|&token| ["d", "a", "c", "b"][token as usize]).collect();
            let reversed: Vec<u8> = text.iter().rev().copied().collect();
            prop_assert_eq!(generation_entropy(&text), generation_entropy(&renamed));
            prop_assert_eq!(generation_entropy(&text), generation_entropy(&reversed));
        }
    }
}
