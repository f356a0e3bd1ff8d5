//! What an edit did: success and magnitude on prompts, scores token by token, and how repetitive free text became.
//!
//! | number | definition | source |
//! |---|---|---|
//! | ES, PS, NS | share of prompts on which the wanted target has the smaller NLL | Meng et al. 2022a, section 3.3 |
//! | EM, PM, NM | mean of `P(wanted) - P(other)` | Meng et al. 2022a, section 3.3 |
//! | S | harmonic mean of ES, PS and NS | Meng et al. 2022a, section 3.3 |
//! | GE | `H_2 / 3 + 2 H_3 / 3`, entropies of bigrams and trigrams | Meng et al. 2022a, section 3.3; weights of its code |
//! | correct | every target token is most likely, teacher-forced | code of Meng et al. 2022b |
//! | token accuracy | share of target tokens that are most likely, teacher-forced | zsRE in the code of Meng et al. 2022a |
//! | locality | share of places whose most likely token did not change | EasyEdit |
//! | exact match | greedy generation begins with the target | Yang et al. 2025 on why not teacher-forced |
//! | free accuracy | share of target tokens in greedy generation, each at its place | as above |
//!
//! Meng et al. 2022a is ROME (arXiv 2202.05262), 2022b MEMIT (arXiv 2210.07229), Yang et al. 2025 is arXiv 2502.11177.
//!
//! Greedy generation takes the most likely token each time, so it begins with the target exactly if every token of the
//! target is the most likely one under teacher forcing: "correct" and "exact match" are one number. Accuracies by token
//! are not.
//!
//! NLLs are means per target token in nats, as in ROME's code. A prompt has two of them, `[new, true]`: that of the
//! counterfactual target, and that of the target which was true before the edit.

use std::collections::BTreeMap;

use crate::bootstrap::cluster_bootstrap;
use crate::token::{beats, mean, probability};
use crate::{Interval, Stream};

/// What an edit did on the prompts of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Share of prompts on which the wanted target has strictly the smaller NLL: ES, PS or NS, in [0, 1].
    pub success: f64,
    /// Mean probability per token of the wanted target minus that of the other: EM, PM or NM, in [-1, 1].
    pub magnitude: f64,
}

/// Outcome on rewriting prompts (ES, EM) or paraphrases (PS, PM), where the new target should win. `None` without
/// prompts and when an NLL is NaN.
///
/// ```
/// use locus_metrics::editing::new_wins;
///
/// let after = new_wins(&[[0.1, 3.0], [2.0, 2.0]]).unwrap();
/// assert_eq!(after.success, 0.5); // a tie is not a win
/// ```
pub fn new_wins(prompts: &[[f64; 2]]) -> Option<Outcome> {
    outcome(prompts, |[new, old]| (new, old))
}

/// Outcome on neighbourhood prompts (NS, NM), where the true target should still win. `None` without prompts and when
/// an NLL is NaN.
pub fn true_holds(prompts: &[[f64; 2]]) -> Option<Outcome> {
    outcome(prompts, |[new, old]| (old, new))
}

/// Outcome when `ordered` puts the NLL of the wanted target first.
fn outcome(prompts: &[[f64; 2]], ordered: fn([f64; 2]) -> (f64, f64)) -> Option<Outcome> {
    if prompts.iter().flatten().any(|nll| nll.is_nan()) {
        return None;
    }
    let won = |&pair: &[f64; 2]| {
        let (wanted, other) = ordered(pair);
        f64::from(u8::from(beats(wanted, other)))
    };
    let margin = |&pair: &[f64; 2]| {
        let (wanted, other) = ordered(pair);
        probability(wanted) - probability(other)
    };
    Some(Outcome {
        success: mean(&prompts.iter().map(won).collect::<Vec<_>>())?,
        magnitude: mean(&prompts.iter().map(margin).collect::<Vec<_>>())?,
    })
}

/// Harmonic mean of shares, CounterFact's S of ES, PS and NS: 0 when one of them is 0, `None` without shares.
pub fn harmonic_mean(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().map(|share| 1.0 / share).sum();
    (!shares.is_empty()).then(|| shares.len() as f64 / sum)
}

/// Harmonic mean of three means over requests with its interval: CounterFact's S of `[ES, PS, NS]`, zsRE's score of
/// `[efficacy, paraphrase, specificity]`.
///
/// A resample draws requests with all three of their values. A request that lacks a value (it has no neighbourhood
/// prompts) does not count in that mean; `None` when no request has one of the values.
///
/// # Panics
/// If `resamples` is 0.
pub fn score(requests: &[[Option<f64>; 3]], resamples: usize, stream: Stream) -> Option<Interval> {
    score_in_clusters(requests, &(0..requests.len()).collect::<Vec<_>>(), resamples, stream)
}

/// The interval of [`score`] when requests belong together, such as those about one subject: whole clusters are drawn.
/// `keys` has the cluster of each request.
///
/// # Panics
/// If `resamples` is 0 or the lengths differ.
pub fn score_in_clusters<K: Ord>(
    requests: &[[Option<f64>; 3]],
    keys: &[K],
    resamples: usize,
    stream: Stream,
) -> Option<Interval> {
    assert_eq!(requests.len(), keys.len(), "one cluster key per request");
    let score_of = |rows: &[usize]| {
        let mean_of =
            |kind: usize| mean(&rows.iter().filter_map(|&row| requests[row][kind]).collect::<Vec<_>>());
        harmonic_mean(&[mean_of(0)?, mean_of(1)?, mean_of(2)?])
    };
    score_of(&(0..requests.len()).collect::<Vec<_>>())?;
    // A resample in which no request has some value is left out.
    Some(cluster_bootstrap(keys, resamples, stream, |rows| score_of(rows).unwrap_or(f64::NAN)))
}

/// Whether every token of the target is the most likely one after the prompt and the target's earlier tokens, as
/// MEMIT's code counts a correct answer. `predicted` has the most likely token at each place of the target; `None` of
/// an empty target.
///
/// # Panics
/// If the lengths differ.
pub fn all_correct(predicted: &[u32], target: &[u32]) -> Option<bool> {
    assert_eq!(predicted.len(), target.len(), "lists of different length");
    (!target.is_empty()).then(|| predicted == target)
}

/// Share of places at which two lists have the same token. zsRE's accuracy compares the most likely tokens under
/// teacher forcing with the target; EasyEdit's locality compares the most likely tokens before and after the edit.
/// `None` of empty lists.
///
/// # Panics
/// If the lengths differ.
pub fn token_agreement(a: &[u32], b: &[u32]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "lists of different length");
    mean(&a.iter().zip(b).map(|(a, b)| f64::from(u8::from(a == b))).collect::<Vec<_>>())
}

/// Whether freely generated tokens begin with the target: without partial credit, and without the target's own tokens
/// to help. `None` of an empty target.
pub fn exact_match(generated: &[u32], target: &[u32]) -> Option<bool> {
    (!target.is_empty()).then(|| generated.starts_with(target))
}

/// Share of the target's places at which freely generated tokens have the target's token. A place that generation did
/// not reach counts as missed; `None` of an empty target.
///
/// After a first wrong token the model goes on from its own text, not from the target's as under teacher forcing, which
/// is why this accuracy can be far below that of [`token_agreement`].
pub fn free_accuracy(generated: &[u32], target: &[u32]) -> Option<f64> {
    let hit = |(place, token)| f64::from(u8::from(generated.get(place) == Some(token)));
    mean(&target.iter().enumerate().map(hit).collect::<Vec<_>>())
}

/// Whether an edit turned the answer around: the true target was at least as probable before, and the new one is
/// strictly more probable after. Both are NLLs `[new, true]`.
pub fn flipped(before: [f64; 2], after: [f64; 2]) -> bool {
    !beats(before[0], before[1]) && beats(after[0], after[1])
}

/// Weighted entropy of a text's bigrams and trigrams in bits, `H_2 / 3 + 2 H_3 / 3` (GE), which falls when a model
/// repeats itself. `None` of fewer than three tokens.
///
/// ROME's code gets there as the mean of `2/3 H_2` and `4/3 H_3` over the words of NLTK's tokenizer.
pub fn ngram_entropy<T: Ord>(tokens: &[T]) -> Option<f64> {
    Some(entropy(tokens, 2)? / 3.0 + 2.0 * entropy(tokens, 3)? / 3.0)
}

/// Entropy in bits of the distribution of n-grams, `H_n = -sum p log2 p`.
fn entropy<T: Ord>(tokens: &[T], n: usize) -> Option<f64> {
    let mut counts = BTreeMap::new();
    tokens.windows(n).for_each(|gram| *counts.entry(gram).or_insert(0usize) += 1);
    let total: usize = counts.values().sum();
    let bits = |&count: &usize| {
        let p = count as f64 / total as f64;
        -p * p.log2()
    };
    (total > 0).then(|| counts.values().map(bits).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn outcomes_by_hand() {
        let prompts = [[0.5, 1.0], [2.0, 1.0], [1.0, 1.0]];
        let (new, held) = (new_wins(&prompts).unwrap(), true_holds(&prompts).unwrap());
        assert_eq!((new.success, held.success), (1.0 / 3.0, 1.0 / 3.0));
        // (exp(-.5) - exp(-1) + exp(-2) - exp(-1)) / 3 in Python
        assert!((new.magnitude - 0.002_035_686_868_787_153).abs() < 1e-12);
        assert!((new.magnitude + held.magnitude).abs() < 1e-15);
        assert_eq!((new_wins(&[]), true_holds(&[])), (None, None));
        assert_eq!((new_wins(&[[f64::NAN, 1.0]]), true_holds(&[[0.5, 1.0], [1.0, f64::NAN]])), (None, None));
    }

    #[test]
    fn the_harmonic_mean_agrees_with_rome() {
        // 3 / (1/1 + 1/0.964 + 1/0.754): ROME's published S for GPT-2 XL is 89.2
        assert!((harmonic_mean(&[1.0, 0.964, 0.754]).unwrap() - 0.892).abs() < 5e-4);
        assert_eq!((harmonic_mean(&[0.5, 0.0]), harmonic_mean(&[])), (Some(0.0), None));
    }

    #[test]
    fn tokens_by_hand() {
        assert_eq!(token_agreement(&[1, 2, 3, 4], &[1, 9, 3, 4]), Some(0.75));
        assert_eq!(token_agreement(&[], &[]), None);
        let answers = [all_correct(&[5, 6], &[5, 6]), all_correct(&[5, 7], &[5, 6]), all_correct(&[], &[])];
        assert_eq!(answers, [Some(true), Some(false), None]);
        let [begins, short, other] = [&[5, 6, 7][..], &[5], &[5, 9]].map(|made| exact_match(made, &[5, 6]));
        assert_eq!([begins, short, other], [Some(true), Some(false), Some(false)]);
        assert_eq!(exact_match(&[5], &[]), None);
        assert_eq!(free_accuracy(&[5, 9, 7], &[5, 6, 7, 8]), Some(0.5));
        assert_eq!((free_accuracy(&[5], &[]), free_accuracy(&[], &[5])), (None, Some(0.0)));
        let turned = [[2.0, 1.0], [1.0, 1.0], [1.0, 2.0]].map(|before| flipped(before, [1.0, 2.0]));
        assert_eq!(turned, [true, true, false]);
        assert!(!flipped([2.0, 1.0], [1.0, 1.0]), "a tie is no flip");
    }

    #[test]
    fn the_entropy_agrees_with_romes_definition() {
        // bigrams ab ba ab: H = 0.9183; trigrams aba bab: H = 1
        assert!(
            (ngram_entropy(b"abab").unwrap() - (0.918_295_834_054_489_6 / 3.0 + 2.0 / 3.0)).abs() < 1e-12
        );
        // statistics.fmean([2/3 * H(2), 4/3 * H(3)]) in Python
        let words: Vec<&str> = "the cat sat on the mat and the cat sat on the hat".split(' ').collect();
        assert!((ngram_entropy(&words).unwrap() - 2.915_416_660_139_998).abs() < 1e-12);
        assert_eq!((ngram_entropy(b"ab"), ngram_entropy(b"aaaaaa")), (None, Some(0.0)));
    }

    #[test]
    #[should_panic(expected = "lists of different length")]
    fn a_prediction_has_the_targets_length() {
        all_correct(&[1], &[1, 2]);
    }

    #[test]
    #[should_panic(expected = "lists of different length")]
    fn agreement_is_of_equally_long_lists() {
        token_agreement(&[1, 2], &[1]);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn a_score_needs_resamples() {
        score(&[[Some(1.0); 3]], 0, Stream::named(1, "score"));
    }

    /// Means are over the requests that have the value, and equal requests leave an interval without width.
    #[test]
    fn scores_of_requests() {
        let stream = || Stream::named(1, "score");
        let mixed = [[Some(1.0), Some(1.0), None], [Some(1.0), Some(0.5), Some(0.5)]];
        // 3 / (1/1 + 1/0.75 + 1/0.5)
        let mean = score(&mixed, 200, stream()).unwrap();
        assert!((mean.value - 9.0 / 13.0).abs() < 1e-12 && mean.low < mean.value && mean.value <= mean.high);
        let alike = score(&[[Some(1.0), Some(0.5), Some(0.25)]; 9], 50, stream()).unwrap();
        assert!((alike.value - 3.0 / 7.0).abs() < 1e-12 && (alike.high - alike.low).abs() < 1e-12);
        assert_eq!(score(&[[Some(1.0), None, Some(1.0)]], 50, stream()), None);
        assert_eq!(score(&[], 50, stream()), None);
        // Copies of a request in its cluster add no information.
        let copied: Vec<_> = mixed.iter().flat_map(|&request| [request; 4]).collect();
        let keys: Vec<usize> = (0..8).map(|row| row / 4).collect();
        let clustered = score_in_clusters(&copied, &keys, 200, stream()).unwrap();
        assert!((clustered.low - mean.low).abs() < 1e-12 && (clustered.high - mean.high).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn bounds_and_symmetry(pairs in prop::collection::vec((0.0..9.0, 0.0..9.0).prop_map(|(a, b)| [a, b]), 1..20)) {
            let (new, held) = (new_wins(&pairs).unwrap(), true_holds(&pairs).unwrap());
            let ties = pairs.iter().filter(|[a, b]| a == b).count() as f64 / pairs.len() as f64;
            prop_assert!((new.success + held.success + ties - 1.0).abs() < 1e-12);
            prop_assert!((new.magnitude + held.magnitude).abs() < 1e-12 && new.magnitude.abs() <= 1.0);
            let swapped: Vec<[f64; 2]> = pairs.iter().map(|&[a, b]| [b, a]).collect();
            prop_assert_eq!(true_holds(&swapped), Some(new));
        }

        #[test]
        fn entropy_is_largest_without_repetition(n in 3usize..40, period in 1usize..40) {
            let distinct: Vec<usize> = (0..n).collect();
            let most = ((n - 1) as f64).log2() / 3.0 + 2.0 * ((n - 2) as f64).log2() / 3.0;
            prop_assert!((ngram_entropy(&distinct).unwrap() - most).abs() < 1e-9);
            let repeated: Vec<usize> = (0..n).map(|i| i % period).collect();
            prop_assert!(ngram_entropy(&repeated).unwrap() <= most + 1e-9);
        }

        #[test]
        fn the_harmonic_mean_lies_between(shares in prop::collection::vec(0.01f64..1.0, 1..6)) {
            let mean = harmonic_mean(&shares).unwrap();
            let (low, high) = shares.iter().fold((1.0f64, 0.0f64), |(l, h), &x| (l.min(x), h.max(x)));
            prop_assert!(low - 1e-12 <= mean && mean <= high + 1e-12);
        }
    }
}
