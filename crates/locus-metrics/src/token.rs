//! Scores of targets after prompts, from negative log-likelihoods (NLL: mean per target token, in nats).

/// Probability per token: `exp(-nll)`, the geometric mean over the tokens of a target.
///
/// ```
/// assert_eq!(locus_metrics::token::probability(0.0), 1.0);
/// ```
pub fn probability(nll: f64) -> f64 {
    (-nll).exp()
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Harmonic mean of values that are not negative: 0 if one is 0, `None` of nothing.
pub fn harmonic_mean(values: &[f64]) -> Option<f64> {
    // The inverse of a zero is infinite, and the inverse of infinity is the zero that is wanted.
    mean(&values.iter().map(|value| value.recip()).collect::<Vec<_>>()).map(f64::recip)
}

/// Mean of the probabilities, which is not the probability of the mean NLL (it is at least as large).
pub fn mean_probability(nlls: &[f64]) -> Option<f64> {
    mean(&nlls.iter().map(|&nll| probability(nll)).collect::<Vec<_>>())
}

/// Whether the new target is strictly more probable than the true one.
pub fn beats(new_nll: f64, true_nll: f64) -> bool {
    new_nll < true_nll
}

/// Share of `(new, true)` pairs of NLLs in which the new target beats the true one; `None` of nothing.
pub fn beats_share(pairs: &[(f64, f64)]) -> Option<f64> {
    mean(&pairs.iter().map(|&(new, old)| f64::from(u8::from(beats(new, old)))).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_and_means_by_hand() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
        assert_eq!(mean_probability(&[]), None);
        assert_eq!(harmonic_mean(&[1.0, 0.25, 0.5]), Some(3.0 / 7.0));
        assert_eq!((harmonic_mean(&[1.0, 0.0]), harmonic_mean(&[])), (Some(0.0), None));
        // A tie is not a win.
        assert_eq!(beats_share(&[(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (0.5, 0.6)]), Some(0.5));
        assert!((probability(2.0_f64.ln()) - 0.5).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn averaging_probabilities_gives_at_least_that_of_the_mean(
            nlls in prop::collection::vec(0.0..20.0, 1..40),
        ) {
            let jensen = probability(mean(&nlls).unwrap());
            prop_assert!(mean_probability(&nlls).unwrap() >= jensen * (1.0 - 1e-12));
        }

        #[test]
        fn the_harmonic_mean_lies_between_the_least_and_the_mean(
            values in prop::collection::vec(0.01..20.0, 1..20),
        ) {
            let harmonic = harmonic_mean(&values).unwrap();
            let least = values.iter().copied().fold(f64::MAX, f64::min);
            prop_assert!(harmonic >= least * (1.0 - 1e-12));
            prop_assert!(harmonic <= mean(&values).unwrap() * (1.0 + 1e-12));
        }

        #[test]
        fn one_of_two_beats_the_other(new in 0.0..20.0, old in 0.0..20.0) {
            prop_assume!(new != old);
            prop_assert!(beats(new, old) != beats(old, new));
        }
    }
}
